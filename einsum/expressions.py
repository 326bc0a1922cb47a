"""Expressions in descriptions: `ceil_div(M, M0)`, `16 MiB * banks`, `2 if dtype == 'fp16' else 4`.

A small recursive-descent parser of its own; nothing is ever passed to Python. A value may be an array in place of any
number, and the result then has the broadcast shape: one evaluation covers many design points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from einsum.errors import SpecError, nearest
from einsum.evaluation import (
    COMPARISONS,
    FUNCTIONS,
    Comparison,
    Conditional,
    Constant,
    Logic,
    Name,
    Node,
    Not,
    Operation,
    Value,
    as_value,
    is_text,
)
from einsum.tokens import Cursor, Token

_WORDS = frozenset({"if", "else", "and", "or", "not", "true", "false", "True", "False"})


@dataclass(frozen=True)
class Expression:
    """A parsed expression. Two are equal when they have the same meaning, whatever their spacing."""

    root: Node
    text: str = field(compare=False)

    @staticmethod
    def parse(source: str | int | float | Expression) -> Expression:
        """Parse text, or take a number as it is. SpecError points at the column of a mistake."""
        if isinstance(source, Expression):
            return source
        if isinstance(source, (bool, int, float, np.integer, np.floating, np.bool_)):
            value = as_value(source)
            if not np.isfinite(value):
                raise SpecError(f"expected a finite number, found {source!r}")
            assert isinstance(value, (bool, int, float))
            return Expression(Constant(value), str(value))
        if not isinstance(source, str):
            raise SpecError(f"expected a number or an expression, found {_describe(source)}")
        cursor = Cursor(source)
        if cursor.token.kind == "end":
            raise SpecError("expected a number or an expression, found empty text")
        root = parse_expression(cursor)
        cursor.end()
        return Expression(root, source.strip())

    @cached_property
    def names(self) -> frozenset[str]:
        """The names that the value depends on."""
        return self.root.names()

    def evaluate(self, env: Mapping[str, Any]) -> Value:
        """The value with the names in `env` (numbers, text, bools, arrays of these).

        A Python number or text when everything is scalar, else an array of the broadcast shape. SpecError for an
        unknown name, a division by zero or a result that is not finite; the message names the expression.
        """
        if type(self.root) is Constant:
            return self.root.value
        try:
            result = self.root.evaluate(env, None)
        except SpecError as error:
            at = f" at column {error.column}" if error.column and len(self.text) > 24 else ""
            raise SpecError(f"{error.message}{at} in '{self.text}'", column=error.column) from None
        except ValueError as error:
            if "broadcast" not in str(error):
                raise
            raise SpecError(f"the arrays in '{self.text}' have different lengths: {_shapes(self, env)}") from None
        if not _finite(result):
            raise SpecError(f"the result of '{self.text}' is not a finite number")
        return result

    def number(self, env: Mapping[str, Any]) -> float:
        """The value as one number; SpecError when it is text or an array."""
        result = self.evaluate(env)
        if isinstance(result, (str, np.ndarray)):
            raise SpecError(f"'{self.text}' is {_describe(result)}, expected a number")
        return result

    def __str__(self) -> str:
        return self.text

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let pydantic models hold expressions: text and numbers are parsed, and written back as text or number."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(cls.plain)
        )

    def plain(self) -> str | int | float:
        """The form for YAML: a number when it is one, else the text."""
        return self.root.value if isinstance(self.root, Constant) and self.text == str(self.root.value) else self.text


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) or is_text(value) or bool(np.all(np.isfinite(value)))


def _describe(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"text {value!r}" if isinstance(value, str) else f"{type(value).__name__} {value!r}"


def _shapes(expression: Expression, env: Mapping[str, Any]) -> str:
    lengths = {name: np.shape(env[name]) for name in sorted(expression.names) if name in env}
    return ", ".join(f"{name} {shape}" for name, shape in lengths.items() if shape)


def parse_expression(cursor: Cursor) -> Node:
    """`a if c else b`, the loosest form."""
    cursor.nest()
    node = _either(cursor)
    token = cursor.accept("if")
    if token:
        condition = _either(cursor)
        cursor.expect("else")
        node = Conditional(condition, node, parse_expression(cursor), token.column)
    cursor.unnest()
    return node


def _either(cursor: Cursor) -> Node:
    node = _each(cursor)
    while token := cursor.accept("or"):
        node = Logic("or", node, _each(cursor), token.column)
    return node


def _each(cursor: Cursor) -> Node:
    node = parse_condition(cursor)
    while token := cursor.accept("and"):
        node = Logic("and", node, parse_condition(cursor), token.column)
    return node


def parse_condition(cursor: Cursor) -> Node:
    """One comparison or arithmetic expression, with `not` before it: what stands between `and` and `or`."""
    token = cursor.accept("not")
    if not token:
        return _compared(cursor)
    cursor.nest()
    node = Not(parse_condition(cursor), token.column)
    cursor.unnest()
    return node


def _compared(cursor: Cursor) -> Node:
    """A comparison; a chain `a < b < c` means `a < b and b < c`."""
    left = parse_arithmetic(cursor)
    result: Node | None = None
    while token := cursor.accept(*COMPARISONS):
        right = parse_arithmetic(cursor)
        link = Comparison(token.text, left, right, token.column)
        result = link if result is None else Logic("and", result, link, token.column)
        left = right
    return left if result is None else result


def parse_arithmetic(cursor: Cursor) -> Node:
    """Sums and products, without comparisons."""
    node = _product(cursor)
    while token := cursor.accept("+", "-"):
        node = Operation(token.text, (node, _product(cursor)), token.column)
    return node


def _product(cursor: Cursor) -> Node:
    node = _signed(cursor)
    while token := cursor.accept("*", "/", "//", "%"):
        node = Operation(token.text, (node, _signed(cursor)), token.column)
    return node


def _signed(cursor: Cursor) -> Node:
    token = cursor.accept("-", "+")
    if not token:
        return _raised(cursor)
    cursor.nest()
    operand = _signed(cursor)
    cursor.unnest()
    return operand if token.text == "+" else Operation("negative", (operand,), token.column)


def _raised(cursor: Cursor) -> Node:
    base = _atom(cursor)
    token = cursor.accept("**")
    if not token:
        return base
    cursor.nest()
    node = Operation("**", (base, _signed(cursor)), token.column)
    cursor.unnest()
    return node


def _atom(cursor: Cursor) -> Node:
    token = cursor.token
    if token.kind == "number":
        return Constant(cursor.take().value)
    if token.kind == "string":
        return Constant(cursor.take().text[1:-1])
    if cursor.accept("("):
        node = parse_expression(cursor)
        cursor.expect(")")
        return node
    if token.kind != "name" or token.text in _WORDS - {"true", "false", "True", "False"}:
        cursor.fail(f"expected a number or a name, found {cursor.found()}")
    cursor.take()
    if token.text in _WORDS:
        return Constant(token.text.lower() == "true")
    return _call(cursor, token) if cursor.at("(") else Name(token.text, token.column)


def _call(cursor: Cursor, name: Token) -> Node:
    if name.text not in FUNCTIONS:
        cursor.fail(f"unknown function '{name.text}'{nearest(name.text, FUNCTIONS)}", name.column)
    cursor.expect("(")
    arguments: list[Node] = []
    while not cursor.at(")"):
        arguments.append(parse_expression(cursor))
        if not cursor.accept(","):
            break
    cursor.expect(")")
    if name.text != "where":
        return Operation(name.text, tuple(arguments), name.column)
    if len(arguments) != 3:
        cursor.fail(f"where takes 3 arguments, found {len(arguments)}", name.column)
    return Conditional(arguments[0], arguments[1], arguments[2], name.column)


def resolve(definitions: Mapping[str, Expression], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of all definitions, evaluated in the order in which they depend on each other, together with `given`.

    A name in `given` replaces its definition. SpecError (with the definition's name as its key) for an undefined name,
    with the nearest one, and for definitions that depend on themselves, with the cycle.
    """
    values: dict[str, Any] = dict(given)
    known = set(definitions) | set(given)
    for start in definitions:
        _resolve_name(start, definitions, values, known)
    return values


def closed(definitions: Mapping[str, Expression], given: Iterable[str]) -> dict[str, Expression]:
    """The definitions that depend on each other and on the names in `given` only."""
    known, found = set(given), dict(definitions)
    while True:
        fitting = {name: e for name, e in found.items() if e.names <= known | found.keys()}
        if len(fitting) == len(found):
            return found
        found = fitting


def _resolve_name(start: str, definitions: Mapping[str, Expression], values: dict[str, Any], known: set[str]) -> None:
    """Evaluate `start` and what it needs, depth first with a stack of its own (chains may be long)."""
    path = [start]
    while path:
        name = path[-1]
        if name in values:
            path.pop()
            continue
        missing = definitions[name].names.difference(values)
        if not missing:
            try:
                values[name] = definitions[name].evaluate(values)
            except SpecError as error:
                raise SpecError(error.message, key=name, column=error.column) from None
            continue
        needed = min(missing)
        if needed not in known:
            raise SpecError(f"unknown name '{needed}' in '{definitions[name]}'{nearest(needed, known)}", key=name)
        if needed in path:
            cycle = " -> ".join([*path[path.index(needed) :], needed])
            raise SpecError(f"the definition depends on itself: {cycle}", key=needed)
        path.append(needed)
