"""From conditions of a cascade, or a mask given by name, to the pattern of pairs that are kept.

Names: `causal` (column <= row), `window:W` (the W columns up to the row's own), `band:W` (columns at most W away),
`blocks:FILE` (a CSV or text table of 0 and 1, one entry for each block; rows and columns are divided evenly).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bounds.pattern import Blocks, Intervals, Pattern
from einsum.access import Index
from einsum.conditions import Comparison
from einsum.errors import SpecError, nearest
from einsum.evaluation import Comparison as ComparisonNode
from einsum.evaluation import Logic, Node

Ints = NDArray[np.int64]
MOST_POINTS = 1 << 24
MASKS = ("causal", "window:W", "band:W", "blocks:FILE")


def named_mask(mask: str, rows: int, columns: int) -> Pattern:
    """The pattern of a mask given by name; SpecError for an unknown one or a size that is not positive."""
    kind, _, value = mask.partition(":")
    if mask == "causal":
        return Intervals.band(rows, columns, None, 0)
    if kind in ("window", "band"):
        if not value.isdecimal() or int(value) < (kind == "window"):
            raise SpecError(f"the mask '{mask}' needs a positive whole number after '{kind}:'")
        width = int(value)
        return Intervals.band(rows, columns, width - (kind == "window"), 0 if kind == "window" else width)
    if kind == "blocks" and value:
        return _blocks_of_file(Path(value), rows, columns)
    raise SpecError(f"unknown mask '{mask}'{nearest(mask, MASKS)}")


def _blocks_of_file(path: Path, rows: int, columns: int) -> Pattern:
    try:
        lines = [
            line.replace(",", " ").split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"the mask cannot be read: {error}", file=str(path)) from None
    if (
        not lines
        or {len(line) for line in lines} != {len(lines[0])}
        or {v for line in lines for v in line} - {"0", "1"}
    ):
        raise SpecError("expected lines of the same number of entries 0 or 1", file=str(path))
    kept = np.array([[entry == "1" for entry in line] for line in lines])
    if kept.shape[0] > rows or kept.shape[1] > columns:
        raise SpecError(f"{kept.shape[0]} x {kept.shape[1]} blocks for {rows} x {columns} pairs", file=str(path))
    try:
        return Blocks.build(kept, rows, columns, -(-rows // kept.shape[0]), -(-columns // kept.shape[1]))
    except ValueError as error:
        raise SpecError(str(error), file=str(path)) from None


def pattern_of(
    conditions: tuple[Comparison, ...], row: str, column: str, rows: int, columns: int, env: Mapping[str, Any]
) -> Pattern:
    """The pattern of conditions over the two ranks. SpecError when they are neither affine nor small enough to list."""
    position = np.arange(rows, dtype=np.int64)
    low, high = np.zeros(rows, np.int64), np.full(rows, columns, np.int64)
    listed: list[Comparison] = []
    for condition in conditions:
        for node in _clauses(condition.expression.root):
            limits = _limits(node, row, column, position, columns, env)
            if limits is None:
                listed.append(condition)
                continue
            low, high = np.maximum(low, limits[0]), np.minimum(high, limits[1])
    try:
        if not listed:
            return Intervals.build(low, np.maximum(high, low))
        return _listed(listed, row, column, low, high, columns, env)
    except ValueError as error:
        raise SpecError(f"the conditions {', '.join(map(str, conditions))}: {error}") from None


def _clauses(node: Node) -> list[Node]:
    if isinstance(node, Logic) and node.operator == "and":
        return [clause for side in (node.left, node.right) for clause in _clauses(side)]
    return [node]


def _limits(
    node: Node, row: str, column: str, position: Ints, columns: int, env: Mapping[str, Any]
) -> tuple[Ints, Ints] | None:
    """First and past-the-last column of each row by one affine comparison, or None when it is not one."""
    if not isinstance(node, ComparisonNode) or node.operator not in ("<", "<=", ">", ">="):
        return None
    try:
        sides = [Index.from_node(side, frozenset({row, column})) for side in (node.left, node.right)]
    except SpecError:
        return None
    step, slope, start = (
        sum(sign * value for sign, value in zip((1, -1), values, strict=True))
        for values in zip(*[_coefficients(side, row, column, env) for side in sides], strict=True)
    )
    if any(value != int(value) for value in (step, slope, start)) or step == 0:
        return None
    # step * column + rest <op> 0 for whole numbers: turn the comparison into <= and divide with the right rounding.
    rest = int(slope) * position + int(start)
    sign = 1 if node.operator in ("<", "<=") else -1
    step, rest = sign * int(step), sign * rest + (node.operator in ("<", ">"))
    if step > 0:
        return np.zeros_like(position), np.clip(np.floor_divide(-rest, step) + 1, 0, columns)
    return np.clip(-np.floor_divide(-rest, -step), 0, columns), np.full_like(position, columns)


def _coefficients(index: Index, row: str, column: str, env: Mapping[str, Any]) -> tuple[float, float, float]:
    terms = {name: factor.number(env) for name, factor in index.terms.items()}
    return terms.get(column, 0), terms.get(row, 0), index.offset.number(env)


def _listed(
    conditions: list[Comparison], row: str, column: str, low: Ints, high: Ints, columns: int, env: Mapping[str, Any]
) -> Pattern:
    if low.size * columns > MOST_POINTS:
        raise ValueError(
            f"they are not affine in {row} and {column}, and {low.size} x {columns} pairs are too many to list"
        )
    across = np.arange(columns, dtype=np.int64)[None, :]
    kept = (across >= low[:, None]) & (across < high[:, None])
    scope = {**env, row: np.arange(low.size, dtype=np.int64)[:, None], column: across}
    for condition in conditions:
        kept = kept & np.asarray(condition.expression.evaluate(scope), bool)
    first, last = np.argmax(kept, axis=1), columns - np.argmax(kept[:, ::-1], axis=1)
    contiguous = kept.sum(axis=1) == np.where(kept.any(axis=1), last - first, 0)
    if contiguous.all():
        try:
            return Intervals.build(np.where(kept.any(axis=1), first, 0), np.where(kept.any(axis=1), last, 0))
        except ValueError:
            pass  # intervals out of order are listed as blocks of one pair
    return Blocks.build(kept, low.size, columns, 1, 1)
