"""Leaving out what cannot be best: placements of tensors that cost no less and take no less room.

A placement of a tensor says which loops cut its tile (more of them: less room) and which loops load it again (more of
them: more traffic). Whatever the tile sizes are, a placement whose cuts include another's, and whose reloads are among
the other's, takes no more room and moves no more; the other one is left out without losing the optimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.intp]


@dataclass(frozen=True)
class Placement:
    """A tensor held below the first `depth` loops of a path.

    faces  for each way in which its readers' accesses are moved: loops that cut the tile, and loops that load it
           again, as positions' bits
    """

    depth: int
    faces: tuple[tuple[int, int], ...]


class Spot(NamedTuple):
    """Where a tile lies: the number of a memory on chip, the loops around it, and its copies there."""

    level: int
    depth: int
    buffers: int = 1


Chain = tuple[Spot, ...]
"""The tiles of a tensor on its way from the outermost memory to a leaf, the largest first."""


def placements(moved: Sequence[Sequence[bool]], idle: Sequence[bool] | None = None) -> list[Placement]:
    """Where a tensor may be held below loops, outermost first, which change its faces' tiles as `moved` says.

    In `idle` loops its users run in one iteration only, so that nothing is reloaded there.

    Only the places right below a loop that cuts a tile, and the top, are offered: a place further in takes as much
    room and is reloaded as often. A tile is reloaded by the loops over other ranks outside the innermost that cuts it.
    """
    depths = [0, *(place + 1 for place, flags in enumerate(zip(*moved, strict=True)) if any(flags))]
    return [Placement(depth, tuple(_face(cut[:depth], idle) for cut in moved)) for depth in depths]


def _face(moved: Sequence[bool], idle: Sequence[bool] | None) -> tuple[int, int]:
    """Loops that cut one tile, and those that reload it, as bits."""
    cuts = reloads = others = 0
    for place, cut in enumerate(moved):
        if cut:
            cuts |= 1 << place
            reloads = others
        elif idle is None or not idle[place]:
            others |= 1 << place
    return cuts, reloads


def steady_depth(moved: Sequence[bool]) -> int:
    """The deepest place at which a tile is never reloaded: before the first loop that cuts it inside one that doesn't.

    A value that is made on chip and not stored anywhere else is lost when its tile is replaced, so it is held there.
    """
    depth, idle = 0, False
    for place, cut in enumerate(moved):
        if not cut:
            idle = True
        elif idle:
            break
        else:
            depth = place + 1
    return depth


def undominated(signatures: NDArray[np.uint64], room: NDArray[np.uint64]) -> Places:
    """Places of the candidates that no other one beats.

    signatures  reloads of each tensor, (candidates, tensors): fewer bits move less
    room        cuts of each tensor, (candidates, tensors): more bits take less room
    Of candidates that are alike the first is kept. Exact whatever the sizes of the tiles.
    """
    both = np.concatenate([signatures, ~room], axis=1)
    _, first = np.unique(both, axis=0, return_index=True)
    first.sort()
    rows = both[first]
    kept = [
        place
        for place, row in zip(first, rows, strict=True)
        if int(((rows & ~row) == 0).all(axis=1).sum()) == 1  # only itself has no bit that this one lacks
    ]
    return np.asarray(kept, dtype=np.intp)
