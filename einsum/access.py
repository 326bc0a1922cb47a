"""How an Einsum touches a tensor: one affine index per dimension, such as `p`, `2*p+w`, `m1*M0+m0`, `m1+1` or `M1`."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property

from einsum.errors import SpecError
from einsum.evaluation import Constant, Name, Node, Operation
from einsum.expressions import Expression

_ZERO = Constant(0)
_ONE = Constant(1)


@dataclass(frozen=True)
class Index:
    """An affine function of ranks: the sum of coefficient x rank over `terms`, plus `offset`.

    Coefficients and offset may name variables (`M0`, `M1`), never ranks. No terms: a fixed coordinate.
    """

    terms: Mapping[str, Expression]
    offset: Expression

    @staticmethod
    def of_rank(rank: str) -> Index:
        """The index that is one rank, as it stands."""
        return Index({rank: Expression(_ONE, "1")}, Expression(_ZERO, "0"))

    @staticmethod
    def at(coordinate: int) -> Index:
        """A fixed coordinate."""
        return Index({}, Expression(Constant(coordinate), str(coordinate)))

    @staticmethod
    def from_node(node: Node, ranks: Set[str]) -> Index:
        """The index that an expression over ranks and variables is; SpecError when it is not affine in the ranks."""
        terms, offset = _linear(node, ranks)
        kept = {rank: _expression(factor) for rank, factor in terms.items() if factor != _ZERO}
        return Index(kept, _expression(offset))

    @cached_property
    def ranks(self) -> tuple[str, ...]:
        """The ranks that it depends on."""
        return tuple(self.terms)

    @property
    def rank(self) -> str | None:
        """The rank, when the index is that rank and nothing else."""
        if len(self.terms) == 1 and self.offset.root == _ZERO:
            ((rank, factor),) = self.terms.items()
            return rank if factor.root == _ONE else None
        return None

    @cached_property
    def step(self) -> tuple[str, int] | None:
        """(rank, offset) when the index is a rank plus a whole number, as `m1+1`; else None."""
        if len(self.terms) != 1 or not isinstance(self.offset.root, Constant):
            return None
        ((rank, factor),) = self.terms.items()
        offset = self.offset.root.value
        return (rank, offset) if factor.root == _ONE and isinstance(offset, int) else None

    @property
    def variables(self) -> frozenset[str]:
        """Variables in coefficients and offset."""
        return self.offset.names.union(*(factor.names for factor in self.terms.values()))

    def __str__(self) -> str:
        text = ""
        for rank, factor in self.terms.items():
            factor_text = render(factor.root)
            if factor.root == _ONE:
                term = rank
            elif isinstance(factor.root, Operation) and factor.root.operator in ("+", "-"):
                term = f"({factor_text})*{rank}"
            elif isinstance(factor.root, Name):
                term = f"{rank}*{factor_text}"
            else:
                term = f"{factor_text}*{rank}"
            text += f"+{term}" if text and not term.startswith("-") else term
        if not text:
            return render(self.offset.root)
        if self.offset.root == _ZERO:
            return text
        offset = render(self.offset.root)
        return text + (offset if offset.startswith("-") else f"+{offset}")


@dataclass(frozen=True)
class Access:
    """One use of a tensor: `K[b, h, m1*M0+m0, e]`."""

    tensor: str
    indices: tuple[Index, ...]

    @cached_property
    def ranks(self) -> tuple[str, ...]:
        """The ranks in the indices, each once, in order."""
        return tuple(dict.fromkeys(rank for index in self.indices for rank in index.ranks))

    @cached_property
    def _text(self) -> str:
        return f"{self.tensor}[{','.join(str(index) for index in self.indices)}]" if self.indices else self.tensor

    def __str__(self) -> str:
        return self._text


def _expression(node: Node) -> Expression:
    return Expression(node, render(node))


def _linear(node: Node, ranks: Set[str]) -> tuple[dict[str, Node], Node]:
    """Coefficients of the ranks and the rest, as expression trees over variables."""
    if isinstance(node, Name) and node.name in ranks:
        return {node.name: _ONE}, _ZERO
    if not node.names() & ranks:
        return {}, node
    if isinstance(node, Operation):
        if node.operator == "negative":
            return _scaled(_linear(node.operands[0], ranks), Constant(-1))
        if node.operator in ("+", "-"):
            left, right = (_linear(operand, ranks) for operand in node.operands)
            return _added(left, right if node.operator == "+" else _scaled(right, Constant(-1)))
        if node.operator == "*":
            left_node, right_node = node.operands
            if not left_node.names() & ranks:
                return _scaled(_linear(right_node, ranks), left_node)
            if not right_node.names() & ranks:
                return _scaled(_linear(left_node, ranks), right_node)
    used = ", ".join(sorted(node.names() & ranks))
    raise SpecError(f"the index '{render(node)}' is not affine in {used}", column=getattr(node, "column", None))


def _scaled(form: tuple[dict[str, Node], Node], factor: Node) -> tuple[dict[str, Node], Node]:
    terms, offset = form
    return {rank: times(value, factor) for rank, value in terms.items()}, times(offset, factor)


def _added(a: tuple[dict[str, Node], Node], b: tuple[dict[str, Node], Node]) -> tuple[dict[str, Node], Node]:
    terms = dict(a[0])
    for rank, factor in b[0].items():
        terms[rank] = plus(terms[rank], factor) if rank in terms else factor
    return terms, plus(a[1], b[1])


def times(a: Node, b: Node) -> Node:
    """The product, folded where both are constants."""
    if _ZERO in (a, b):
        return _ZERO
    if a == _ONE:
        return b
    if b == _ONE:
        return a
    return _folded(Operation("*", (a, b), 0))


def plus(a: Node, b: Node) -> Node:
    """The sum, folded where both are constants."""
    if a == _ZERO:
        return b
    if b == _ZERO:
        return a
    return _folded(Operation("+", (a, b), 0))


def _folded(node: Operation) -> Node:
    if all(isinstance(operand, Constant) for operand in node.operands):
        value = node.evaluate({}, None)
        if isinstance(value, (int, float)):
            return Constant(value)
    return node


def render(node: Node) -> str:
    """Text that parses to the same arithmetic (operators and functions on names and numbers)."""
    if isinstance(node, Constant):
        return repr(node.value) if isinstance(node.value, str) else str(node.value)
    if isinstance(node, Name):
        return node.name
    if isinstance(node, Operation):
        parts = [render(operand) for operand in node.operands]
        if node.operator == "negative":
            return f"-{_inner(node.operands[0])}"
        if node.operator.isidentifier():
            return f"{node.operator}({', '.join(parts)})"
        if node.operator in ("+", "-"):
            right = parts[1] if node.operator == "+" else _inner(node.operands[1])
            return f"{parts[0]}{'' if right.startswith('-') and node.operator == '+' else node.operator}{right}"
        return f"{_inner(node.operands[0])}{node.operator}{_inner(node.operands[1])}"
    raise SpecError("an index is made of sums, products and functions", column=getattr(node, "column", None))


def _inner(node: Node) -> str:
    compound = isinstance(node, Operation) and not (node.operator.isidentifier() and node.operator != "negative")
    return f"({render(node)})" if compound else render(node)
