"""From a cascade to the problem that bounds are about: sums of products, value classes, the pattern.

Read from Einsums and index maps alone. An Einsum is a *statement* when it sums, over at least one rank, a product
of factors that each read one tensor (through any function, and with statistics of lower rank). An Einsum without a
reduction whose output has all ranks of an operand adds a member to that operand's value class. Everything else (row
maxima, sums, top-k, ...) is a statistic: it is ignored, which can only weaken a bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from bounds.classes import Classes
from bounds.fiber_passes import fiber_passes
from bounds.loops import whole, whole_ranks
from bounds.masks import named_mask, pattern_of
from bounds.pattern import LONGEST, Pattern
from bounds.problem import Access, Coupling, Problem, Statement, ValueClass
from bounds.product_schedules import distinct_values
from bounds.tied import Tied
from einsum.body import Body, Map, reads
from einsum.cascade import Cascade
from einsum.conditions import Comparison, Kept
from einsum.einsum import Einsum
from einsum.errors import SpecError


def read_problem(
    cascade: Cascade, env: Mapping[str, Any], mask: str | Pattern | None = None, word_bytes: float = 2
) -> Problem:
    """The problem of a cascade at the sizes in `env`, with words of `word_bytes` where a tensor has no size of its own.

    `mask` restricts the scores further (`bounds/masks.py`). SpecError when sizes are missing or wrong, when a mask
    finds no scores, or when two masks cannot be joined.
    """
    return _Reader(cascade, cascade.environment(env), cascade.extents(env), word_bytes).problem(mask)


def same_problem(one: Cascade, other: Cascade, env: Mapping[str, Any]) -> bool:
    """Whether two cascades have the same number of multiplications and the same inputs and outputs, by size."""
    found = []
    for cascade in (one, other):
        problem = read_problem(
            cascade, {k: v for k, v in env.items() if k in {*cascade.parameters, *cascade.variables}}
        )
        ends = sorted(v.elements for v in problem.classes.values() if v.kind in ("input", "output"))
        found.append((sum(problem.volume(s.loops) for s in problem.statements), ends))
    return found[0] == found[1]


@dataclass(frozen=True)
class ScoreRanks:
    """The ranks of an attention: positions (row and column of the scores) and widths (summed first, kept last)."""

    positions: tuple[str, ...]
    widths: tuple[str, ...]


def score_ranks(cascade: Cascade, env: Mapping[str, Any]) -> ScoreRanks:
    """The roles of ranks in an attention, whose scores go through a map; SpecError where there are none.

    Sizes in `env` may be placeholders.
    """
    problem = read_problem(cascade, env)
    row, column = find_scores(problem.statements, problem.scales, problem.name)
    made = {statement.output.tensor for statement in problem.statements}
    scores = {
        access.tensor
        for s in problem.statements
        if column in s.reduced and row in s.loops
        for access in s.operands
        if access.tensor in made
    }
    if not any(len(problem.classes[name].members) > 1 for name in scores):
        raise SpecError(f"N and d are sizes of an attention, and {cascade.name} maps no scores")
    widths: dict[str, None] = {}
    for statement in problem.statements:
        touched = {statement.output.tensor, *(access.tensor for access in statement.operands)}
        if touched & scores:
            shared = [a for a in (statement.output, *statement.operands) if a.tensor in scores]
            widths |= dict.fromkeys(loop for loop in statement.loops if all(loop not in a.loops for a in shared))
    return ScoreRanks((row, column), tuple(widths))


def find_scores(
    statements: Sequence[Statement], scales: Mapping[str, frozenset[tuple[str, ...]]], cascade: str
) -> tuple[str, str]:
    """Row and column of the scores: what a mask given from outside ties. SpecError where there are none.

    Scores are an intermediate that a statement sums over one rank, the column; the row is the last other rank, as
    ordered in the operand that brings it, that the statement's other operand lacks. Of several such intermediates
    those go first whose maps read a value of each row (a maximum, a denominator): `scales`, class -> ranks of these.
    """
    made = {statement.output.tensor for statement in statements}
    found: list[tuple[bool, str, str]] = []
    for statement in statements:
        for scores in statement.operands:
            others = {loop for a in statement.operands if a is not scores for loop in a.loops}
            columns = [loop for loop in scores.loops if loop in statement.reduced]
            source = [a for s in statements if s.output.tensor == scores.tensor for a in s.operands]
            rows = [loop for a in source for loop in a.loops if loop in scores.loops and loop not in others]
            if scores.tensor in made and len(columns) == 1 and rows:
                own = scales.get(scores.tensor, frozenset())
                scaled = any(rows[-1] in ranks and columns[0] not in ranks for ranks in own)
                found.append((scaled, rows[-1], columns[0]))
    if not found:
        raise SpecError(f"the cascade {cascade} has no scores: no Einsum sums an intermediate over one rank")
    _, row, column = max(found, key=lambda one: one[0])  # the first of the best
    return row, column


class _Reader:
    def __init__(
        self, cascade: Cascade, values: Mapping[str, Any], extents: Mapping[str, Any], word_bytes: float
    ) -> None:
        self.cascade, self.values, self.word_bytes = cascade, values, word_bytes
        self.extents = {rank: int(extents[rank]) for rank in cascade.ranks if cascade.base(rank) == rank}
        self.remarks: list[str] = []
        self.classes = Classes(cascade, lambda access: whole(cascade, access, values))
        self.tied = Tied.of(cascade, self.extents)

    def problem(self, mask: str | Pattern | None) -> Problem:
        """Read everything."""
        factors = {einsum.name: self._factors(einsum) for einsum in self.cascade.einsums}
        self.classes.find({name for name, found in factors.items() if found})
        statements = [self._statement(e, found) for e in self.cascade.einsums if (found := factors[e.name])]
        kept = [statement for statement in statements if statement]
        coupling = self._coupling(kept, mask)
        classes = self._value_classes(kept, coupling)
        return Problem(
            name=self.cascade.name,
            extents=self.extents,
            classes=classes,
            statements=tuple(kept),
            coupling=coupling,
            statistics=self._statistics(),
            scales=self._scales(),
            passes=fiber_passes(self.cascade, self.classes, classes, self.extents, coupling),
            remarks=tuple(self.remarks),
        )

    def _factors(self, einsum: Einsum) -> list[Body]:
        """The factors of a statement's body, none when the Einsum is not one."""
        if not einsum.reduced:
            return []
        if einsum.reduction != "sum":
            if einsum.reduction not in ("max", "min", "any", "all"):
                self.remarks.append(
                    f"{einsum.name}: the reduction {einsum.reduction} is chosen by the data; it is left out"
                )
            return []
        if any(isinstance(condition, Kept) for condition in einsum.conditions):
            self.remarks.append(f"{einsum.name}: its points are known only at run time; it is left out")
            return []
        factors = [factor for factor in _flattened(einsum.body) if any(True for _ in reads(factor))]
        if len(factors) > 1 and einsum.name in self.tied.outside:
            self.remarks.append(f"{einsum.name}: {self.tied.outside[einsum.name]}; it is left out")
            return []
        return factors if len(factors) > 1 else []

    def _statement(self, einsum: Einsum, factors: list[Body]) -> Statement | None:
        operands: list[Access] = []
        for factor in factors:
            found = [a for a in map(self._access, reads(factor)) if a is not None]
            if len(found) > 1:
                self.remarks.append(
                    f"{einsum.name}: the factor {factor} is not a function of one tensor; it is left out"
                )
                return None
            operands += found
        # A sum that is constant along another operand (a row's denominator) scales it: a statistic, which is ignored.
        operands = [
            a for a in operands if not a.needs or not any(set(a.loops) < set(other.loops) for other in operands)
        ]
        output = self._access(einsum.output)
        reduced = [
            loop for loop in whole_ranks(self.cascade, einsum.ranks) if output is None or loop not in output.loops
        ]
        if output is None or len(operands) < 2 or not reduced:
            return None
        return Statement(einsum.name, output, tuple(operands))

    def _access(self, access: Any) -> Access | None:
        """The access in the order of its class's dimensions; None for statistics."""
        place = self.classes.place(access.tensor)
        if place is None:
            return None
        found = whole(self.cascade, access, self.values)
        if len(found.dimensions) != len(place.order):
            return None
        dimensions = tuple(found.dimensions[k] for k in place.order)
        return Access(place.name, dimensions, tuple(sorted(place.needs)))

    # Masks

    def _coupling(self, statements: list[Statement], mask: str | Pattern | None) -> Coupling | None:
        pair = self.tied.pair
        if mask is None:
            if pair is None:
                return None
            row, column = self._oriented(pair, statements)
            return Coupling(row, column, self._pattern(self.tied.conditions, row, column))
        row, column = find_scores(statements, self._scales(), self.cascade.name)
        if pair is not None:
            raise SpecError(
                f"the cascade {self.cascade.name} has conditions of its own on {' and '.join(sorted(pair))}; "
                "put the mask there"
            )
        rows, columns = self._listed(row), self._listed(column)
        pattern = mask if not isinstance(mask, str) else named_mask(mask, rows, columns)
        return Coupling(row, column, pattern)

    def _pattern(self, conditions: tuple[Comparison, ...], row: str, column: str) -> Pattern:
        return pattern_of(conditions, row, column, self._listed(row), self._listed(column), self.values)

    def _listed(self, rank: str) -> int:
        """The extent of a rank under a mask, whose points are listed one by one."""
        if self.extents[rank] > LONGEST:
            raise SpecError(f"masks cover up to {LONGEST:,} positions, rank {rank} has {self.extents[rank]:,}")
        return self.extents[rank]

    def _oriented(self, pair: frozenset[str], statements: list[Statement]) -> tuple[str, str]:
        """(row, column): the column is what a consumer of the scores sums over."""
        for statement in statements:
            summed = pair & set(statement.reduced)
            if len(summed) == 1 and pair <= set(statement.loops):
                column = next(iter(summed))
                return next(iter(pair - summed)), column
        first, second = sorted(pair)
        return first, second

    # Classes

    def _value_classes(self, statements: list[Statement], coupling: Coupling | None) -> dict[str, ValueClass]:
        used = [access for s in statements for access in (*s.operands, s.output)]
        found: dict[str, ValueClass] = {}
        for name, members in self.classes.members().items():
            kinds = {self.cascade.tensors[member].kind for member in members}
            accesses = [access for access in used if access.tensor == name]
            if "input" in kinds:
                kind, stored = "input", "output" in kinds
            else:
                final = "output" in kinds and not self.classes.used_elsewhere(name)
                kind, stored = ("output" if final else "intermediate"), "output" in kinds
            if kind == "intermediate" and not accesses and not stored:
                continue
            elements = self._elements(members, accesses, kind, stored, coupling)
            widths = self._widths(members)
            found[name] = ValueClass(
                name,
                kind,
                elements,
                min(widths),
                stored,
                tuple(members),
                self._chunked(members),
                max(widths),
                self._joined(members),
                self._normalized(members),
            )
        for tensor in self.cascade.outputs:
            if self.classes.place(tensor.name) is None and not self.cascade.einsum(tensor.name).conditions:
                elements = self._touched(self._whole_tensor(tensor.name), None)
                found[tensor.name] = ValueClass(tensor.name, "output", elements, min(self._widths([tensor.name])))
        return found

    def _chunked(self, members: list[str]) -> bool:
        """Whether a version has a dimension of chunks, or of steps of a recurrence, that its class lacks."""
        return any(whole(self.cascade, self.cascade.access(member), self.values).partial for member in members)

    def _widths(self, members: list[str]) -> list[float]:
        """Words of an element in each version."""
        bits = [self.cascade.tensors[member].bits for member in members]
        sizes = [8 * self.word_bytes if b is None else float(b.number(self.values)) for b in bits]
        return [size / 8 / self.word_bytes for size in sizes]

    def _joined(self, members: list[str]) -> tuple[str, ...]:
        """Tensors of other classes, with all ranks of an element, that maps within the class read."""
        maps = [e for e in self.cascade.einsums if e.name in members and not e.reduced]
        found: dict[str, None] = {}
        for einsum in maps:
            ranks = set(whole(self.cascade, einsum.output, self.values).loops)
            for access in einsum.inputs:
                if access.tensor not in members and not set(whole(self.cascade, access, self.values).loops) < ranks:
                    found[access.tensor] = None
        return tuple(found)

    def _normalized(self, members: list[str]) -> bool:
        """Whether a value of lower rank that a map of the class reads was made from the class."""
        maps = [e for e in self.cascade.einsums if e.name in members and not e.reduced]
        seen: set[str] = set()
        waiting = [a.tensor for e in maps for a in e.inputs if a.tensor not in members]
        while waiting:
            tensor = waiting.pop()
            if tensor not in seen:
                seen.add(tensor)
                waiting += [access.tensor for e in self.cascade.producers(tensor) for access in e.inputs]
        return bool(seen & set(members))

    def _whole_tensor(self, tensor: str) -> Access:
        return Access(tensor, whole(self.cascade, self.cascade.access(tensor), self.values).dimensions)

    def _elements(
        self, members: list[str], accesses: list[Access], kind: str, stored: bool, coupling: Coupling | None
    ) -> float:
        """Elements that are certainly used: of the largest access for an input, all that exist for the rest."""
        if accesses:
            return max(self._touched(access, coupling) for access in accesses)
        readers = [e for m in members for e in self.cascade.consumers(m)]
        if kind == "input" and not stored and any(e.conditions or e.reduction not in (None, "sum") for e in readers):
            return 0.0
        return self._touched(self._whole_tensor(members[0]), None)

    def _touched(self, access: Access, coupling: Coupling | None) -> float:
        sizes = dict(self.extents)
        if coupling and {coupling.row, coupling.column} <= set(access.loops) and access.projective:
            rest = prod(sizes[loop] for loop in access.loops if loop not in (coupling.row, coupling.column))
            return float(rest * coupling.pattern.pairs)
        if coupling:
            sizes |= {coupling.row: coupling.pattern.rows, coupling.column: coupling.pattern.columns}
        return float(prod(int(distinct_values(terms, sizes)) for terms in access.dimensions))

    def _scales(self) -> dict[str, frozenset[tuple[str, ...]]]:
        """Class -> ranks of the values of lower rank that its maps read."""
        found: dict[str, set[tuple[str, ...]]] = {}
        for einsum in self.cascade.einsums:
            place = self.classes.place(einsum.name)
            if place is None or einsum.reduced:
                continue
            ranks = set(whole(self.cascade, einsum.output, self.values).loops)
            for access in einsum.inputs:
                own = whole(self.cascade, access, self.values).loops
                if own and set(own) < ranks:
                    found.setdefault(place.name, set()).add(own)
        return {name: frozenset(own) for name, own in found.items()}

    def _statistics(self) -> dict[str, tuple[str, ...]]:
        """Tensors outside all classes, with their whole ranks."""
        return {
            e.name: whole(self.cascade, e.output, self.values).loops
            for e in self.cascade.einsums
            if self.classes.place(e.name) is None
        }


def _flattened(body: Body) -> list[Body]:
    """Factors of products and quotients."""
    if isinstance(body, Map) and body.function in ("*", "/"):
        return [factor for operand in body.operands for factor in _flattened(operand)]
    return [body]
