"""What a mask leaves of a nest's iterations, for arrays of chunk sizes: the mapper's closed forms under masks.

`mappings.masked` counts the tiles of one nest one by one. Here only four sums over them are kept for each pair of chunk
sizes, so that thousands of pairs cost milliseconds. The kept columns of a chunk of rows are taken for one interval,
which they are in causal masks, windows and blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from mappings.masked import Mask
from mappings.program import Array


class Tiles(NamedTuple):
    """Visited tiles, and sums over them: their rows, their columns, their points."""

    tiles: float
    rows: float
    columns: float
    points: float


@dataclass(frozen=True)
class MaskCounts:
    """Sums over the visited tiles of a mask at any chunk sizes of its two ranks."""

    mask: Mask
    columns: int
    _known: dict[tuple[int, int], Tiles] = field(default_factory=dict, compare=False, repr=False)

    @property
    def rows(self) -> int:
        """Extent of the mask's rows."""
        return int(self.mask.low.size)

    @cached_property
    def kept(self) -> float:
        """The part of all points that the mask keeps."""
        return float((self.mask.high - self.mask.low).sum()) / (self.rows * self.columns)

    def at(self, rows: int, columns: int) -> Tiles:
        """The sums for chunks of so many rows and columns; the last ones may be ragged."""
        if (rows, columns) not in self._known:
            self._known[rows, columns] = self._counted(rows, columns)
        return self._known[rows, columns]

    def _counted(self, rows: int, columns: int) -> Tiles:
        start = np.arange(0, self.rows, rows)
        end = np.minimum(start + rows, self.rows)
        low, high = self.mask.low[start], self.mask.high[end - 1]
        tiles = np.where(high > low, -(-high // columns) - low // columns, 0)
        wide = np.where(tiles > 0, np.minimum(-(-high // columns) * columns, self.columns) - low // columns * columns, 0)
        height = end - start
        return Tiles(*(float(total) for total in (tiles.sum(), height @ tiles, wide.sum(), height @ wide)))

    def seen(self, rows: int | None, columns: int | None) -> float:
        """The part of a rank's coordinates that chunks of one rank reach, where the other rank is not cut."""
        if rows is not None:
            tall = self.at(rows, self.columns)
            return tall.rows / self.rows
        assert columns is not None
        start = np.arange(0, self.columns, columns)
        first, end = self.mask.rows_of(start, np.minimum(columns, self.columns - start))
        return float(np.minimum(columns, self.columns - start)[first < end].sum()) / self.columns

    def visits(self, roles: Mapping[str, str], chunks: Mapping[str, Array]) -> Array:
        """How often a tensor's words pass, by what loops over the mask's ranks do to its tile.

        roles   base rank -> `cut` (the loop changes the tile) or `reload` (the tile comes again in every iteration)
        chunks  base rank -> chunk sizes of that loop, arrays that broadcast against each other
        """
        row, column = roles.get(self.mask.row), roles.get(self.mask.column)
        if row is None and column is None:
            return np.ones((1, 1))
        rows = chunks[self.mask.row] if row else np.full((1, 1), float(self.rows))
        wide = chunks[self.mask.column] if column else np.full((1, 1), float(self.columns))
        rows, wide = np.broadcast_arrays(np.minimum(rows, self.rows), np.minimum(wide, self.columns))
        pairs, place = np.unique(np.stack([rows.ravel(), wide.ravel()]), axis=1, return_inverse=True)
        values = [self._visits(row, column, int(r), int(c)) for r, c in pairs.T]
        return np.asarray(values)[np.reshape(place, -1)].reshape(rows.shape)

    def _visits(self, row: str | None, column: str | None, rows: int, columns: int) -> float:
        if column is None:
            return self.seen(rows, None) if row == "cut" else self.at(rows, columns).tiles
        if row is None:
            return self.seen(None, columns) if column == "cut" else float(-(-self.columns // columns))
        found = self.at(rows, columns)
        if row == "cut":
            return found.points / (self.rows * self.columns) if column == "cut" else found.rows / self.rows
        return found.columns / self.columns if column == "cut" else found.tiles
