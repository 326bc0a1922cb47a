"""A mask that is known before run time: which points of two ranks it keeps, as bands of rows.

At each coordinate of one rank (the row) it keeps some intervals of the other (the column). A band is a run of rows with
one interval each whose bounds never fall from row to row: causal masks, windows and block diagonals are one band, a
window with attention sinks is two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.cascade import Cascade
from einsum.conditions import Comparison
from einsum.errors import SpecError
from einsum.masks import mask_intervals

MOST_BANDS = 64
"""Bands of one mask; what is asked of a mask is asked of each of them."""

Coordinates = NDArray[np.int64]
Flags = NDArray[np.bool_]
Part = tuple[int, int, int]
"""Which of the intervals of the rows from one to before another."""


@dataclass(frozen=True)
class Band:
    """Columns low[r] <= c < high[r] are kept at rows first <= r < end; both bounds never fall from row to row.

    The bounds of the rows before are 0, those of the rows after the number of columns, so that they never fall there.
    """

    first: int
    end: int
    low: Coordinates
    high: Coordinates

    @classmethod
    def of(cls, first: int, low: Coordinates, high: Coordinates, rows: int, columns: int) -> Band:
        """A band of the rows from `first` on that have bounds, in a mask of `rows` x `columns` points."""
        around = (first, rows - first - low.size)
        padded = (np.pad(bound, around, constant_values=(0, columns)) for bound in (low, high))
        return cls(first, first + low.size, *padded)

    def columns_of(self, row: Coordinates, rows: Coordinates) -> tuple[Coordinates, Coordinates]:
        """First and one past the last column kept in rows row ... row + rows - 1; (0, 0) where none is."""
        first, end = np.maximum(row, self.first), np.minimum(row + rows, self.end)
        filled = first < end
        last = np.clip(end - 1, 0, self.low.size - 1)
        low = self.low[np.clip(first, 0, self.low.size - 1)]
        return np.where(filled, low, 0), np.where(filled, self.high[last], 0)

    def rows_of(self, column: Coordinates, columns: Coordinates) -> tuple[Coordinates, Coordinates]:
        """First and one past the last row that keep any of the columns column ... column + columns - 1."""
        first = np.maximum(np.searchsorted(self.high, column, side="right"), self.first)
        end = np.minimum(np.searchsorted(self.low, column + columns, side="left"), self.end)
        return np.where(first < end, first, 0), np.where(first < end, end, 0)

    def kept(self, row: Coordinates, rows: Coordinates, column: Coordinates, columns: Coordinates) -> Coordinates:
        """Points that tiles of `rows` x `columns` coordinates from (row, column) on keep."""
        first, end = np.clip(row, self.first, self.end), np.clip(row + rows, self.first, self.end)
        limits = column, column + columns
        return self._clipped(self.high, first, end, *limits) - self._clipped(self.low, first, end, *limits)

    @staticmethod
    def _clipped(
        bounds: Coordinates, row: Coordinates, end: Coordinates, least: Coordinates, most: Coordinates
    ) -> Coordinates:
        """Sum over rows row ... end - 1 of the bound, clipped to least ... most; the bounds never fall."""
        sums = np.concatenate([[0], np.cumsum(bounds)])
        below = np.clip(np.searchsorted(bounds, least, side="left"), row, end)
        above = np.clip(np.searchsorted(bounds, most, side="right"), row, end)
        above = np.maximum(below, above)
        return np.asarray((below - row) * least + (sums[above] - sums[below]) + (end - above) * most)


@dataclass(frozen=True)
class Mask:
    """The points (row, column) that a mask keeps, none of them in two of its bands."""

    row: str
    column: str
    rows: int
    columns: int
    bands: tuple[Band, ...]

    @classmethod
    def of(cls, cascade: Cascade, env: Mapping[str, Any]) -> Mask | None:
        """The mask that a cascade's conditions make, None without any. SpecError for one that cannot be mapped.

        All Einsums over both of its ranks have to be under the same conditions, known before run time.
        """
        clauses = [condition for einsum in cascade.einsums for condition in einsum.conditions]
        late = next((condition for condition in clauses if not isinstance(condition, Comparison)), None)
        if late is not None:
            raise SpecError(
                f"the condition '{late}' is known only at run time; a nest of loops cannot be costed under it"
            )
        conditions = dict.fromkeys(clauses)
        if not conditions:
            return None
        named = {name for condition in conditions for name in condition.names if name in cascade.ranks}
        bases = [rank for rank in cascade.ranks if rank in {cascade.base(name) for name in named}]
        if len(bases) != 2:
            raise SpecError(f"masks of two ranks can be mapped, the conditions relate {', '.join(bases)}")
        for einsum in cascade.einsums:
            over = {cascade.base(rank) for rank in einsum.ranks}
            if set(bases) <= over and set(einsum.conditions) != set(conditions):
                raise SpecError(f"{einsum.name} is under other conditions than the rest of cascade '{cascade.name}'")
        found: list[Mask] = []
        failure: SpecError | None = None
        for row, column in (bases, bases[::-1]):
            try:
                kept = mask_intervals(cascade, row, column, env, conditions)
                found.append(cls.from_intervals(row, column, kept.extent, kept.starts, kept.ends))
            except SpecError as error:
                failure = failure or error
            if found and len(found[0].bands) <= 1:
                break
        if not found:
            assert failure is not None
            raise failure
        return min(found, key=lambda mask: len(mask.bands))

    @classmethod
    def from_intervals(
        cls, row: str, column: str, columns: int, starts: Coordinates, ends: Coordinates
    ) -> Mask:
        """A mask from its rows' intervals, (pieces, rows), disjoint and sorted, empty ones last.

        SpecError when they make more than MOST_BANDS bands.
        """
        rows = starts.shape[1]
        filled = ends > starts
        rising = (np.diff(starts, axis=1) >= 0) & (np.diff(ends, axis=1) >= 0)
        alike = ((filled[:, 1:] == filled[:, :-1]) & (rising | ~filled[:, 1:])).all(axis=0)
        breaks = [0, *(np.flatnonzero(~alike) + 1).tolist(), rows]
        done: list[list[Part]] = []  # bands
        open_: list[list[Part]] = []  # those that reach the row before, by their columns
        for first, end in pairwise(breaks):
            if not filled[:, first].any():
                continue  # bands go on behind rows that keep nothing
            waiting = list(open_)
            now: list[list[Part]] = []
            for piece in np.flatnonzero(filled[:, first])[::-1].tolist():
                goes_on = next((band for band in waiting[::-1] if _rises(band[-1], piece, starts, ends)), [])
                if goes_on:
                    waiting = waiting[: next(at for at, band in enumerate(waiting) if band is goes_on)]
                else:
                    done.append(goes_on)
                goes_on.append((piece, first, end))
                now.insert(0, goes_on)
            open_ = now
            if len(done) > MOST_BANDS:
                raise SpecError(
                    f"the mask's kept intervals of '{column}' for each '{row}' make more than {MOST_BANDS} bands of "
                    "rows whose bounds never fall; masks of fewer can be mapped"
                )
        return cls(row, column, rows, columns, tuple(_band(parts, starts, ends, columns) for parts in done))

    @property
    def points(self) -> int:
        """Points that the mask keeps."""
        return int(sum((band.high - band.low).sum() for band in self.bands))

    def columns_of(self, row: Coordinates, rows: Coordinates) -> tuple[Coordinates, Coordinates]:
        """Per band, (bands, tiles): first and one past the last column kept in rows row ... row + rows - 1."""
        return self._sides([band.columns_of(row, rows) for band in self.bands], row)

    def rows_of(self, column: Coordinates, columns: Coordinates) -> tuple[Coordinates, Coordinates]:
        """Per band, (bands, tiles): first and one past the last row that keep any of the columns."""
        return self._sides([band.rows_of(column, columns) for band in self.bands], column)

    @staticmethod
    def _sides(
        found: list[tuple[Coordinates, Coordinates]], start: Coordinates
    ) -> tuple[Coordinates, Coordinates]:
        if not found:
            return np.zeros((1, start.size), np.int64), np.zeros((1, start.size), np.int64)
        return np.stack([first for first, _ in found]), np.stack([end for _, end in found])

    def visited(self, row: Coordinates, rows: Coordinates, column: Coordinates, columns: Coordinates) -> Flags:
        """Whether tiles of `rows` x `columns` coordinates from (row, column) on keep any point."""
        first, end = self.rows_of(column, columns)
        return np.asarray((np.maximum(row, first) < np.minimum(row + rows, end)).any(axis=0))

    def kept(self, row: Coordinates, rows: Coordinates, column: Coordinates, columns: Coordinates) -> Coordinates:
        """Points that tiles of `rows` x `columns` coordinates from (row, column) on keep."""
        return np.asarray(sum(band.kept(row, rows, column, columns) for band in self.bands))


def _rises(last: Part, piece: int, starts: Coordinates, ends: Coordinates) -> bool:
    """Whether a piece goes on with a band in the next row: neither of its bounds falls."""
    before, _, row = last
    return bool(starts[piece, row] >= starts[before, row - 1] and ends[piece, row] >= ends[before, row - 1])


def _band(parts: list[Part], starts: Coordinates, ends: Coordinates, columns: int) -> Band:
    sides: tuple[list[Coordinates], list[Coordinates]] = ([], [])
    row = parts[0][1]
    for piece, first, end in parts:
        for side, bounds in zip(sides, (starts, ends), strict=True):
            if first > row:  # rows that keep nothing
                side.append(np.full(first - row, sides[1][-1][-1] if side is sides[0] else side[-1][-1]))
            side.append(bounds[piece, first:end])
        row = end
    low, high = map(np.concatenate, sides)
    return Band.of(parts[0][1], low, high, starts.shape[1], columns)
