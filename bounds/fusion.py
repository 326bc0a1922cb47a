"""What a segment can execute of one statement: operands that are inputs, carried, or rebuilt from their producers.

A statement whose operand T is an intermediate may find an element of T in fast memory (*carry*: one word), or
compute it from scratch inside the segment (*rebuild*: the producers' operands over the whole reduced fiber must all
be present). docs/bounds.md proves that the adversary gains nothing by mixing the two when the rebuilt operand is
indexed by at most two sets of words on disjoint loops that share no tensor with anything else; otherwise the two
counts are added.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import prod

import numpy as np

from bounds.chi import Chi
from bounds.envelope import Envelope
from bounds.hbl import Array, Inequality, Program, fiber_caps, inequalities
from bounds.problem import Access, Problem, Statement

WIDEST_SPAN = 2.0**10


@dataclass(frozen=True)
class Term:
    """One inequality of a mode: exponents over the mode's arrays; `inner` bounds the rebuilt operand inside `outer`."""

    s: tuple[float, ...]
    log_constant: float
    outer: Inequality
    inner: Inequality | None


@dataclass(frozen=True)
class Mode:
    """One way to have the operands: its arrays, its inequalities, and the programs that these were proven in."""

    name: str
    arrays: tuple[Array, ...]
    terms: tuple[Term, ...]
    program: Program
    rebuilt: str | None = None
    operand: Program | None = None

    def envelope(self, span: tuple[float, float]) -> Envelope:
        """chi of the mode for words in about the span."""
        exponents = np.array([term.s for term in self.terms])
        constants = np.array([term.log_constant for term in self.terms])
        return Envelope.build(exponents, constants, np.array([array.words for array in self.arrays]), span)


@dataclass(frozen=True)
class Fusion:
    """A statement with everything that a segment count needs.

    batch      independent copies (loops that index every array)
    volume     multiplications of one copy
    combine    how the modes' counts join: "max" or "sum"
    charged    classes whose words are charged (their I/O is what the bound counts)
    """

    statement: str
    batch: float
    volume: float
    modes: tuple[Mode, ...]
    combine: str
    charged: frozenset[str]

    def chi(self, memory: tuple[float, float]) -> Chi:
        """The most multiplications of one copy by words touched, for memories in the range given."""
        span = (memory[0] / 16, memory[1] * WIDEST_SPAN)
        return Chi(tuple(mode.envelope(span) for mode in self.modes), self.combine)


def fuse(problem: Problem, statement: Statement, shares: dict[str, float]) -> Fusion | None:
    """The statement's fusion with its intermediates carried or rebuilt; None when no array is left to count.

    `shares` scales the words of classes that other parts of a sum of bounds charge too.
    """
    builder = _Builder(problem, statement, shares)
    direct = [access for access in statement.operands if problem.classes[access.tensor].kind == "input"]
    if problem.classes[statement.output.tensor].kind == "output":
        direct.append(statement.output)
    hidden = [access for access in statement.operands if problem.classes[access.tensor].kind == "intermediate"]
    countable = len(hidden) == 1 and hidden[0].projective and not problem.classes[hidden[0].tensor].chunked
    if countable and problem.producers(hidden[0]):
        return builder.carried_or_rebuilt(direct, hidden[0])
    return builder.plain(direct)


