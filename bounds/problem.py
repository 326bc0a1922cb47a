"""The problem that a bound is about: sums of products over loops, and the words that they touch.

A `Problem` is what `bounds/reader.py` reads off a cascade. Only the sums of products are kept (`Statement`): the
number of their multiplications is what the theorems count. Elementwise work is folded into *value classes*: the
score q.k, its exponential and its quotient all are "the (i, j) word" of one class, since each can stand for the
others at the price of one word. Statistics of lower rank (row maxima, row sums) are ignored, which only weakens a
bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from bounds.pattern import Pattern


@dataclass(frozen=True)
class Access:
    """How a statement indexes a value class: one affine form, ((loop, coefficient), ...), for each dimension."""

    tensor: str
    dimensions: tuple[tuple[tuple[str, int], ...], ...]
    needs: tuple[str, ...] = ()
    """Names of the statements whose sums an element is made of (for an intermediate; empty means all producers)."""

    @classmethod
    def plain(cls, tensor: str, loops: str | tuple[str, ...], needs: tuple[str, ...] = ()) -> Access:
        """Access by loops themselves: `Access.plain("K", "jl")` is K[j, l]."""
        return cls(tensor, tuple(((loop, 1),) for loop in loops), needs)

    @property
    def loops(self) -> tuple[str, ...]:
        """The loops that appear, in order of appearance."""
        return tuple(dict.fromkeys(loop for terms in self.dimensions for loop, _ in terms))

    @property
    def projective(self) -> bool:
        """Whether every dimension is one loop, no loop twice."""
        names = [terms[0][0] for terms in self.dimensions if len(terms) == 1 and terms[0][1] == 1]
        return len(names) == len(self.dimensions) == len(set(names))


@dataclass(frozen=True)
class ValueClass:
    """All words that can stand for one element of a tensor.

    kind       input (starts in slow memory), output (must end there, nothing else needs it) or intermediate
    stored     an output of the cascade that something else needs, or a version of an input that is one
    chunked    a dimension counts chunks and was dropped: an element stands for several, with sums of their own
    elements   how many elements are used at all
    width      words of fast memory and of traffic for one element (1, unless tensors have different word sizes)
    widest     the same of its widest version; `width` is that of the narrowest
    joined     tensors of other classes that its maps read element by element
    normalized  its maps read row values that are made of its own elements (a softmax, a norm)
    """

    name: str
    kind: str
    elements: float
    width: float = 1.0
    stored: bool = False
    members: tuple[str, ...] = ()
    chunked: bool = False
    widest: float = 0.0
    joined: tuple[str, ...] = ()
    normalized: bool = False

    @property
    def plain(self) -> bool:
        """Whether a version can stand for another without further words: one width, maps of the class alone, and no
        copy of an intermediate that has to be stored."""
        kept = self.stored and self.kind != "output"
        return self.widest <= self.width and not self.joined and not kept


@dataclass(frozen=True)
class Statement:
    """output[...] += product of the operands, over all loops of the domain."""

    name: str
    output: Access
    operands: tuple[Access, ...]

    @property
    def loops(self) -> tuple[str, ...]:
        """All loops of the statement, those of the output first."""
        return tuple(dict.fromkeys([*self.output.loops, *(loop for a in self.operands for loop in a.loops)]))

    @property
    def reduced(self) -> tuple[str, ...]:
        """The loops that are summed over."""
        return tuple(loop for loop in self.loops if loop not in self.output.loops)


@dataclass(frozen=True)
class Coupling:
    """A pattern that restricts two loops together: position loop `row` (perhaps repeated by others) and `column`."""

    row: str
    column: str
    pattern: Pattern


@dataclass(frozen=True)
class Problem:
    """Statements in execution order over loops with extents, the classes they touch, and the domain's pattern.

    statistics   tensors outside all classes, with their loops
    scales       class -> loops of the values of lower rank that its maps read
    passes       fibers that the cascade traverses more than once
    remarks      which Einsums stay outside the bounds, and why
    """

    name: str
    extents: dict[str, int]
    classes: dict[str, ValueClass]
    statements: tuple[Statement, ...]
    coupling: Coupling | None = None
    statistics: dict[str, tuple[str, ...]] = field(default_factory=dict)
    scales: dict[str, frozenset[tuple[str, ...]]] = field(default_factory=dict)
    passes: tuple[FiberPasses, ...] = ()
    remarks: tuple[str, ...] = field(default=())

    def volume(self, loops: tuple[str, ...]) -> float:
        """Number of points of the domain projected onto `loops`."""
        pair = (self.coupling.row, self.coupling.column) if self.coupling else ()
        if self.coupling and all(loop in loops for loop in pair):
            rest = prod(self.extents[loop] for loop in loops if loop not in pair)
            return float(rest * self.coupling.pattern.pairs)
        return float(prod(self.extents[loop] for loop in loops))

    def producers(self, access: Access) -> tuple[Statement, ...]:
        """Statements that accumulate into the class of an access, those that its elements need."""
        return tuple(
            s
            for s in self.statements
            if s.output.tensor == access.tensor and (not access.needs or s.name in access.needs)
        )

    def consumers(self, name: str) -> tuple[Statement, ...]:
        """Statements with the class among their operands."""
        return tuple(s for s in self.statements if any(a.tensor == name for a in s.operands))


@dataclass(frozen=True)
class FiberPasses:
    """A class whose fibers (`fibers` of them, `length` elements each) the cascade traverses `passes` times."""

    tensor: str
    rank: str
    length: float
    fibers: float
    passes: int
