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
    """Two chained products as heads, the first of which may be a sum of several; a sentence for any other problem."""
    none = f"no schedule is known for all of {problem.name}"
    if len(problem.statements) < 2:
        return none
    *makers, second = problem.statements
    scores = next((a for a in second.operands if a.tensor == makers[0].output.tensor), None)
    others = [a for a in second.operands if a is not scores]
    if scores is None or len(others) != 1 or {s.name for s in problem.producers(scores)} != {s.name for s in makers}:
        return none
    values, output = set(others[0].loops), set(second.output.loops)
    pairs = [_sides_of(maker, scores) for maker in makers]
    if None in pairs or not all(access.projective for access in (*second.operands, second.output)):
        return none
    kept = [side.kept for pair in pairs if pair for side in pair]
    batch = set.intersection(*kept, values, output) - _tied(problem)
    columns = {loop for loop in scores.loops if loop in second.reduced}
    rows = set(scores.loops) - columns - batch
    keys = [next((side for side in pair or () if side.kept - batch == columns), None) for pair in pairs]
    queries = [next((side for side in pair or () if side.kept - batch == rows), None) for pair in pairs]
    widths = [key.reduced for key, query in zip(keys, queries, strict=True) if key and query]
    if [query.reduced for query in queries if query] != widths or len(widths) < len(makers):
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
    dv = prod(size[loop] for loop in values - batch - columns)
    whole = tuple(x if x in batch | columns else "" for x in others[0].loops)  # where a column's words are
    lent = any(key and (key.tensor, key.dimensions) == (others[0].tensor, whole) for key in keys)
    return Heads(
        pattern,
        d=sum(prod(size[loop] for loop in width) for width in widths),
        dv=dv,
        shared=dv if lent else 0,
        group=group,
        copies=prod(size[loop] for loop in batch),
        statistics=2 if problem.statistics else 0,
    )


def _tied(problem: Problem) -> set[str]:
    return {problem.coupling.row, problem.coupling.column} if problem.coupling else set()


@dataclass(frozen=True)
class _Side:
    """An operand of a product that makes scores: the scores' loops that it has, and the others.

    dimensions   the scores' loops in their order, "" for the others
    """

    tensor: str
    dimensions: tuple[str, ...]
    kept: set[str]
    reduced: set[str]


def _sides_of(maker: Statement, scores: Access) -> tuple[_Side, ...] | None:
    """Both operands, in the loops by which the consumer knows the scores; None for another form."""
    if len(maker.operands) != 2 or not all(a.projective for a in (*maker.operands, maker.output)):
        return None
    names = dict(zip(maker.output.loops, scores.loops, strict=True))
    return tuple(
        _Side(
            a.tensor,
            tuple(names.get(x, "") for x in a.loops),
            {names[x] for x in a.loops if x in names},
            {x for x in a.loops if x not in names},
        )
        for a in maker.operands
    )
