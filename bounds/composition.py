"""Schedules of a whole cascade, group by group: attention cores fused, other sums of products one after another.

Groups share nothing but the slow memory: an intermediate between two of them is stored by the first and loaded as the
second one's schedule says. A map of a single class (an activation) is applied where a word passes. Each group has the
whole fast memory. Tests run such compositions word by word, whole transformer layers among them.
"""

from __future__ import annotations

from functools import reduce
from math import prod

from bounds.attention_schedules import Heads, best_schedules, first_phase, second_phase, whole_row_schedules
from bounds.gradient_schedules import gradient_schedules
from bounds.heads import group_problem, heads_of
from bounds.pattern import Pattern
from bounds.problem import Problem, Statement
from bounds.product_schedules import product_schedules
from bounds.staircase import Staircase


def composed_schedules(problem: Problem, recompute: bool = True, written: bool = False) -> Staircase | str:
    """The staircase of all groups in sequence; a sentence where a part of the cascade has no schedule.

    `recompute` and `written` as for `find_schedules`.
    """
    if problem.remarks or not problem.statements:
        return f"no schedule is known that covers all of {problem.name}"
    gradient = gradient_schedules(problem, recompute)
    if gradient is not None:
        return gradient
    groups = groups_of(problem)
    obstacle = words_outside(problem) or _obstacle(problem, groups)
    if obstacle:
        return obstacle
    parts = []
    for group in groups:
        again = written and group[0].output.tensor in passed_again(problem)
        found = _schedules(group_problem(problem, group), recompute, again)
        if found is None:
            return f"no schedule is known for {' and '.join(s.name for s in group)} of {problem.name}"
        parts.append(found)
    one_by_one = reduce(lambda first, second: Staircase.sequence("", first, second), parts)
    return Staircase.merged([one_by_one, _all_resident(problem, groups)])


def streamed_operand(problem: Problem, groups: list[tuple[Statement, ...]], group: tuple[Statement, ...]) -> str | None:
    """The input that passes word by word while the group's other words stay: the largest that no other group reads."""
    if len(group) > 1:
        return None
    elsewhere = {a.tensor for other in groups if other != group for s in other for a in s.operands}
    operands = [a.tensor for a in group[0].operands]
    own = [n for n in operands if problem.classes[n].kind == "input" and n not in elsewhere and operands.count(n) == 1]
    return max(own, key=lambda n: problem.classes[n].elements, default=None)


def held_at(problem: Problem, groups: list[tuple[Statement, ...]], at: int) -> list[str]:
    """Classes that stay in fast memory while group `at` runs: made or read already, and needed now or later."""
    touched = [
        {a.tensor for s in group for a in (*s.operands, s.output)}
        - {s.output.tensor for s in group[:-1]}
        - {streamed_operand(problem, groups, group)}
        for group in groups
    ]
    before, after = set().union(*touched[: at + 1]), set().union(*touched[at:])
    return sorted(before & after)


def _all_resident(problem: Problem, groups: list[tuple[Statement, ...]]) -> Staircase:
    """Each input is loaded once, each output stored once; what lies between stays, but for one row of scores."""
    space = []
    for at, group in enumerate(groups):
        held = sum(
            problem.classes[name].elements * problem.classes[name].width for name in held_at(problem, groups, at)
        )
        widest = max(problem.classes[a.tensor].width for s in group for a in (*s.operands, s.output))
        if len(group) > 1:
            scores, column = group[0].output, group[1].reduced
            row = prod(problem.extents[loop] for loop in scores.loops if loop in column)
            space.append(held + widest * (row + 3))
        else:
            space.append(held + widest)
    moved = sum(v.elements * v.width for v in problem.classes.values() if v.kind in ("input", "output"))
    return Staircase.of([max(space)], [moved], lambda _: "all activations resident")


def words_outside(problem: Problem) -> str | None:
    """A sentence about words that no sum of products moves, but the cascade does: None where there are none."""
    used = {access.tensor for s in problem.statements for access in (*s.operands, s.output)}
    for value in problem.classes.values():
        if value.name not in used and value.elements:
            return f"no schedule in closed form moves {value.name} of {problem.name}"
        if not value.plain:
            return f"no schedule in closed form is known for the versions of {value.name} of {problem.name}"
    return None


