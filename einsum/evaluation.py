"""What an expression means: the nodes of its tree, and their value for numbers or NumPy arrays.

Scalars stay Python numbers (integers are exact); integer arrays become float64, so that nothing overflows silently.
`active` marks the points of an array evaluation whose value is used: the branch of `a if c else b` that a point does
not take cannot divide by zero there, as for a scalar.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.errors import SpecError, nearest
from einsum.symbols import as_array, traced

Value = int | float | bool | str | NDArray[Any]
Active = NDArray[np.bool_] | None
Scope = Mapping[str, Any]

_NUMBERS = frozenset({int, float})
_PLAIN = _NUMBERS | {bool, str}
_MAX_POWER_BITS = 4096


def as_value(value: Any, name: str = "value") -> Value:
    """A number, text or array in the form that the nodes compute with; SpecError for anything else."""
    if type(value) in _PLAIN:
        return value  # type: ignore[no-any-return]
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value)
    if isinstance(value, str):
        return value
    array = as_array(value)
    if array.ndim == 0 and array.dtype.kind in "biufU":
        return as_value(array.item(), name)
    if array.dtype.kind in "iuf":
        return array.astype(np.float64)
    if array.dtype.kind in "bU":
        return array
    raise SpecError(f"'{name}' is {type(value).__name__}, expected a number, text or an array of numbers")


class Node(ABC):
    """One node of an expression tree."""

    @abstractmethod
    def evaluate(self, scope: Scope, active: Active) -> Value:
        """The value with the names in `scope`; SpecError with a column when there is none."""

    @abstractmethod
    def names(self) -> frozenset[str]:
        """The names that the value depends on."""


@dataclass(frozen=True)
class Constant(Node):
    """A number, a truth value or text."""

    value: int | float | bool | str

    def evaluate(self, scope: Scope, active: Active) -> Value:
        return self.value

    def names(self) -> frozenset[str]:
        return frozenset()


@dataclass(frozen=True)
class Name(Node):
    """The value of a name in the scope."""

    name: str
    column: int = field(compare=False)

    def evaluate(self, scope: Scope, active: Active) -> Value:
        if self.name not in scope:
            raise SpecError(f"unknown name '{self.name}'{nearest(self.name, scope)}", column=self.column)
        return as_value(scope[self.name], self.name)

    def names(self) -> frozenset[str]:
        return frozenset({self.name})


@dataclass(frozen=True)
class Operation(Node):
    """An operator or function applied to numbers: `operator` is a key of OPERATORS."""

    operator: str
    operands: tuple[Node, ...]
    column: int = field(compare=False)

    def evaluate(self, scope: Scope, active: Active) -> Value:
        values = [operand.evaluate(scope, active) for operand in self.operands]
        return _guarded(self.operator, values, active, self.column)

    def names(self) -> frozenset[str]:
        return _all_names(self.operands)


@dataclass(frozen=True)
class Comparison(Node):
    """`left operator right`; text may be compared for equality only."""

    operator: str
    left: Node
    right: Node
    column: int = field(compare=False)

    def evaluate(self, scope: Scope, active: Active) -> Value:
        left, right = self.left.evaluate(scope, active), self.right.evaluate(scope, active)
        if is_text(left) != is_text(right):
            raise SpecError("text is compared with a number", column=self.column)
        if is_text(left) and self.operator not in ("==", "!="):
            raise SpecError(f"text cannot be compared with '{self.operator}'", column=self.column)
        result = COMPARISONS[self.operator](left, right)
        return result if isinstance(result, np.ndarray) else bool(result)

    def names(self) -> frozenset[str]:
        return _all_names((self.left, self.right))


@dataclass(frozen=True)
class Conditional(Node):
    """`then if condition else otherwise`, per point; a branch counts only where it is taken."""

    condition: Node
    then: Node
    otherwise: Node
    column: int = field(compare=False)

    def evaluate(self, scope: Scope, active: Active) -> Value:
        condition = _truth(self.condition.evaluate(scope, active), self.column)
        if not isinstance(condition, np.ndarray):
            return (self.then if condition else self.otherwise).evaluate(scope, active)
        taken = self.then.evaluate(scope, _both(active, condition))
        other = self.otherwise.evaluate(scope, _both(active, ~condition))
        if is_text(taken) != is_text(other):
            raise SpecError("one branch is text and the other a number", column=self.column)
        return np.where(condition, taken, other)

    def names(self) -> frozenset[str]:
        return _all_names((self.condition, self.then, self.otherwise))


@dataclass(frozen=True)
class Logic(Node):
    """`and`, `or` over two operands; the second is not evaluated where the first decides."""

    operator: str
    left: Node
    right: Node
    column: int = field(compare=False)

    def evaluate(self, scope: Scope, active: Active) -> Value:
        left = _truth(self.left.evaluate(scope, active), self.column)
        deciding = self.operator == "or"
        if not isinstance(left, np.ndarray):
            return left if left is deciding else _truth(self.right.evaluate(scope, active), self.column)
        undecided = ~left if deciding else left
        right = _truth(self.right.evaluate(scope, _both(active, undecided)), self.column)
        return left | right if deciding else left & right

    def names(self) -> frozenset[str]:
        return _all_names((self.left, self.right))


@dataclass(frozen=True)
class Not(Node):
    """The negation of a condition."""

    operand: Node
    column: int = field(compare=False)

    def evaluate(self, scope: Scope, active: Active) -> Value:
        value = _truth(self.operand.evaluate(scope, active), self.column)
        return ~value if isinstance(value, np.ndarray) else not value

    def names(self) -> frozenset[str]:
        return self.operand.names()


def _all_names(nodes: tuple[Node, ...]) -> frozenset[str]:
    return frozenset().union(*(node.names() for node in nodes))


def is_text(value: Value) -> bool:
    """Whether a value is text, or an array of texts."""
    return isinstance(value, str) or (isinstance(value, np.ndarray) and value.dtype.kind == "U")


def _number(value: Value, column: int) -> Any:
    if type(value) in _NUMBERS:
        return value
    if is_text(value):
        raise SpecError(f"text {value!r} stands where a number is expected", column=column)
    if isinstance(value, np.ndarray) and value.dtype.kind == "b":
        return value.astype(np.float64)
    return int(value) if isinstance(value, bool) else value


def _truth(value: Value, column: int) -> bool | NDArray[np.bool_]:
    number = _number(value, column)
    return number != 0 if isinstance(number, np.ndarray) else bool(number)


def _both(active: Active, condition: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return condition if active is None else active & condition


def _guarded(operator: str, values: list[Any], active: Active, column: int) -> Value:
    """Apply an operator to numbers; where it is undefined at a point in use, say so."""
    function, arity, undefined = OPERATORS[operator]
    if len(values) != arity and (arity is not None or not values):
        wanted = f"{arity} argument{'' if arity == 1 else 's'}" if arity else "at least one argument"
        raise SpecError(f"{operator} takes {wanted}, found {len(values)}", column=column)
    vectorised = False
    if not _NUMBERS.issuperset(map(type, values)):
        values = [_number(value, column) for value in values]
        vectorised = _arrays(*values)
    if undefined is not None and (wrong := undefined[1](*values)) is not False:
        used = wrong if active is None else wrong & active
        if np.any(used):
            raise SpecError(f"{undefined[0]}, found {_first_of(values, used)}", column=column)
        if not vectorised:
            return math.nan  # no point in use takes this branch
    try:
        if vectorised:
            with np.errstate(all="ignore"):
                result = function(*values)
        else:
            result = function(*values)
    except (OverflowError, ValueError):
        if vectorised:
            raise  # arrays that do not broadcast
        raise SpecError("the result is out of range", column=column) from None
    if type(result) in _NUMBERS:
        return result  # type: ignore[no-any-return]
    if isinstance(result, complex) or (isinstance(result, np.ndarray) and result.dtype.kind == "c"):
        raise SpecError("the result is not a real number", column=column)
    return result if isinstance(result, (np.ndarray, int, float)) else as_value(result)


def _first_of(values: list[Any], wrong: Any) -> str:
    """The operands at the first point where something is wrong."""
    flags, *columns = np.broadcast_arrays(*(as_array(value).reshape(-1) for value in (wrong, *values)))
    point = int(np.argmax(flags))
    return " and ".join(f"{column[point]:g}" for column in columns)


def _power(base: Any, exponent: Any) -> Any:
    if isinstance(base, int) and isinstance(exponent, int) and exponent >= 0:
        if base.bit_length() * exponent <= _MAX_POWER_BITS:
            return base**exponent
        return math.pow(base, exponent)
    return np.power(base, exponent) if _arrays(base, exponent) else math.pow(base, exponent)


def _arrays(*values: Any) -> bool:
    return any(isinstance(value, np.ndarray) for value in values)


def _whole(function: Any, array_function: Any) -> Any:
    return lambda x: array_function(x) if _arrays(x) else function(x)


def _most(function: Any, array_function: Any) -> Any:
    return lambda *values: reduce(array_function, values) if _arrays(*values) else function(values)


@lru_cache(maxsize=4096)
def _divisors(n: int) -> NDArray[np.float64]:
    small = np.arange(1, math.isqrt(n) + 1)
    small = small[n % small == 0]
    return np.unique(np.concatenate([small, n // small])).astype(np.float64)


_MAX_DIVISOR_NUMBER = 2**40


@traced
def _largest_divisor(n: Any, limit: Any) -> Any:
    """The largest divisor of n that is at most `limit`, elementwise."""
    numbers, limits = np.broadcast_arrays(np.asarray(n, dtype=np.float64), np.asarray(limit, dtype=np.float64))
    unused = _no_divisor(numbers, limits)  # points whose value is discarded; any number serves
    numbers, limits = np.where(unused, 1, numbers), np.where(unused, 1, limits)
    result = np.ones(numbers.shape)
    for number in np.unique(numbers):
        divisors = _divisors(int(number))
        chosen = numbers == number
        result[chosen] = divisors[np.searchsorted(divisors, limits[chosen], side="right") - 1]
    return result if result.ndim else int(result)


def _no_divisor(n: Any, limit: Any) -> Any:
    outside = (as_array(n) < 1) | (as_array(n) > _MAX_DIVISOR_NUMBER)
    wrong = outside | (np.mod(n, 1) != 0) | ~(as_array(limit) >= 1)
    return wrong if _arrays(n, limit) else bool(wrong)


_BY_ZERO = ("division by zero", lambda a, b: b == 0)

OPERATORS: Mapping[str, tuple[Any, int | None, Any]] = {
    "+": (lambda a, b: a + b, 2, None),
    "-": (lambda a, b: a - b, 2, None),
    "*": (lambda a, b: a * b, 2, None),
    "/": (lambda a, b: a / b, 2, _BY_ZERO),
    "//": (lambda a, b: a // b, 2, _BY_ZERO),
    "%": (lambda a, b: a % b, 2, _BY_ZERO),
    "**": (_power, 2, ("zero to a negative power", lambda a, b: (a == 0) & (b < 0))),
    "negative": (lambda a: -a, 1, None),
    "min": (_most(min, np.minimum), None, None),
    "max": (_most(max, np.maximum), None, None),
    "ceil": (_whole(math.ceil, np.ceil), 1, None),
    "floor": (_whole(math.floor, np.floor), 1, None),
    "round": (_whole(round, np.round), 1, None),
    "abs": (abs, 1, None),
    "ceil_div": (lambda a, b: -(-a // b), 2, _BY_ZERO),
    "sqrt": (_whole(math.sqrt, np.sqrt), 1, ("square root of a negative number", lambda a: a < 0)),
    "log2": (_whole(math.log2, np.log2), 1, ("logarithm of a number that is not positive", lambda a: a <= 0)),
    "largest_divisor": (
        _largest_divisor,
        2,
        ("largest_divisor needs a whole number from 1 to 2**40 and a limit of at least 1", _no_divisor),
    ),
}
"""operator or function -> (function, argument count or None for any, (message, test of undefined points) or None)."""

FUNCTIONS = frozenset(name for name in OPERATORS if name.isidentifier() and name != "negative") | {"where"}

COMPARISONS: Mapping[str, Any] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
