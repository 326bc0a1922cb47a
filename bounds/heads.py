"""Attention cores: two chained products through scores, read off a problem's statements, and groups cut out of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from bounds.attention_schedules import Heads
from bounds.pattern import LONGEST, Intervals
from bounds.problem import Access, Problem, Statement


def group_problem(problem: Problem, group: tuple[Statement, ...]) -> Problem:
    """A group of statements cut out: what it reads is an input, what its last statement leaves is an output."""
    inside = {s.output.tensor for s in group[:-1]}
    names = {access.tensor: "input" for s in group for access in s.operands} | {group[-1].output.tensor: "output"}
    classes = {
        name: replace(problem.classes[name], kind="intermediate" if name in inside else kind, stored=False)
        for name, kind in names.items()
    }
    scales = {name: own for name, own in problem.scales.items() if name in inside | {group[-1].output.tensor}}
    statistics = {f"{name} {k}": loops for name in inside for k, loops in enumerate(sorted(scales.get(name, ())))}
    return replace(problem, statements=group, classes=classes, scales=scales, statistics=statistics, passes=())


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
    if any(set(loops) - batch - rows for loops in problem.scales.get(second.output.tensor, ())):
        return none
    if any(not value.plain for value in problem.classes.values()) or problem.classes[second.output.tensor].normalized:
        return f"no schedule is known for the versions of a tensor in {problem.name}"
    size = problem.extents
    if max(prod(size[loop] for loop in side) for side in (rows, columns)) > LONGEST:
        return f"schedules are counted for up to {LONGEST:,} queries and keys"
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
