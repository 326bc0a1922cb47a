"""The best schedules known for a problem, and the reason where none is.

Covered are one sum of products over a full box, and two chained products (attention, chained matrix products) with
any pattern, shared keys and row statistics. For other problems there is no schedule to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from bounds.attention_schedules import Heads, best_schedules
from bounds.named_schedules import Traffic, named_schedule
from bounds.pattern import Intervals
from bounds.problem import Access, Problem
from bounds.product_schedules import product_schedules
from bounds.staircase import Staircase
from einsum.errors import SpecError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Schedules:
    """What is known about schedules: the best ones, the heads that named schedules run on, or why there are none."""

    best: Staircase | None
    heads: Heads | None
    width: float
    reason: str

    def named(self, names: Sequence[str], memory: Floats) -> dict[str, Traffic]:
        """Named schedules at the memories (words). SpecError for unknown names and where they do not apply."""
        if names and self.heads is None:
            raise SpecError(
                f"the schedules {', '.join(names)} are for attention: {self.reason or 'this is one product'}"
            )
        found = {}
        for name in names:
            traffic = named_schedule(name, self.heads, memory / self.width) if self.heads else None
            if traffic:
                found[name] = Traffic(traffic.words * self.width, traffic.fits, traffic.blocks)
        return found


def find_schedules(problem: Problem) -> Schedules:
    """The schedules of a problem."""
    if problem.remarks:
        return Schedules(None, None, 1.0, f"no schedule is known that covers all of {problem.name}")
    if len(problem.statements) == 1 and not problem.statistics:
        best = product_schedules(problem, problem.statements[0])
        return Schedules(best, None, 1.0, "" if best else "no schedule is known for a masked product")
    heads = heads_of(problem)
    if isinstance(heads, str):
        return Schedules(None, None, 1.0, heads)
    used = {access.tensor for s in problem.statements for access in (*s.operands, s.output)}
    widths = {problem.classes[name].width for name in used}
    if len(widths) > 1:
        return Schedules(None, None, 1.0, "no schedule is known for tensors with different word sizes")
    width = widths.pop()
    best = best_schedules(heads)
    scaled = Staircase(best.footprint * width, best.words * width, best.origin, best.describe)
    return Schedules(scaled, heads, width, "")


def heads_of(problem: Problem) -> Heads | str:
    """Two chained products as heads; a sentence where the problem is not of that form."""
    none = f"no schedule is known for all of {problem.name}"
    if len(problem.statements) != 2:
        return none
    first, second = problem.statements
    scores = next((a for a in second.operands if a.tensor == first.output.tensor), None)
    others = [a for a in second.operands if a is not scores]
    sides = first.operands
    accesses = [*first.operands, first.output, *second.operands, second.output]
    if scores is None or len(others) != 1 or len(sides) != 2 or not all(a.projective for a in accesses):
        return none
    names = dict(zip(first.output.loops, scores.loops, strict=True))
    renamed = [_Sides.of(access, names) for access in sides]
    values, output = set(others[0].loops), set(second.output.loops)
    batch = set.intersection(*(side.kept for side in renamed), values, output) - _tied(problem)
    columns = {loop for loop in scores.loops if loop in second.reduced}
    rows = set(scores.loops) - columns - batch
    keys = next((side for side in renamed if side.kept - batch == columns), None)
    queries = next((side for side in renamed if side is not keys and side.kept - batch == rows), None)
    if keys is None or queries is None or keys.reduced != queries.reduced:
        return none
    if values - batch - columns != output - batch - rows or set(second.reduced) != columns:
        return none
    if any(not set(loops) <= batch | rows for loops in problem.statistics.values()):
        return none
    size = problem.extents
    row, column = (problem.coupling.row, problem.coupling.column) if problem.coupling else (None, None)
    if problem.coupling and row in rows and columns == {column}:
        pattern, group = problem.coupling.pattern, prod(size[loop] for loop in rows if loop != row)
    elif problem.coupling:
        return none
    else:
        pattern, group = Intervals.dense(prod(size[r] for r in rows), prod(size[c] for c in columns)), 1
    return Heads(
        pattern,
        d=prod(size[loop] for loop in queries.reduced),
        dv=prod(size[loop] for loop in values - batch - columns),
        group=group,
        copies=prod(size[loop] for loop in batch),
        statistics=2 if problem.statistics else 0,
    )


def _tied(problem: Problem) -> set[str]:
    return {problem.coupling.row, problem.coupling.column} if problem.coupling else set()


@dataclass(frozen=True)
class _Sides:
    kept: set[str]
    reduced: set[str]

    @classmethod
    def of(cls, access: Access, names: dict[str, str]) -> _Sides:
        return cls({names[x] for x in access.loops if x in names}, {x for x in access.loops if x not in names})


def smallest_memory(problem: Problem, schedules: Schedules) -> tuple[float, str]:
    """Words below which nothing known runs, and why: the smallest footprint, or the operands of one multiplication."""
    if schedules.best is not None:
        return float(schedules.best.footprint[0]), "the smallest footprint of any schedule known"
    needs = {
        s.name: sum(problem.classes[a.tensor].width for a in dict.fromkeys((*s.operands, s.output)))
        for s in problem.statements
    }
    name = max(needs, key=lambda key: needs[key], default="")
    return needs.get(name, 1.0), f"the operands and the result of one multiplication of {name}"
