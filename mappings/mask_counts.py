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
from numpy.typing import NDArray

from mappings.masked import Mask
from mappings.program import Array


class Tiles(NamedTuple):
    """Visited tiles, and sums over them: their rows, their columns, their points.

    `stay_columns`: columns of the tiles after which the next chunk of rows begins with the same chunk of columns, so
    that it stays; `stay_rows` the same with rows and columns exchanged.
    """

    tiles: float
    rows: float
    columns: float
    points: float
    stay_rows: float
    stay_columns: float


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
        reach = np.minimum(-(-high // columns) * columns, self.columns)
        wide = np.where(tiles > 0, reach - low // columns * columns, 0)
        height = end - start
        stay_columns = _stay(low // columns, tiles, columns, self.columns)
        at = np.arange(0, self.columns, columns)
        first, last = self.mask.rows_of(at, np.minimum(columns, self.columns - at))
        stay_rows = _stay(first // rows, np.where(last > first, -(-last // rows) - first // rows, 0), rows, self.rows)
        sums = tiles.sum(), height @ tiles, wide.sum(), height @ wide, stay_rows, stay_columns
        return Tiles(*(float(total) for total in sums))

    def seen(self, rows: int | None, columns: int | None) -> float:
        """The part of a rank's coordinates that chunks of one rank reach, where the other rank is not cut."""
        if rows is not None:
            tall = self.at(rows, self.columns)
            return tall.rows / self.rows
        assert columns is not None
        start = np.arange(0, self.columns, columns)
        first, end = self.mask.rows_of(start, np.minimum(columns, self.columns - start))
        return float(np.minimum(columns, self.columns - start)[first < end].sum()) / self.columns

    def visits(self, roles: Mapping[str, str], chunks: Mapping[str, Array]) -> tuple[Array, Array]:
        """How often a tensor's words pass, by what loops over the mask's ranks do to its tile; and the part that stays.

        roles   base rank -> `cut` (the loop changes the tile) or `reload` (the tile comes again in every iteration)
        chunks  base rank -> chunk sizes of that loop, arrays that broadcast against each other

        A tile may stay when one line of tiles ends and the next begins, if no other loop cuts it in between: those
        passes are counted in the first array, and also given as the second.
        """
        row, column = roles.get(self.mask.row), roles.get(self.mask.column)
        if row is None and column is None:
            return np.ones((1, 1)), np.zeros((1, 1))
        rows = chunks[self.mask.row] if row else np.full((1, 1), float(self.rows))
        wide = chunks[self.mask.column] if column else np.full((1, 1), float(self.columns))
        rows, wide = np.broadcast_arrays(np.minimum(rows, self.rows), np.minimum(wide, self.columns))
        pairs, place = np.unique(np.stack([rows.ravel(), wide.ravel()]), axis=1, return_inverse=True)
        values = np.asarray([self._visits(row, column, int(r), int(c)) for r, c in pairs.T])
        found = values[np.reshape(place, -1)].reshape(*rows.shape, 2)
        return found[..., 0], found[..., 1]

    def _visits(self, row: str | None, column: str | None, rows: int, columns: int) -> tuple[float, float]:
        if column is None:
            return (self.seen(rows, None) if row == "cut" else self.at(rows, columns).tiles), 0.0
        if row is None:
            return (self.seen(None, columns) if column == "cut" else float(-(-self.columns // columns))), 0.0
        found = self.at(rows, columns)
        if row == "cut" and column == "cut":
            return found.points / (self.rows * self.columns), 0.0
        if row == "cut":
            return found.rows / self.rows, found.stay_rows / self.rows
        if column == "cut":
            return found.columns / self.columns, found.stay_columns / self.columns
        return found.tiles, 0.0


def _stay(first: NDArray[np.int64], count: NDArray[np.int64], size: int, extent: int) -> float:
    """Coordinates of the chunks with which one line of tiles ends and the next one begins."""
    live = count > 0
    first, last = first[live], (first + count - 1)[live]
    same = first[1:][first[1:] == last[:-1]]
    return float(np.minimum(size, extent - same * size).sum())
