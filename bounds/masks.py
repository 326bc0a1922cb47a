"""From conditions of a cascade, or a mask given by name, to the pattern of pairs that are kept.

Names: `causal` (column <= row), `window:W` (the W columns up to the row's own), `band:W` (columns at most W away),
`blocks:FILE` (a CSV or text table of 0 and 1, one entry for each block; rows and columns are divided evenly).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bounds.pattern import Blocks, Intervals, Pattern
from einsum.conditions import Comparison
from einsum.errors import SpecError, nearest
from einsum.masks import NotIntervals, solve

if TYPE_CHECKING:
    from einsum.cascade import Cascade

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


def conditions_of(cascade: Cascade, env: Mapping[str, Any], mask: str) -> tuple[str, ...]:
    """A named mask as conditions on the ranks of a cascade's scores; SpecError for a list of blocks."""
    from bounds.reader import score_ranks

    row, column = score_ranks(cascade, env).positions
    kind, _, value = mask.partition(":")
    if kind == "blocks":
        raise SpecError("a mapping takes masks that conditions can say: causal, window:W or band:W")
    if kind == "band":
        return (f"{row} - {column} <= {value}", f"{column} - {row} <= {value}")
    return (f"{column} <= {row}", *([f"{row} - {column} < {value}"] if kind == "window" else []))


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
    """The pattern of conditions over the two ranks; SpecError when they keep nothing or too much to list."""
    scope = {**env, row: np.arange(rows, dtype=np.int64)}
    names = ", ".join(map(str, conditions))
    try:
        starts, ends = solve(conditions, column, columns, scope, rows)
        filled = ends > starts
        low = np.where(filled, starts, columns).min(axis=0)
        high = np.where(filled, ends, 0).max(axis=0)
        if np.array_equal(np.maximum(high - low, 0), (ends - starts).sum(axis=0)) and _in_order(low, high):
            return Intervals.build(low, high)
    except NotIntervals:
        pass
    except ValueError as error:
        raise SpecError(f"the conditions {names}: {error}") from None
    if rows * columns > MOST_POINTS:
        raise SpecError(f"the conditions {names} keep no interval per {row}, and {rows} x {columns} pairs are too many")
    scope = {**env, row: np.arange(rows)[:, None], column: np.arange(columns)[None, :]}
    kept = np.ones((rows, columns), bool)
    for condition in conditions:
        kept &= np.asarray(condition.expression.evaluate(scope), bool)
    try:
        return Blocks.build(kept, rows, columns, 1, 1)
    except ValueError as error:
        raise SpecError(f"the conditions {names}: {error}") from None


def _in_order(low: Ints, high: Ints) -> bool:
    """Whether the intervals of the rows that keep anything never go back."""
    kept = high > low
    return not (np.any(np.diff(low[kept]) < 0) or np.any(np.diff(high[kept]) < 0))