def _obstacle(problem: Problem, groups: list[tuple[Statement, ...]]) -> str | None:
    """What keeps a problem from being run group by group."""
    cores = {statement.output.tensor for group in groups if len(group) == 2 for statement in group}
    for value in problem.classes.values():
        if problem.scales.get(value.name) and value.name not in cores:
            return f"no schedule in closed form is known for the row values that scale {value.name} of {problem.name}"
        if value.chunked and value.kind == "intermediate":
            return f"no schedule in closed form is known for the chunks of {value.name} of {problem.name}"
        if sum(s.output.tensor == value.name for s in problem.statements) > 1:
            return f"no schedule in closed form is known for {value.name} of {problem.name}, a sum of several products"
    return None


def groups_of(problem: Problem) -> list[tuple[Statement, ...]]:
    """Attention cores, at the place of their second product, and the statements that are in none."""
    cores: dict[str, tuple[Statement, Statement]] = {}
    taken: set[str] = set()
    for second in problem.statements:
        for access in second.operands:
            makers = problem.producers(access)
            if (
                len(makers) != 1
                or problem.consumers(access.tensor) != (second,)
                or {makers[0].name, second.name} & taken
            ):
                continue
            if isinstance(heads_of(group_problem(problem, (makers[0], second))), Heads):
                cores[second.name] = (makers[0], second)
                taken |= {makers[0].name, second.name}
    return [cores.get(s.name, (s,)) for s in problem.statements if s.name not in taken or s.name in cores]


def passed_again(problem: Problem) -> set[str]:
    """Classes that the cascade, as it is written, traverses more than once."""
    return {fiber.tensor for fiber in problem.passes if fiber.passes > 1}


def core_schedules(heads: Heads, recompute: bool, again: bool) -> Staircase:
    """Of an attention core: all, or those that make each score once, or those that go over its rows `again`."""
    return whole_row_schedules(heads) if again else best_schedules(heads, recompute)


def _schedules(part: Problem, recompute: bool, again: bool) -> Staircase | None:
    if len(part.statements) == 1:
        return product_schedules(part, part.statements[0]) or masked_product(part, part.statements[0])
    heads = heads_of(part)
    return None if isinstance(heads, str) else _in_words(part, core_schedules(heads, recompute, again))


def masked_product(problem: Problem, statement: Statement) -> Staircase | None:
    """One product of three arrays under a mask: scores (their phase of two), or a product with scores (the other)."""
    coupling, accesses = problem.coupling, (*statement.operands, statement.output)
    if coupling is None or len(accesses) != 3 or not all(access.projective for access in accesses):
        return None
    tied = {coupling.row, coupling.column}
    pair = [access for access in accesses if tied <= set(access.loops)]
    by_row = [access for access in accesses if coupling.row in access.loops and access not in pair]
    by_column = [access for access in accesses if coupling.column in access.loops and access not in pair]
    if (len(pair), len(by_row), len(by_column)) != (1, 1, 1) or by_row == by_column:
        return None
    batch = set.intersection(*(set(access.loops) for access in accesses))
    group = set(pair[0].loops) - batch - tied
    width = set(by_column[0].loops) - batch - tied
    if set(by_row[0].loops) != batch | group | width | {coupling.row} or width & group:
        return None
    size = problem.extents

    def heads(pattern: Pattern, shared: int) -> Heads:
        wide, copies = prod(size[x] for x in width), prod(size[x] for x in batch)
        return Heads(pattern, wide, wide, group=shared, copies=copies, statistics=0)

    by_rows = heads(coupling.pattern, prod(size[x] for x in group))
    if pair[0] is statement.output:
        found = first_phase(by_rows)
    elif by_row[0] is statement.output:
        found = second_phase(by_rows)
    elif not group:
        found = second_phase(heads(coupling.pattern.transposed(), 1))
    else:
        return None
    return _in_words(problem, found.scaled(by_rows.copies))


def _in_words(problem: Problem, stairs: Staircase) -> Staircase | None:
    """A staircase of elements in words, where all of them have one width."""
    widths = {value.width for value in problem.classes.values()}
    if len(widths) > 1:
        return None
    width = widths.pop()
    return Staircase(stairs.footprint * width, stairs.words * width, stairs.origin, stairs.describe)
