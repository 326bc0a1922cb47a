"""Which operations of an Einsum a compiler takes out of the loop over a row: those that no column changes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from einsum.access import Access
from einsum.body import MAPS, Body, Map, reads
from einsum.einsum import Einsum


@dataclass(frozen=True)
class Operations:
    """Operations by kind: at every point, once for each row, and divisions at every point by a value of the row, whose
    reciprocal is taken once."""

    points: Mapping[str, float]
    rows: Mapping[str, float]
    divisions: int


def operations_of(einsum: Einsum, of_row: Callable[[Access], bool]) -> Operations:
    """An Einsum's operations; `of_row` tells the accesses that no column changes."""
    rows: Counter[str] = Counter()
    divisions = _count(einsum.body, of_row, rows)
    points = {kind: count - rows[kind] for kind, count in einsum.ops.items()}
    return Operations({kind: count for kind, count in points.items() if count > 0}, dict(rows), divisions)


def _count(body: Body, of_row: Callable[[Access], bool], rows: Counter[str]) -> int:
    """Count what belongs to the row; the number of divisions by a value of the row."""
    if not isinstance(body, Map):
        return 0
    accesses = list(reads(body))
    if accesses and all(map(of_row, accesses)):
        function = MAPS[body.function]
        rows[function.kind] += 1 if function.arity is not None else len(body.operands) - 1
    found = sum(_count(operand, of_row, rows) for operand in body.operands)
    by_row = body.function == "/" and all(map(of_row, reads(body.operands[1])))
    return found + (by_row and not all(map(of_row, accesses)))
