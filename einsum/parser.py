"""From text to Einsum: `RM[m1+1,p] = max(RM[m1,p], LM[m1,p]) where m <= p`.

    einsum     = access '=' [ reduction '(' rank {',' rank} ')' ] body [ 'where' condition {'and' condition} ]
    body       = arithmetic over accesses, numbers, variables, ranks and the functions of `body.MAPS`
    reduction  = sum | max | min | prod | any | all | topk | topk_values | topk_mask(rank, k)

A product without a named reduction is summed over the ranks that the output lacks. Errors point at the column.
"""

from __future__ import annotations

import math
from collections.abc import Set

from einsum.access import Access
from einsum.body import MAPS, REDUCTIONS, Body, Literal, Map, Read, Symbol, is_product, reads, symbols
from einsum.conditions import Condition, parse_access, parse_conditions
from einsum.einsum import Einsum
from einsum.errors import nearest
from einsum.expressions import Expression, parse_arithmetic
from einsum.tokens import Cursor, Token

_COMPARISONS = ("<=", ">=", "==", "!=", "<", ">")


def parse_einsum(text: str, ranks: Set[str], tensors: Set[str] = frozenset()) -> Einsum:
    """Parse one Einsum. `ranks` are the names that range over coordinates; `tensors` may be read without brackets."""
    reader = _Reader(text, ranks, tensors)
    return reader.einsum()


def parse_body(text: str, ranks: Set[str], tensors: Set[str] = frozenset()) -> Body:
    """Parse a right-hand side alone, such as an initial value."""
    reader = _Reader(text, ranks, tensors)
    body = reader.body()
    reader.cursor.end()
    return body


def parse_where(text: str, ranks: Set[str]) -> tuple[Condition, ...]:
    """Parse the clauses of a `where` alone."""
    cursor = Cursor(text, units=None)
    conditions = parse_conditions(cursor, ranks)
    cursor.end()
    return conditions


def output_name(text: str) -> str:
    """The tensor that an Einsum's text produces."""
    return Cursor(text, units=None).name("the output tensor").text


