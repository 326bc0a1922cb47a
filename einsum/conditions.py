"""Restrictions of an iteration space: the clauses of `where`.

A `Comparison` relates ranks and variables (`m <= p`, `p - m < Wd`, `m // Bk <= p // Bk`). A `Kept` clause reads a
tensor that is known only at run time: `KEEP[p,m]` keeps the points where the mask is not zero, `m in IDX[p]` those
whose coordinate is listed in the last dimension of IDX, and `m in KEEP[p]` reads a mask whose last dimension is m.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from einsum.access import Access, Index
from einsum.errors import SpecError
from einsum.evaluation import Comparison as ComparisonNode
from einsum.evaluation import Logic, Not
from einsum.expressions import Expression, parse_arithmetic, parse_condition
from einsum.tokens import Cursor


@dataclass(frozen=True)
class Comparison:
    """A clause over ranks and variables only: whether a point is kept is known before run time."""

    expression: Expression

    @property
    def names(self) -> frozenset[str]:
        """Ranks and variables that the clause depends on."""
        return self.expression.names

    def __str__(self) -> str:
        return str(self.expression)


@dataclass(frozen=True)
class Kept:
    """A clause that reads a tensor. With `member`, that rank's coordinate is looked up along the last dimension."""

    access: Access
    member: str | None = None

    @property
    def names(self) -> frozenset[str]:
        """Ranks and variables that the clause depends on."""
        member = {self.member} if self.member else set()
        return frozenset(self.access.ranks) | member

    def __str__(self) -> str:
        return f"{self.member} in {self.access}" if self.member else str(self.access)


Condition = Comparison | Kept


def parse_conditions(cursor: Cursor, ranks: Set[str]) -> tuple[Condition, ...]:
    """Clauses separated by `and` or commas, up to the end of the text.

    SpecError for `and` beside `or` without parentheses: readers do not agree on what that means.
    """
    clauses = [_clause(cursor, ranks, False)]
    while token := cursor.accept("and", ","):
        clauses.append(_clause(cursor, ranks, token.text == "and"))
    return tuple(clauses)


def _clause(cursor: Cursor, ranks: Set[str], joined: bool) -> Condition:
    """One clause; `joined`: an `and` stands before it."""
    following = cursor.peek()
    if cursor.token.kind == "name" and following.text == "in" and following.kind == "name":
        member = cursor.take()
        if member.text not in ranks:
            cursor.fail(f"expected a rank before 'in', found '{member.text}'", member.column)
        cursor.take()
        return Kept(parse_access(cursor, ranks), member.text)
    if cursor.token.kind == "name" and following.text == "[":
        return Kept(parse_access(cursor, ranks))
    start = cursor.token.column
    node = parse_condition(cursor)
    either = cursor.at("or")
    while token := cursor.accept("or"):
        node = Logic("or", node, parse_condition(cursor), token.column)
    if either and (joined or cursor.at("and")):
        cursor.fail("'and' stands beside 'or'; put parentheses around what belongs together", start)
    if not isinstance(node, (ComparisonNode, Logic, Not)):
        cursor.fail("expected a comparison such as 'm <= p'", start)
    text = cursor.text[start - 1 : cursor.token.column - 1].strip()
    return Comparison(Expression(node, f"({text})" if either else text))


def parse_access(cursor: Cursor, ranks: Set[str]) -> Access:
    """`K[b, h, m1*M0+m0, e]`; a name alone is a tensor without dimensions."""
    tensor = cursor.name("a tensor")
    indices: list[Index] = []
    if cursor.accept("["):
        while not cursor.at("]"):
            column = cursor.token.column
            node = parse_arithmetic(cursor)
            try:
                indices.append(Index.from_node(node, ranks))
            except SpecError as error:
                cursor.fail(error.message, column)
            if not cursor.accept(","):
                break
        cursor.expect("]")
    return Access(tensor.text, tuple(indices))
