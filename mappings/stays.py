"""How long copies stay under a mask: the tiles between two loads, and what these tiles need together.

A copy whose rank no loop cuts is not the same in all tiles of a stay: under a causal mask every tile of queries needs
more keys than the one before. Over its stay a copy takes each coordinate that any of its tiles needs, once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mappings.mask import Coordinates
from mappings.program import Array
from mappings.tiles import Flags

Labels = NDArray[np.intp]


@dataclass(frozen=True)
class Needed:
    """The coordinates of an uncut rank that tiles need: per band of the mask an interval, (bands, tiles)."""

    rank: str
    first: Coordinates
    end: Coordinates

    def counted(self, group: Labels) -> Array:
        """(tiles,): coordinates that a tile counts for its group, in which each coordinate is counted once.

        Among the tiles that need a coordinate the one whose interval begins first counts it.
        """
        bands, tiles = self.first.shape
        filled = (self.end > self.first).ravel()
        tile = np.tile(np.arange(tiles), bands)[filled]
        apart = group[tile] * (int(self.end.max()) + 1)  # groups one after another on one axis
        first, end = self.first.ravel()[filled] + apart, self.end.ravel()[filled] + apart
        order = np.lexsort((tile, first))
        reached = np.concatenate([[0], np.maximum.accumulate(end[order])[:-1]])
        new = np.maximum(end[order] - np.maximum(first[order], reached), 0)
        return np.bincount(tile[order], weights=new, minlength=tiles).astype(float)

    def united(self, group: Labels) -> Array:
        """(tiles,): coordinates that a tile's group needs; groups are numbered 0, 1, 2, ..."""
        return np.asarray(np.bincount(group, weights=self.counted(group))[group])


@dataclass(frozen=True)
class Needs:
    """What visits need, a visit being that of one tile or of several at once: `visit` numbers them, (tiles,)."""

    needed: Needed
    visit: Labels

    def counted(self, group: Labels, part: Labels) -> Array:
        """(parts,): coordinates, each counted once in a group of visits, summed over the parts of the visits."""
        return np.bincount(part[self.visit], weights=self.needed.counted(group[self.visit])).astype(float)


@dataclass(frozen=True)
class Stays:
    """Per visit, (visits,): loads of a copy, those of what was never there before, and its needed coordinates.

    `loads` is 1 in the first visit of a stay and 0 in the others; `size` is None for a copy without an uncut rank.
    """

    loads: Array
    fresh: Array
    size: Array | None

    @classmethod
    def of(cls, content: Coordinates, restless: Flags, needs: Needs | None, repeats: float, returns: float) -> Stays:
        """The stays of a copy over visits in the order of execution (or against it, for what is written back).

        content   a number for the loop iterations that tell one content of the copy from another, (visits,)
        restless  visits that replace the copy again and again, so that it stays in no other visit
        needs     what the visits need of an uncut rank of the copy
        repeats   how often all visits come again before a loop around them changes the copy
        returns   how often they come again in all, with the same contents
        """
        stays_on = (content[1:] == content[:-1]) & ~restless[1:] & ~restless[:-1]
        starts = np.concatenate([[True], ~stays_on])
        stay = np.cumsum(starts) - 1
        loads, fresh, size = starts.astype(float), np.zeros(content.size), None
        if needs is None:
            fresh[np.unique(content, return_index=True)[1]] = 1.0
        else:
            own = needs.counted(stay, stay)
            size = own[stay]
            fresh[starts] = needs.counted(np.unique(content, return_inverse=True)[1].reshape(-1), stay) / own
        if content[0] == content[-1] and not restless[0] and not restless[-1]:
            # The last stay goes on in the first visits, except where the copy changes between two repetitions.
            missing = 0.0
            if needs is not None and stay[-1] > 0:
                ends = np.where((stay == 0) | (stay == stay[-1]), 0, 1)
                missing = (needs.counted(ends, ends)[0] - own[-1]) / own[0]
            loads[0] = 1 / repeats + (1 - 1 / repeats) * missing
        return cls(loads, fresh / returns, size)
