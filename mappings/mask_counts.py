"""What a mask leaves of a nest's iterations, for arrays of chunk sizes: the mapper's closed forms under masks.

`mappings.masked` counts the tiles of one nest one by one. Here only four sums over them are kept for each pair of chunk
sizes, so that thousands of pairs cost milliseconds. The columns that a band of the mask keeps in a chunk of rows are
taken for one interval, which they are in causal masks, windows and blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from einsum.masks import coverage
from mappings.mask import Coordinates, Mask
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
    _known: dict[tuple[int, int], Tiles] = field(default_factory=dict, compare=False, repr=False)

    @property
    def rows(self) -> int:
        """Extent of the mask's rows."""
        return self.mask.rows

    @property
    def columns(self) -> int:
        """Extent of the mask's columns."""
        return self.mask.columns

    @cached_property
    def kept(self) -> float:
        """The part of all points that the mask keeps."""
        return self.mask.points / (self.rows * self.columns)

    def at(self, rows: int, columns: int) -> Tiles:
        """The sums for chunks of so many rows and columns; the last ones may be ragged."""
        if (rows, columns) not in self._known:
            self._known[rows, columns] = self._counted(rows, columns)
        return self._known[rows, columns]

    def _counted(self, rows: int, columns: int) -> Tiles:
        start = np.arange(0, self.rows, rows)
        height = np.minimum(start + rows, self.rows) - start
        across = _Line.of(*self.mask.columns_of(start, height), columns, self.columns)
        at = np.arange(0, self.columns, columns)
        down = _Line.of(*self.mask.rows_of(at, np.minimum(columns, self.columns - at)), rows, self.rows)
        wide = across.coordinates
        sums = across.tiles.sum(), height @ across.tiles, wide.sum(), height @ wide, down.stay(), across.stay()
        return Tiles(*(float(total) for total in sums))

    def seen(self, rows: int | None, columns: int | None) -> float:
        """The part of a rank's coordinates that chunks of one rank reach, where the other rank is not cut."""
        if rows is not None:
            tall = self.at(rows, self.columns)
            return tall.rows / self.rows
        assert columns is not None
        start = np.arange(0, self.columns, columns)
        first, end = self.mask.rows_of(start, np.minimum(columns, self.columns - start))
        return float(np.minimum(columns, self.columns - start)[(first < end).any(axis=0)].sum()) / self.columns

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


@dataclass(frozen=True)
class _Line:
    """Chunks of `size` coordinates that the lines of tiles across the mask visit, (lines,)."""

    tiles: Coordinates
    first: Coordinates
    end: Coordinates
    size: int
    extent: int

    @classmethod
    def of(cls, first: Coordinates, end: Coordinates, size: int, extent: int) -> _Line:
        """Chunks of the coordinates that the bands keep in each line, (bands, lines)."""
        filled = end > first
        start, stop = first // size, -(-end // size)
        tiles = (stop - start)[0] if len(first) == 1 else coverage(start, stop, filled)
        return cls(
            np.where(filled.any(axis=0), tiles, 0),
            np.where(filled, start, extent).min(axis=0),
            np.where(filled, stop, 0).max(axis=0),
            size,
            extent,
        )

    @property
    def coordinates(self) -> Coordinates:
        """Coordinates of the visited chunks; that of the last one may be fewer."""
        return self.tiles * self.size - np.maximum(self.end * self.size - self.extent, 0)

    def stay(self) -> float:
        """Coordinates of the chunks with which one line of tiles ends and the next one begins."""
        live = self.tiles > 0
        first, last = self.first[live], self.end[live] - 1
        same = first[1:][first[1:] == last[:-1]]
        return float(np.minimum(self.size, self.extent - same * self.size).sum())
