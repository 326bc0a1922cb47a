"""Words of the small languages here (expressions, Einsums), with their columns, and a cursor to read them.

Both parsers share this tokenizer, so a mistake is reported the same way everywhere: what was found, what was
expected, and the column.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NoReturn

from einsum.errors import SpecError
from einsum.units import EXPRESSION_UNITS, exact_number, plain_number

MAX_LENGTH = 4096
MAX_DEPTH = 60
MAX_OPERATORS = 200

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>(?:\d[\d_]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*)
      | (?P<string>'[^']*'|"[^"]*")
      | (?P<op>\*\*|//|<=|>=|==|!=|&&|[-+*/%<>=(),\[\]:])""",
    re.VERBOSE,
)
_OPERATORS = frozenset(
    {"+", "-", "*", "/", "//", "%", "**", "<", "<=", ">", ">=", "==", "!=", "and", "or", "not", "if"}
)
_WORD_END = r"(?![A-Za-z0-9_])"
_UNIT = re.compile(
    r"\s*(" + "|".join(re.escape(u) for u in sorted(EXPRESSION_UNITS, key=len, reverse=True)) + ")" + _WORD_END
)


@dataclass(frozen=True)
class Token:
    """kind: number, name, string, op or end; column is 1-based; value only for numbers."""

    kind: str
    text: str
    column: int
    value: int | float = 0


def tokenize(text: str, units: Mapping[str, Fraction] | None = EXPRESSION_UNITS) -> tuple[Token, ...]:
    """Split `text` into tokens. With `units`, a unit behind a number belongs to it: `16 MiB` is one number."""
    if len(text) > MAX_LENGTH:
        raise SpecError(f"the text is {len(text)} characters long, at most {MAX_LENGTH} are read")
    tokens = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if not match:
            raise _error(f"unexpected character {text[position]!r}", text, position + 1)
        kind, end = str(match.lastgroup), match.end()
        if kind == "number":
            unit = _UNIT.match(text, end) if units else None
            factor = units[unit[1]] if units and unit else Fraction(1)
            end = unit.end() if unit else end
            tokens.append(Token(kind, text[position:end], position + 1, _number(match[0], factor, text, position)))
        elif kind != "space":
            tokens.append(Token(kind, match[0], position + 1))
        position = end
    # Long chains become deep trees, which are walked recursively
    operators = [token for token in tokens if token.text in _OPERATORS]
    if len(operators) > MAX_OPERATORS:
        raise _error(f"more than {MAX_OPERATORS} operators", text, operators[MAX_OPERATORS].column)
    return (*tokens, Token("end", "", len(text) + 1))


def _number(digits: str, factor: Fraction, text: str, position: int) -> int | float:
    try:
        return plain_number(exact_number(digits) * factor)
    except (ValueError, OverflowError):
        raise _error(f"the number {digits[:40]} is out of range", text, position + 1) from None


def _error(message: str, text: str, column: int) -> SpecError:
    shown = text if len(text) <= 120 else text[:117] + "..."
    return SpecError(f"{message} at column {column} of '{shown}'", column=column)


class Cursor:
    """Reads tokens from left to right; every refusal names the column."""

    def __init__(self, text: str, units: Mapping[str, Fraction] | None = EXPRESSION_UNITS) -> None:
        self.text = text
        self.tokens = tokenize(text, units)
        self.position = 0
        self.depth = 0

    @property
    def token(self) -> Token:
        """The next token."""
        return self.tokens[self.position]

    def peek(self, distance: int = 1) -> Token:
        """The token so many places behind the next one."""
        return self.tokens[min(self.position + distance, len(self.tokens) - 1)]

    def at(self, *texts: str) -> bool:
        """Whether the next token is one of these operators or words."""
        return self.token.kind in ("op", "name") and self.token.text in texts

    def take(self) -> Token:
        """The next token, which is then behind."""
        token = self.token
        self.position = min(self.position + 1, len(self.tokens) - 1)
        return token

    def accept(self, *texts: str) -> Token | None:
        """Take the next token if it is one of these; None if not."""
        return self.take() if self.at(*texts) else None

    def expect(self, text: str) -> Token:
        """Take the next token, which has to be this one."""
        if not self.at(text):
            self.fail(f"expected '{text}', found {self.found()}")
        return self.take()

    def name(self, what: str) -> Token:
        """Take the next token, which has to be a name; `what` says of what."""
        if self.token.kind != "name":
            self.fail(f"expected {what}, found {self.found()}")
        return self.take()

    def end(self) -> None:
        """Refuse anything but the end of the text."""
        if self.token.kind != "end":
            self.fail(f"unexpected {self.found()}")

    def found(self) -> str:
        """What stands next, for a message."""
        return "the end" if self.token.kind == "end" else f"'{self.token.text}'"

    def nest(self) -> None:
        """Count one more level of nesting; texts nested too deeply are refused."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            self.fail(f"nested more than {MAX_DEPTH} levels deep")

    def unnest(self) -> None:
        """Leave a level of nesting."""
        self.depth -= 1

    def error(self, message: str, column: int | None = None) -> SpecError:
        """An error at the next token, or at a column."""
        return _error(message, self.text, self.token.column if column is None else column)

    def fail(self, message: str, column: int | None = None) -> NoReturn:
        """Raise the error."""
        raise self.error(message, column)
