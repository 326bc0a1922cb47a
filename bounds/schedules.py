"""The best schedules known for a problem, and the reason where none is.

In closed form: sums of products alone (full boxes and masked ones), attention cores with any pattern, shared keys and
row statistics, the backward pass, and cascades made of these, group by group (`bounds/composition.py`). Where no
closed form covers a cascade the mapper's search does (`bounds/mapped.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bounds.attention_schedules import Heads, ring_length
from bounds.composition import composed_schedules, core_schedules, passed_again, words_outside
from bounds.heads import heads_of
from bounds.named_schedules import SCHEDULES, Traffic, named_schedule
from bounds.problem import Problem, Statement
from bounds.staircase import Staircase
from einsum.errors import SpecError, nearest

Floats = NDArray[np.float64]
SEVERAL_SIZES = (
    "tensors have words of several sizes: row tiles and rings count each at its own, other schedules all at the "
    "largest, and named ones are not counted"
)


@dataclass(frozen=True, eq=False)
class Schedules:
    """What is known about schedules: the best ones, the heads that named schedules run on, or why there are none.

    width   words of each element of attention (1, unless all its tensors have another word size)
    others  schedules with names of their own: the mapper's, the user's mappings
    least   smallest footprint of the closed forms; None where there are none
    written  the best of those that pass over rows as often as the cascade does, where others do not
    """

    best: Staircase | None
    heads: Heads | None
    width: float
    reason: str
    others: Mapping[str, Staircase] = field(default_factory=dict)
    least: float | None = None
    written: Staircase | None = None

    def joined(self, name: str, found: Staircase) -> Schedules:
        """These schedules and those of a staircase, under its name and among the best."""
        best = found if self.best is None else Staircase.merged([self.best, found])
        written = self.written and Staircase.merged([self.written, found])
        return replace(self, best=best, written=written, others={**self.others, name: found})

    def best_at(self, memory: Floats, theorems: Sequence[str]) -> tuple[Floats, list[str]]:
        """Words and names of the best at the memories (NaN where none fits), for which bounds by `theorems` hold.

        A bound by passes holds for the cascade as it is written: an online softmax is another one.
        """
        if self.best is None:
            return np.full(memory.shape, np.nan), [""] * memory.size
        words, names = self.best.at(memory)
        if self.written is None:
            return words, names
        own, own_names = self.written.at(memory)
        passed = ["passes" in theorem for theorem in theorems]
        return np.where(passed, own, words), [b if p else a for p, a, b in zip(passed, names, own_names, strict=True)]

    def named(self, names: Sequence[str], memory: Floats) -> dict[str, Traffic]:
        """Named schedules at the memories (words). SpecError for unknown names and where they do not apply."""
        found = {}
        for name in names:
            if name in self.others:
                found[name] = _of_stairs(self.others[name], memory)
                continue
            if name not in SCHEDULES:
                known = (*SCHEDULES, "mapper", *self.others)
                raise SpecError(f"no schedule is called {name!r}{nearest(name, known)}", key="--schedules")
            if self.heads is None:
                why = self.reason or "this is no attention"
                raise SpecError(f"the schedule {name} is for attention: {why}", key="--schedules")
            traffic = named_schedule(name, self.heads, memory / self.width)
            found[name] = Traffic(traffic.words * self.width, traffic.fits, traffic.blocks)
        return found


def _of_stairs(stairs: Staircase, memory: Floats) -> Traffic:
    pick = np.maximum(stairs.pick(memory), 0)
    blocks = tuple(stairs.describe(int(stairs.origin[k])) for k in pick)
    return Traffic(stairs.words[pick], memory >= stairs.footprint[0], blocks)


def find_schedules(problem: Problem, recompute: bool = True, written: bool = False) -> Schedules:
    """The schedules of a problem in closed form.

    Without `recompute` only those that make each score once; `written`: of a cascade that goes over its scores several
    times only those that do too.
    """
    heads = heads_of(problem)
    widths = {problem.classes[name].width for s in problem.statements for name in _tensors(s)}
    if isinstance(heads, Heads) and not problem.remarks and not words_outside(problem):
        again = written and problem.statements[0].output.tensor in passed_again(problem)
        width, best = max(widths), core_schedules(heads, recompute, again)
        scaled = Staircase(best.footprint * width, best.words * width, best.origin, best.describe)
        if len(widths) == 1:
            return Schedules(scaled, heads, width, "", least=float(scaled.footprint[0]))
        mixed = scaled if again else Staircase.merged([*_of_several_widths(problem, heads), scaled])
        return Schedules(mixed, None, 1.0, SEVERAL_SIZES, least=float(mixed.footprint[0]))
    composed = composed_schedules(problem, recompute, written)
    if isinstance(composed, str):
        # Of a core by itself that is too long, its own reason says more than that no group of it has a schedule.
        alone = isinstance(heads, str) and len(problem.statements) == 2 and heads.startswith("schedules are counted")
        return Schedules(None, None, 1.0, str(heads) if alone else composed)
    return Schedules(composed, None, 1.0, "", least=float(composed.footprint[0]))


def _of_several_widths(problem: Problem, heads: Heads) -> list[Staircase]:
    """Attention whose tensors differ in word size: rows of queries and outputs stay while keys and values pass word by
    word, or keys and values while rows pass, each at its own size."""
    first, second = problem.statements
    size = {name: problem.classes[name].width for s in problem.statements for name in _tensors(s)}
    largest = max(size.values())
    values = next(a.tensor for a in second.operands if a.tensor != first.output.tensor)
    keys, queries = sorted(first.operands, key=lambda a: not set(second.reduced) & set(a.loops))
    row = heads.d * size[queries.tensor] + heads.dv * size[second.output.tensor]
    column = heads.d * size[keys.tensor] + heads.dv * size[values]
    tiles = heads.row_tiles
    space = tiles.sizes * (row + (1 + heads.statistics) * largest) + 2 * largest
    moved = heads.rows * row + tiles.needed * column
    passing = Staircase.of(space, moved, lambda k: f"row tiles, Q and O resident {tiles.sizes[k]}x1")
    length = ring_length(heads.pattern)
    ring = Staircase.of(
        [length * (column + largest) + 3 * largest],
        [heads.rows * row + heads.columns * column],
        lambda _: f"ring {length}",
    )
    return [part.scaled(heads.copies) for part in (passing, ring)]


def _tensors(statement: Statement) -> list[str]:
    return [access.tensor for access in (*statement.operands, statement.output)]


def smallest_memory(problem: Problem, schedules: Schedules) -> tuple[float, str]:
    """Words below which nothing known runs, and why: the smallest footprint, or the operands of one multiplication."""
    if schedules.least is not None:
        return schedules.least, "the smallest footprint of any schedule known"
    needs = {
        s.name: sum(problem.classes[a.tensor].width for a in dict.fromkeys((*s.operands, s.output)))
        for s in problem.statements
    }
    name = max(needs, key=lambda key: needs[key], default="")
    return needs.get(name, 1.0), f"the operands and the result of one multiplication of {name}"
