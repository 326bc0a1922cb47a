"""Which (row, column) pairs of a score matrix are computed: dense, causal, windows, bands, lists of blocks.

A pattern answers the few questions that bounds and schedules ask, exactly: how many pairs, the fullest row and
column, how many rows and columns are used at all, and which columns a tile of rows needs (and, transposed, the
reverse). Rows and columns that no pair uses are removed when a pattern is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
LONGEST = 1 << 24  # positions of a pattern, which are kept one by one


class Pattern(Protocol):
    """What every pattern can tell."""

    @property
    def rows(self) -> int:
        """Rows with at least one pair."""

    @property
    def columns(self) -> int:
        """Columns with at least one pair."""

    @property
    def pairs(self) -> int:
        """Number of pairs kept."""

    @property
    def fullest_row(self) -> int:
        """Largest number of columns of a row."""

    @property
    def fullest_column(self) -> int:
        """Largest number of rows of a column."""

    def transposed(self) -> Pattern:
        """The same pairs with rows and columns exchanged."""

    def columns_of_rows(self, start: Ints, stop: Ints) -> Ints:
        """Number of columns that the rows start..stop-1 need together, for arrays of row ranges."""

    def spans(self) -> tuple[Ints, Ints]:
        """First and last column of each row."""

    def row(self, index: int) -> list[int]:
        """The columns of one row, in order."""


@dataclass(frozen=True, eq=False)
class Intervals:
    """Pairs kept by an interval of columns per row: `low` <= column < `high`, both non-decreasing, none empty."""

    low: Ints
    high: Ints
    columns: int

    @classmethod
    def build(cls, low: Ints, high: Ints) -> Intervals:
        """Pattern of rows with columns low..high-1; empty rows and unused columns are dropped.

        Raises ValueError when nothing is left, or when the ends of the intervals go back and forth.
        """
        kept = high > low
        low, high = low[kept].astype(np.int64), high[kept].astype(np.int64)
        if low.size == 0:
            raise ValueError("the mask keeps no pair at all")
        if np.any(np.diff(low) < 0) or np.any(np.diff(high) < 0):
            raise ValueError("the intervals of the rows are not in order")
        unused = np.cumsum(np.concatenate([low[:1], np.maximum(0, low[1:] - high[:-1])]))
        return cls(low - unused, high - unused, int(high[-1] - unused[-1]))

    @classmethod
    def dense(cls, rows: int, columns: int) -> Intervals:
        """Every pair."""
        return cls.build(np.zeros(rows, np.int64), np.full(rows, columns, np.int64))

    @classmethod
    def band(cls, rows: int, columns: int, left: int | None, right: int | None) -> Intervals:
        """Columns row-left .. row+right (None: no limit): causal is (None, 0), a causal window of W is (W-1, 0)."""
        position = np.arange(rows, dtype=np.int64)
        low = np.zeros(rows, np.int64) if left is None else np.clip(position - left, 0, columns)
        high = np.full(rows, columns, np.int64) if right is None else np.clip(position + right + 1, 0, columns)
        return cls.build(low, high)

    @property
    def rows(self) -> int:
        """Rows with at least one pair."""
        return int(self.low.size)

    @cached_property
    def pairs(self) -> int:
        """Number of pairs kept."""
        return int(np.sum(self.high - self.low))

    @cached_property
    def fullest_row(self) -> int:
        """Largest number of columns of a row."""
        return int(np.max(self.high - self.low))

    @cached_property
    def fullest_column(self) -> int:
        """Largest number of rows of a column."""
        return self.transposed().fullest_row

    def transposed(self) -> Intervals:
        """The same pairs with rows and columns exchanged."""
        column = np.arange(self.columns, dtype=np.int64)
        first = np.searchsorted(self.high, column, side="right").astype(np.int64)
        last = np.searchsorted(self.low, column, side="right").astype(np.int64)
        return Intervals(first, last, self.rows)

    @cached_property
    def _fresh(self) -> Ints:
        """Running count of the columns that no earlier row has."""
        fresh = self.high[1:] - np.maximum(self.low[1:], self.high[:-1])
        return np.cumsum(np.concatenate([self.high[:1] - self.low[:1], fresh]))

    def columns_of_rows(self, start: Ints, stop: Ints) -> Ints:
        """Number of columns that the rows start..stop-1 need together, for arrays of row ranges."""
        union: Ints = self._fresh[stop - 1] - self._fresh[start] + self.high[start] - self.low[start]
        return union

    def spans(self) -> tuple[Ints, Ints]:
        """First and last column of each row."""
        return self.low, self.high - 1

    def row(self, index: int) -> list[int]:
        """The columns of one row, in order."""
        return list(range(int(self.low[index]), int(self.high[index])))


@dataclass(frozen=True, eq=False)
class Blocks:
    """Pairs kept by whole blocks: `kept[a, b]` keeps the rows and columns between the edges a, a+1 and b, b+1."""

    kept: Bools
    row_edges: Ints
    column_edges: Ints

    @classmethod
    def build(cls, kept: Bools, rows: int, columns: int, block_rows: int, block_columns: int) -> Blocks:
        """Pattern of `rows` x `columns` pairs in blocks, the last ones cut; unused blocks of rows and columns go.

        Raises ValueError when nothing is kept or `kept` has not one entry for each block.
        """
        shape = (-(-rows // block_rows), -(-columns // block_columns))
        if kept.shape != shape:
            raise ValueError(f"the mask needs {shape[0]} x {shape[1]} blocks, not {kept.shape[0]} x {kept.shape[1]}")
        if not kept.any():
            raise ValueError("the mask keeps no pair at all")
        heights = np.minimum(block_rows, rows - block_rows * np.arange(shape[0]))[kept.any(axis=1)]
        widths = np.minimum(block_columns, columns - block_columns * np.arange(shape[1]))[kept.any(axis=0)]
        kept = kept[kept.any(axis=1)][:, kept.any(axis=0)]
        edges = [np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64) for sizes in (heights, widths)]
        return cls(kept, edges[0], edges[1])

    @property
    def rows(self) -> int:
        """Rows with at least one pair."""
        return int(self.row_edges[-1])

    @property
    def columns(self) -> int:
        """Columns with at least one pair."""
        return int(self.column_edges[-1])

    @cached_property
    def _columns_per_block_row(self) -> Ints:
        return np.asarray(self.kept.astype(np.int64) @ np.diff(self.column_edges))

    @cached_property
    def pairs(self) -> int:
        """Number of pairs kept."""
        return int(np.diff(self.row_edges) @ self._columns_per_block_row)

    @cached_property
    def fullest_row(self) -> int:
        """Largest number of columns of a row."""
        return int(self._columns_per_block_row.max())

    @cached_property
    def fullest_column(self) -> int:
        """Largest number of rows of a column."""
        return self.transposed().fullest_row

    def transposed(self) -> Blocks:
        """The same pairs with rows and columns exchanged."""
        return Blocks(np.ascontiguousarray(self.kept.T), self.column_edges, self.row_edges)

    def columns_of_rows(self, start: Ints, stop: Ints) -> Ints:
        """Number of columns that the rows start..stop-1 need together, for arrays of row ranges."""
        first = np.searchsorted(self.row_edges, start, side="right") - 1
        last = np.searchsorted(self.row_edges, stop - 1, side="right")
        padded = np.vstack([self.kept, np.zeros((1, self.kept.shape[1]), bool)])
        union = np.logical_or.reduceat(padded, np.stack([first, last], axis=1).ravel(), axis=0)[::2]
        counted: Ints = union @ np.diff(self.column_edges)
        return counted

    def spans(self) -> tuple[Ints, Ints]:
        """First and last column of each row."""
        heights = np.diff(self.row_edges)
        first = np.argmax(self.kept, axis=1)
        last = self.kept.shape[1] - 1 - np.argmax(self.kept[:, ::-1], axis=1)
        return np.repeat(self.column_edges[:-1][first], heights), np.repeat(self.column_edges[1:][last] - 1, heights)

    def row(self, index: int) -> list[int]:
        """The columns of one row, in order."""
        block = int(np.searchsorted(self.row_edges, index, side="right")) - 1
        spans = zip(self.column_edges[:-1][self.kept[block]], self.column_edges[1:][self.kept[block]], strict=True)
        return [column for first, last in spans for column in range(int(first), int(last))]


def repeated(tiles: Ints, rows: int, group: int) -> tuple[Ints, Ints]:
    """First and past-the-last position of row tiles when `group` rows share each position, position-major.

    `tiles` are the first rows of consecutive tiles of `rows` stacked rows in all; the ranges are positions.
    """
    ends = np.append(tiles[1:], rows)
    return tiles // group, (ends - 1) // group + 1
