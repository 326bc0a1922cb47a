"""Masks in closed form: for each coordinate of some ranks, which coordinates of another rank are kept.

A causal mask, a window or a block pattern keeps, for each query, one interval of keys. The intervals follow from the
text of the conditions by solving each comparison for the column rank, so that a mask of 65536 x 65536 points costs
65536 numbers. Comparisons may be affine in the column, may divide it (`m // Bk <= p // Bk`) or bound a distance
(`abs(p - m) <= Wd`), and may be joined by `and`, `or` and `not`; of the row ranks any expression is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.cascade import Cascade
from einsum.conditions import Comparison, Condition
from einsum.errors import SpecError
from einsum.evaluation import Comparison as ComparisonNode
from einsum.evaluation import Logic, Name, Node, Not, Operation

Counts = NDArray[np.int64]
_OPPOSITE = {"<": ">=", "<=": ">", ">": "<=", ">=": "<", "==": "!=", "!=": "=="}


class NotIntervals(Exception):
    """The condition does not keep a few intervals per row, such as `m % 2 == 0`."""


@dataclass(frozen=True)
class TileIntervals:
    """A mask seen in tiles: chunk i of the rows is [i * row_tile, (i + 1) * row_tile).

    lo, hi   the smallest interval of columns that holds all kept points of a row chunk; lo == hi if there are none
    points   kept points in the row chunk
    columns  columns with at least one kept point in the row chunk
    tiles    column tiles with at least one kept point in the row chunk
    whole    column tiles, among these, whose points are all kept
    """

    row_tile: int
    column_tile: int
    lo: Counts
    hi: Counts
    points: Counts
    columns: Counts
    tiles: Counts
    whole: Counts


@dataclass(frozen=True)
class MaskIntervals:
    """The kept columns of each row, as disjoint half-open intervals [starts, ends), each of shape (pieces, rows).

    Pieces are sorted; an empty piece has starts == ends. One piece is enough for conjunctions of affine comparisons.
    """

    rows: str
    columns: str
    extent: int
    starts: Counts
    ends: Counts

    @property
    def lo(self) -> Counts:
        """The first kept column of each row; equal to `hi` where none is kept."""
        filled = np.where(self.ends > self.starts, self.starts, self.extent)
        return np.where(self.widths > 0, filled.min(axis=0), 0)

    @property
    def hi(self) -> Counts:
        """One past the last kept column of each row."""
        return np.asarray(np.where(self.ends > self.starts, self.ends, 0).max(axis=0))

    @property
    def widths(self) -> Counts:
        """Kept columns per row."""
        return np.asarray((self.ends - self.starts).sum(axis=0))

    @property
    def points(self) -> int:
        """Kept points in all."""
        return int(self.widths.sum())

    @property
    def contiguous(self) -> bool:
        """Whether every row keeps one interval, [lo, hi)."""
        return bool(np.all(self.hi - self.lo == self.widths))

    def chunks(self, size: int) -> Counts:
        """Per row, how many column chunks of `size` keep at least one point."""
        return coverage(self.starts // size, -(-self.ends // size), self.ends > self.starts)

    def tiles(self, row_tile: int, column_tile: int) -> TileIntervals:
        """The mask in tiles of row_tile x column_tile; the last ones may be ragged."""
        rows = self.starts.shape[1]
        chunks = -(-rows // row_tile)
        padding = [(0, 0), (0, chunks * row_tile - rows)]
        starts, ends = (_grouped(np.pad(side, padding), chunks, row_tile) for side in (self.starts, self.ends))
        filled = ends > starts
        hi = np.where(filled, ends, 0).max(axis=0)
        lo = np.where(filled.any(axis=0), np.where(filled, starts, self.extent).min(axis=0), 0)
        return TileIntervals(
            row_tile,
            column_tile,
            lo,
            hi,
            points=np.asarray((ends - starts).sum(axis=0)),
            columns=coverage(starts, ends, filled),
            tiles=coverage(starts // column_tile, -(-ends // column_tile), filled),
            whole=self._whole(row_tile, column_tile, chunks),
        )

    def _whole(self, row_tile: int, column_tile: int, chunks: int) -> Counts:
        """Column tiles that all rows of a chunk keep whole: where a piece of every row covers them."""
        last = -(-self.extent // column_tile)
        first = -(-self.starts // column_tile)
        stop = np.where(self.ends >= self.extent, last, self.ends // column_tile)
        rows = self.starts.shape[1]
        # Intersect the rows of a chunk one after the other; pieces multiply only where rows have several.
        count = np.zeros(chunks, dtype=np.int64)
        if self.starts.shape[0] == 1:
            padding = [(0, 0), (0, chunks * row_tile - rows)]
            low = _grouped(np.pad(first, padding), chunks, row_tile).max(axis=0)
            high = _grouped(np.pad(stop, padding, constant_values=last), chunks, row_tile).min(axis=0)
            return np.asarray(np.maximum(high - low, 0))
        for chunk in range(chunks):
            inside = slice(chunk * row_tile, min((chunk + 1) * row_tile, rows))
            covering = np.zeros(last + 1, dtype=np.int64)
            valid = stop[:, inside] > first[:, inside]
            np.add.at(covering, first[:, inside][valid], 1)
            np.add.at(covering, stop[:, inside][valid], -1)
            count[chunk] = np.count_nonzero(np.cumsum(covering)[:last] == inside.stop - inside.start)
        return count


def _grouped(side: Counts, chunks: int, size: int) -> Counts:
    """(pieces, rows) -> (pieces * size, chunks)."""
    pieces = side.shape[0]
    return side.reshape(pieces, chunks, size).transpose(0, 2, 1).reshape(pieces * size, chunks)


def coverage(starts: Counts, ends: Counts, filled: NDArray[np.bool_]) -> Counts:
    """The number of integers in the union of the intervals along axis 0, empty ones left out."""
    starts, ends = _disjoint(np.where(filled, starts, 0), np.where(filled, ends, 0))
    return np.asarray((ends - starts).sum(axis=0))


def _disjoint(starts: Counts, ends: Counts) -> tuple[Counts, Counts]:
    """The same sets as sorted intervals that do not overlap."""
    order = np.argsort(starts, axis=0, kind="stable")
    starts, ends = np.take_along_axis(starts, order, 0), np.take_along_axis(ends, order, 0)
    reached = np.maximum.accumulate(ends, axis=0)
    starts = np.concatenate([starts[:1], np.maximum(starts[1:], reached[:-1])])
    return starts, np.maximum(starts, ends)


def mask_intervals(
    cascade: Cascade, rows: str, columns: str, env: Mapping[str, Any], conditions: Iterable[Condition] | None = None
) -> MaskIntervals:
    """For each coordinate of rank `rows`, the kept coordinates of rank `columns`, under the cascade's conditions.

    env         sizes and variables by name, all scalars
    conditions  other conditions than those of the whole cascade

    Conditions on neither rank are left out. SpecError for one that involves a further rank, is known only at run time,
    or keeps something else than a few intervals.
    """
    extents = cascade.extents(env)
    values = cascade.environment(env)
    known = cascade.ranks.keys()
    chosen = []
    for condition in cascade.where if conditions is None else conditions:
        ranks = condition.names & known
        if not ranks & {rows, columns}:
            continue
        if not isinstance(condition, Comparison):
            raise SpecError(f"the condition '{condition}' is known only at run time")
        if not ranks <= {rows, columns}:
            raise SpecError(f"the condition '{condition}' involves other ranks than {rows} and {columns}")
        chosen.append(condition)
    grid = {rows: np.arange(extents[rows])} if rows != columns else {}
    try:
        starts, ends = solve(chosen, columns, int(extents[columns]), {**values, **grid}, int(extents[rows]))
    except NotIntervals as error:
        raise SpecError(f"the condition '{error}' does not keep intervals of {columns} for each {rows}") from None
    return MaskIntervals(rows, columns, int(extents[columns]), starts, ends)


def solve(
    conditions: Iterable[Comparison], column: str, extent: int, scope: Mapping[str, Any], rows: int
) -> tuple[Counts, Counts]:
    """Starts and ends, (pieces, rows), of the columns in [0, extent) that satisfy all conditions.

    `scope` holds variables, and an array of length `rows` for each row rank. Raises NotIntervals, with the condition.
    """
    starts, ends = np.zeros((1, rows), np.int64), np.full((1, rows), extent, np.int64)
    for condition in conditions:
        solver = _Solver(column, extent, scope, rows)
        try:
            found = solver.solve(condition.expression.root, False)
        except NotIntervals:
            raise NotIntervals(str(condition)) from None
        starts, ends = _intersection((starts, ends), found)
    return starts, ends


def _intersection(one: tuple[Counts, Counts], other: tuple[Counts, Counts]) -> tuple[Counts, Counts]:
    starts = np.maximum(one[0][:, None], other[0][None]).reshape(-1, one[0].shape[1])
    ends = np.minimum(one[1][:, None], other[1][None]).reshape(-1, one[1].shape[1])
    return _trimmed(starts, np.maximum(starts, ends))


def _union(one: tuple[Counts, Counts], other: tuple[Counts, Counts]) -> tuple[Counts, Counts]:
    return _trimmed(np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]]))


def _trimmed(starts: Counts, ends: Counts) -> tuple[Counts, Counts]:
    """The same sets in as few pieces as possible: sorted, none touching the next, empty ones last."""
    filled = ends > starts
    starts, ends = np.where(filled, starts, 0), np.where(filled, ends, 0)
    if len(starts) > 1:
        order = np.argsort(starts, axis=0, kind="stable")
        starts, ends = np.take_along_axis(starts, order, 0), np.take_along_axis(ends, order, 0)
        for place in range(1, len(starts)):
            touching = starts[place] <= ends[place - 1]
            starts[place] = np.where(touching, starts[place - 1], starts[place])
            ends[place] = np.where(touching, np.maximum(ends[place - 1], ends[place]), ends[place])
            ends[place - 1] = np.where(touching, starts[place - 1], ends[place - 1])
        order = np.argsort(ends <= starts, axis=0, kind="stable")
        starts, ends = np.take_along_axis(starts, order, 0), np.take_along_axis(ends, order, 0)
    pieces = max(1, int((ends > starts).any(axis=1).sum()))
    return starts[:pieces], ends[:pieces]


@dataclass(frozen=True)
class _Solver:
    """Solves comparisons for one column rank, given arrays for the rows."""

    column: str
    extent: int
    scope: Mapping[str, Any]
    rows: int

    def solve(self, node: Node, negated: bool) -> tuple[Counts, Counts]:
        if isinstance(node, Not):
            return self.solve(node.operand, not negated)
        if isinstance(node, Logic):
            parts = self.solve(node.left, negated), self.solve(node.right, negated)
            return _intersection(*parts) if (node.operator == "and") != negated else _union(*parts)
        if self.column not in node.names():
            holds = np.asarray(node.evaluate(self.scope, None)).astype(bool) != negated
            return self.clipped(np.zeros(1), np.where(holds, self.extent, 0))
        if not isinstance(node, ComparisonNode):
            raise NotIntervals
        operator = _OPPOSITE[node.operator] if negated else node.operator
        atom, factor, rest = self.isolated(node)
        return self.bounded(atom, factor, rest, operator)

    def isolated(self, node: ComparisonNode) -> tuple[Node, Any, Any]:
        """The comparison as factor * atom + rest <operator> 0; the atom alone depends on the column."""
        atoms, rest = self.linear(Operation("-", (node.left, node.right), 0))
        remaining = [(atom, factor) for atom, factor in atoms if np.any(factor)] or atoms[:1]
        if len(remaining) != 1:
            raise NotIntervals
        return *remaining[0], rest

    def linear(self, node: Node) -> tuple[list[tuple[Node, Any]], Any]:
        """A sum of factors times atoms, and what does not depend on the column."""
        if self.column not in node.names():
            return [], self.number(node)
        if isinstance(node, Operation):
            if node.operator in ("+", "-"):
                (left, left_rest), (right, right_rest) = (self.linear(operand) for operand in node.operands)
                sign = 1 if node.operator == "+" else -1
                return _merged([*left, *((atom, sign * f) for atom, f in right)]), left_rest + sign * right_rest
            if node.operator == "negative":
                atoms, rest = self.linear(node.operands[0])
                return [(atom, -factor) for atom, factor in atoms], -rest
            if node.operator in ("*", "/"):
                return self.scaled(node)
            if node.operator in ("//", "abs"):
                return [(node, 1)], 0
        if isinstance(node, Name):
            return [(node, 1)], 0
        raise NotIntervals

    def scaled(self, node: Operation) -> tuple[list[tuple[Node, Any]], Any]:
        left, right = node.operands
        if node.operator == "*" and self.column not in left.names():
            left, right = right, left
        if self.column in right.names():
            raise NotIntervals
        atoms, rest = self.linear(left)
        by = self.number(right)
        if node.operator == "/":
            by = 1 / np.where(np.asarray(by) == 0, np.nan, by)
        return [(atom, factor * by) for atom, factor in atoms], rest * by

    def number(self, node: Node) -> Any:
        return np.asarray(node.evaluate(self.scope, None), dtype=np.float64)

    def bounded(self, atom: Node, factor: Any, rest: Any, operator: str) -> tuple[Counts, Counts]:
        """Columns where factor * atom + rest <operator> 0."""
        factor, rest = np.broadcast_arrays(np.asarray(factor, dtype=np.float64), np.asarray(rest, dtype=np.float64))
        if np.isnan(factor).any():
            raise NotIntervals
        if operator == "!=":
            return _union(self.bounded(atom, factor, rest, "<"), self.bounded(atom, factor, rest, ">"))
        if operator == "==":
            return _intersection(self.bounded(atom, factor, rest, "<="), self.bounded(atom, factor, rest, ">="))
        with np.errstate(all="ignore"):
            level = -rest / factor
        upward = np.where(factor > 0, operator in ("<", "<="), operator in (">", ">="))  # atom below its level
        strict = operator in ("<", ">")
        below = np.where(strict, np.ceil(level) - 1, np.floor(level))
        above = np.where(strict, np.floor(level) + 1, np.ceil(level))
        least = np.where(upward, -np.inf, above)
        most = np.where(upward, below, np.inf)
        flat = factor == 0
        holds = {"<": rest < 0, "<=": rest <= 0, ">": rest > 0, ">=": rest >= 0}[operator]
        least = np.where(flat, np.where(holds, -np.inf, np.inf), least)
        most = np.where(flat, np.where(holds, np.inf, -np.inf), most)
        return self.between(atom, least, most)

    def between(self, atom: Node, least: Any, most: Any) -> tuple[Counts, Counts]:
        """Columns where the atom, a whole number, lies in [least, most]."""
        if isinstance(atom, Name):
            return self.clipped(least, most + 1)
        assert isinstance(atom, Operation)
        if atom.operator == "abs":
            if np.any(np.isfinite(least) & np.isfinite(most)):
                raise NotIntervals
            inner = atom.operands[0]
            inside = _intersection(self.inequality(inner, most, "<="), self.inequality(inner, -most, ">="))
            outside = _union(self.inequality(inner, least, ">="), self.inequality(inner, -least, "<="))
            return _intersection(inside, outside)
        inner, divisor = atom.operands
        by = self.number(divisor) if self.column not in divisor.names() else np.zeros(1)
        if np.any(by <= 0):
            raise NotIntervals
        return _intersection(self.inequality(inner, least * by, ">="), self.inequality(inner, (most + 1) * by, "<"))

    def inequality(self, node: Node, level: Any, operator: str) -> tuple[Counts, Counts]:
        """Columns where an affine node is on one side of a level, which may be infinite."""
        atoms, rest = self.linear(node)
        if len(atoms) != 1 or not isinstance(atoms[0][0], Name):
            raise NotIntervals
        always = np.isinf(level) & ((level > 0) == (operator in ("<", "<=")))
        never = np.isinf(level) & ~always
        finite = np.where(np.isinf(level), 0, level)
        starts, ends = self.bounded(atoms[0][0], atoms[0][1], rest - finite, operator)
        starts = np.where(always | never, 0, starts)
        ends = np.where(always, self.extent, np.where(never, 0, ends))
        return starts, ends

    def clipped(self, starts: Any, ends: Any) -> tuple[Counts, Counts]:
        low = np.broadcast_to(np.clip(starts, 0, self.extent), self.rows).astype(np.int64)
        high = np.broadcast_to(np.clip(ends, 0, self.extent), self.rows).astype(np.int64)
        return low[None], np.maximum(low, high)[None]


def _merged(atoms: list[tuple[Node, Any]]) -> list[tuple[Node, Any]]:
    found: list[tuple[Node, Any]] = []
    for atom, factor in atoms:
        place = next((i for i, (known, _) in enumerate(found) if known == atom), None)
        if place is None:
            found.append((atom, factor))
        else:
            found[place] = (atom, found[place][1] + factor)
    return found