class _Reader:
    """Reads one text; a cursor and the names that it may meet."""

    def __init__(self, text: str, ranks: Set[str], tensors: Set[str]) -> None:
        self.cursor = Cursor(text, units=None)
        self.ranks = ranks
        self.tensors = tensors

    def einsum(self) -> Einsum:
        cursor = self.cursor
        output = parse_access(cursor, self.ranks)
        cursor.expect("=")
        column = cursor.token.column
        reduction, reduced, keep = self.reduction()
        body = self.body()
        conditions = parse_conditions(cursor, self.ranks) if cursor.accept("where") else ()
        cursor.end()
        missing = tuple(rank for rank in _ranks_of(body, self.ranks) if rank not in output.ranks)
        if reduction is None and missing:
            if not is_product(body):
                names = ", ".join(missing)
                self.cursor.fail(f"'{output.tensor}' lacks {names}: say how to reduce, as in sum({names})", column)
            reduction, reduced = "sum", missing
        iterated = output.ranks
        if reduction in ("topk", "topk_values"):
            iterated = self.top_k_ranks(output, body, column)
        elif reduction == "topk_mask":
            if not set(reduced) <= set(output.ranks):
                cursor.fail("the output of topk_mask keeps the rank that is selected from", column)
        elif set(reduced) & set(output.ranks):
            both = sorted(set(reduced) & set(output.ranks))[0]
            cursor.fail(f"'{both}' is reduced, yet it is an index of the output", column)
        unreduced = [rank for rank in missing if rank not in reduced]
        if unreduced:
            cursor.fail(f"'{unreduced[0]}' is neither an index of the output nor reduced", column)
        absent = [rank for rank in reduced if rank not in _ranks_of(body, self.ranks)]
        if absent:
            cursor.fail(f"'{absent[0]}' is reduced, but nothing on the right depends on it", column)
        ranks = tuple(dict.fromkeys((*iterated, *reduced)))
        return Einsum(output, body, ranks, reduced, reduction, conditions, keep)

    def top_k_ranks(self, output: Access, body: Body, column: int) -> tuple[str, ...]:
        """The output's ranks without the one that counts the selected points."""
        used = _ranks_of(body, self.ranks)
        new = [rank for rank in output.ranks if rank not in used]
        if len(new) != 1 or output.indices[-1].rank != new[0]:
            self.cursor.fail("the last index of a top-k's output is a rank that counts the selected points", column)
        return tuple(rank for rank in output.ranks if rank != new[0])

    def reduction(self) -> tuple[str | None, tuple[str, ...], Expression | None]:
        """`max(m0)` before a body, if it stands there and is not a map such as `max(a, b)`."""
        cursor = self.cursor
        name = cursor.token
        if name.kind != "name" or cursor.peek().text != "(":
            return None, (), None
        if name.text not in REDUCTIONS:
            following = cursor.peek(2)
            if name.text not in MAPS and following.kind == "name" and following.text in self.ranks:
                known = {*MAPS, *REDUCTIONS}
                cursor.fail(f"unknown function '{name.text}'{nearest(name.text, filter(str.isidentifier, known))}")
            return None, (), None
        if name.text in MAPS and not self._reduces():
            return None, (), None
        cursor.take()
        cursor.expect("(")
        ranks = [self.rank()]
        keep = None
        if name.text == "topk_mask":
            cursor.expect(",")
            start = cursor.token.column
            node = parse_arithmetic(cursor)
            keep = Expression(node, cursor.text[start - 1 : cursor.token.column - 1].strip())
        while cursor.accept(","):
            ranks.append(self.rank())
        cursor.expect(")")
        if REDUCTIONS[name.text].ufunc is None and len(ranks) != 1:
            cursor.fail(f"{name.text} selects along one rank", name.column)
        return name.text, tuple(ranks), keep

    def rank(self) -> str:
        token = self.cursor.name("a rank")
        if token.text not in self.ranks:
            self.cursor.fail(f"unknown rank '{token.text}'{nearest(token.text, self.ranks)}", token.column)
        return token.text

    def _reduces(self) -> bool:
        """Whether `max(` begins a reduction: names only inside the brackets, and an operand behind them."""
        distance = 2
        while True:
            if self.cursor.peek(distance).kind != "name":
                return False
            separator = self.cursor.peek(distance + 1).text
            if separator == ")":
                following = self.cursor.peek(distance + 2)
                operand = following.kind in ("name", "number") and following.text != "where"
                return operand or following.text == "("
            if separator != ",":
                return False
            distance += 2

    def body(self) -> Body:
        self.cursor.nest()
        left = self.sum()
        if token := self.cursor.accept(*_COMPARISONS):
            left = Map(token.text, (left, self.sum()))
        self.cursor.unnest()
        return left

    def sum(self) -> Body:
        left = self.product()
        while token := self.cursor.accept("+", "-"):
            left = Map(token.text, (left, self.product()))
        return left

    def product(self) -> Body:
        left = self.signed()
        while token := self.cursor.accept("*", "/", "//", "%"):
            left = Map(token.text, (left, self.signed()))
        return left

    def signed(self) -> Body:
        if not self.cursor.accept("-"):
            return self.power()
        self.cursor.nest()
        operand = self.signed()
        self.cursor.unnest()
        return Literal(-operand.value) if isinstance(operand, Literal) else Map("negative", (operand,))

    def power(self) -> Body:
        base = self.atom()
        if not self.cursor.accept("**"):
            return base
        self.cursor.nest()
        result = Map("**", (base, self.signed()))
        self.cursor.unnest()
        return result

    def atom(self) -> Body:
        cursor = self.cursor
        token = cursor.token
        if token.kind == "number":
            return Literal(cursor.take().value)
        if cursor.accept("("):
            body = self.body()
            cursor.expect(")")
            return body
        if token.kind != "name" or token.text == "where":
            cursor.fail(f"expected a tensor, a number or a function, found {cursor.found()}")
        following = cursor.peek().text
        if following == "[" or token.text in self.tensors:
            return Read(parse_access(cursor, self.ranks))
        cursor.take()
        if following == "(":
            return self.call(token)
        return Literal(math.inf) if token.text == "inf" else Symbol(token.text)

    def call(self, name: Token) -> Body:
        cursor = self.cursor
        if name.text not in MAPS:
            if name.text in REDUCTIONS:
                cursor.fail(f"the reduction '{name.text}' may only stand before the whole right-hand side", name.column)
            known = filter(str.isidentifier, MAPS)
            cursor.fail(f"unknown function '{name.text}'{nearest(name.text, known)}", name.column)
        cursor.expect("(")
        operands: list[Body] = []
        while not cursor.at(")"):
            operands.append(self.body())
            if not cursor.accept(","):
                break
        cursor.expect(")")
        arity = MAPS[name.text].arity
        if (arity is not None and len(operands) != arity) or (arity is None and len(operands) < 2):
            wanted = "one operand" if arity == 1 else f"{arity or 'two or more'} operands"
            cursor.fail(f"{name.text} takes {wanted}, found {len(operands)}", name.column)
        return Map(name.text, tuple(operands))


def _ranks_of(body: Body, ranks: Set[str]) -> tuple[str, ...]:
    """The ranks that the value of a body depends on, in order of appearance."""
    found: dict[str, None] = {}
    for access in reads(body):
        found.update(dict.fromkeys(access.ranks))
    found.update(dict.fromkeys(name for name in symbols(body) if name in ranks))
    return tuple(found)