@dataclass(frozen=True)
class _Builder:
    problem: Problem
    statement: Statement
    shares: dict[str, float]

    def words(self, tensor: str) -> float:
        return self.problem.classes[tensor].width * self.shares.get(tensor, 1.0)

    def all_accesses(self) -> list[Access]:
        return [*self.statement.operands, self.statement.output]

    def batch(self, accesses: list[Access]) -> tuple[str, ...]:
        """Loops that are an index by themselves of every access, so that copies share no word."""
        coupling = self.problem.coupling
        tied = (coupling.row, coupling.column) if coupling else ()
        alone = [{terms[0][0] for terms in a.dimensions if len(terms) == 1} for a in accesses]
        mixed = {loop for a in accesses for terms in a.dimensions if len(terms) > 1 for loop, _ in terms}
        return tuple(
            loop
            for loop in self.statement.loops
            if loop not in tied and loop not in mixed and all(loop in loops for loops in alone)
        )

    def plain(self, direct: list[Access]) -> Fusion | None:
        batch = self.batch(self.all_accesses())
        arrays = self.arrays(direct, batch)
        program = self.program(self.statement.loops, batch, arrays)
        terms = tuple(_term(one, program) for one in inequalities(program)) if arrays else ()
        if not terms:
            return None
        mode = Mode("inputs and outputs", arrays, terms, program)
        return self.fusion((mode,), "max", batch, direct)

    def carried_or_rebuilt(self, direct: list[Access], hidden: Access) -> Fusion | None:
        producers = self.problem.producers(hidden)
        sources = [(p, a) for p in producers for a in p.operands if self.problem.classes[a.tensor].kind == "input"]
        renamed = [self.lift(p, a, hidden) for p, a in sources]
        batch = tuple(
            loop
            for loop in self.batch(self.all_accesses())
            if all(lifted is not None and loop in lifted[0].loops for lifted in renamed)
        )
        rebuilt = self.rebuilt_arrays([lifted for lifted in renamed if lifted], batch)
        taken = {array.name.rstrip("*") for array in rebuilt}
        others = [access for access in direct if access.tensor not in taken]
        simple = len(rebuilt) == len(sources) and self.extremal(rebuilt, others, direct, hidden, batch)
        arrays = self.arrays(others if simple else direct, batch)
        own = self.array(hidden, batch)
        carry = self.mode("carried", (own, *arrays), batch)
        if simple:
            rebuild = self.composed(own, rebuilt, arrays, hidden, batch)
        else:
            rebuild = self.mode("rebuilt", (*rebuilt, *self.arrays(others, batch)), batch)
        if not carry.terms or not rebuild.terms:
            return None
        charged = [*direct, hidden, *(access for _, access in sources)]
        return self.fusion((rebuild, carry), "max" if simple else "sum", batch, charged)

    def fusion(self, modes: tuple[Mode, ...], combine: str, batch: tuple[str, ...], charged: list[Access]) -> Fusion:
        copies = float(prod(self.problem.extents[loop] for loop in batch))
        volume = self.problem.volume(self.statement.loops) / copies
        names = frozenset(access.tensor for access in charged)
        return Fusion(self.statement.name, copies, volume, modes, combine, names)

    def mode(self, name: str, arrays: tuple[Array, ...], batch: tuple[str, ...]) -> Mode:
        program = self.program(self.statement.loops, batch, arrays)
        return Mode(name, arrays, tuple(_term(one, program) for one in inequalities(program)), program)

    def composed(
        self, own: Array, rebuilt: tuple[Array, ...], arrays: tuple[Array, ...], hidden: Access, batch: tuple[str, ...]
    ) -> Mode:
        """Rebuild mode from inequalities with the operand in them, its size bounded by inequalities of its own."""
        outer_program = self.program(self.statement.loops, batch, (own, *arrays))
        kept = [self.loops(batch).index(loop) for loop in hidden.loops if loop not in batch]
        inner_arrays = tuple(
            Array(a.name, tuple(tuple(row[c] for c in kept) for row in a.index), a.words) for a in rebuilt
        )
        inner_program = self.program(hidden.loops, batch, inner_arrays)
        terms = []
        for outer in inequalities(outer_program):
            power = float(outer.s[0])
            for inner in inequalities(inner_program):
                s = (*(power * float(e) for e in inner.s), *(float(e) for e in outer.s[1:]))
                constant = outer.log_constant(outer_program.extents) + power * inner.log_constant(inner_program.extents)
                terms.append(Term(s, constant, outer, inner))
                if not power:
                    break
        return Mode("rebuilt", (*rebuilt, *arrays), tuple(terms), outer_program, own.name, inner_program)

    def extremal(
        self,
        rebuilt: tuple[Array, ...],
        others: list[Access],
        direct: list[Access],
        hidden: Access,
        batch: tuple[str, ...],
    ) -> bool:
        """Whether mixing carried and rebuilt elements cannot help (see the module's docstring)."""
        if len(rebuilt) > 2 or len(others) != len(direct) or len({array.name for array in rebuilt}) < len(rebuilt):
            return False
        used = [{c for row in array.index for c, v in enumerate(row) if v} for array in rebuilt]
        names = [{self.loops(batch)[c] for c in columns} for columns in used]
        whole = set(hidden.loops) - set(batch)
        return set().union(*names) == whole and sum(len(n) for n in names) == len(whole) and len(rebuilt) == 2

    def loops(self, batch: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(loop for loop in self.statement.loops if loop not in batch)

    def lift(self, producer: Statement, access: Access, hidden: Access) -> tuple[Access, float] | None:
        """The producer's operand over whole reduced fibers, in the statement's loops; None if it cannot be counted."""
        if not producer.output.projective or not access.projective:
            return None
        names = dict(zip(producer.output.loops, hidden.loops, strict=True))
        coupling = self.problem.coupling
        tied = {coupling.row, coupling.column} if coupling else set()
        reduced = [loop for loop in access.loops if loop not in names]
        if tied & set(reduced):
            return None
        kept = tuple(names[loop] for loop in access.loops if loop in names)
        fiber = prod(self.problem.extents[loop] for loop in reduced)
        return Access.plain(access.tensor, kept), float(fiber)

    def rebuilt_arrays(self, lifted: list[tuple[Access, float]], batch: tuple[str, ...]) -> tuple[Array, ...]:
        merged: dict[Access, float] = {}
        for access, fiber in lifted:
            merged[access] = max(fiber, merged.get(access, 0.0))
        copies = Counter(access.tensor for access in merged)
        return tuple(
            Array(
                access.tensor + "*",
                self.index(access, batch),
                fiber * self.words(access.tensor) / copies[access.tensor],
            )
            for access, fiber in merged.items()
        )

    def arrays(self, accesses: list[Access], batch: tuple[str, ...]) -> tuple[Array, ...]:
        copies = Counter(access.tensor for access in accesses)
        numbered = [f"{a.tensor}#{k}" if copies[a.tensor] > 1 else a.tensor for k, a in enumerate(accesses)]
        return tuple(
            Array(name, self.index(a, batch), self.words(a.tensor) / copies[a.tensor])
            for name, a in zip(numbered, accesses, strict=True)
        )

    def array(self, access: Access, batch: tuple[str, ...]) -> Array:
        return Array(access.tensor, self.index(access, batch), self.words(access.tensor))

    def index(self, access: Access, batch: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
        loops = self.loops(batch)
        rows = [tuple(dict(terms).get(loop, 0) for loop in loops) for terms in access.dimensions]
        return tuple(row for row in rows if any(row))

    def program(self, loops: tuple[str, ...], batch: tuple[str, ...], arrays: tuple[Array, ...]) -> Program:
        loops = tuple(loop for loop in loops if loop not in batch)
        extents = {loop: float(self.problem.extents[loop]) for loop in loops}
        coupling = self.problem.coupling
        if coupling and coupling.row in loops and coupling.column in loops:
            pattern = coupling.pattern
            caps = (
                ((), 1.0),
                ((coupling.row,), float(pattern.fullest_column)),
                ((coupling.column,), float(pattern.fullest_row)),
                ((coupling.row, coupling.column), float(pattern.pairs)),
            )
            free = {loop: extent for loop, extent in extents.items() if loop not in (coupling.row, coupling.column)}
            return Program(loops, arrays, caps, free)
        return fiber_caps(Program(loops, arrays, (((), 1.0),), extents))


def _term(inequality: Inequality, program: Program) -> Term:
    return Term(tuple(map(float, inequality.s)), inequality.log_constant(program.extents), inequality, None)
