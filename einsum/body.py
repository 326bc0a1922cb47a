"""The right-hand side of an Einsum: a tree of maps over tensor accesses, and the reductions that may stand before it.

Every map and reduction is listed here once, with its NumPy function and the kind of operation that hardware is charged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from einsum.access import Access


@dataclass(frozen=True)
class Read:
    """The element of a tensor at an access."""

    access: Access

    def __str__(self) -> str:
        return str(self.access)


@dataclass(frozen=True)
class Literal:
    """A number, infinite ones included."""

    value: float

    def __str__(self) -> str:
        return str(self.value)


@dataclass(frozen=True)
class Symbol:
    """The value of a variable, or of a rank at the current point."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Map:
    """A function applied point by point: `function` is a key of MAPS."""

    function: str
    operands: tuple[Body, ...]

    def __str__(self) -> str:
        if self.function == "negative":
            return f"-{_bound(self.operands[0], _binding(self) + 1)}"
        if self.function.isidentifier():
            return f"{self.function}({', '.join(str(operand) for operand in self.operands)})"
        left, right = self.operands
        own = _binding(self)
        # Comparisons do not chain, powers group to the right, all else to the left
        left_text = _bound(left, own + 1 if self.function == "**" or own == 0 else own)
        right_text = _bound(right, own if self.function == "**" else own + 1)
        return f"{left_text} {self.function} {right_text}"


Body = Read | Literal | Symbol | Map

_BINDING = {"+": 1, "-": 1, "*": 2, "/": 2, "//": 2, "%": 2, "negative": 3, "**": 4}
_ATOM = 5


def _binding(body: Body) -> int:
    """How tightly the outermost operator binds; comparisons least."""
    if isinstance(body, Map):
        return _BINDING.get(body.function, _ATOM if body.function.isidentifier() else 0)
    negative = isinstance(body, Literal) and (body.value < 0 or str(body.value).startswith("-"))
    return _BINDING["negative"] if negative else _ATOM


def _bound(body: Body, least: int) -> str:
    return str(body) if _binding(body) >= least else f"({body})"


@dataclass(frozen=True)
class MapFunction:
    """kind: the operation charged per application; arity: number of operands, None for two or more (folded)."""

    kind: str
    arity: int | None
    apply: Callable[..., Any]


def _fold(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def folded(*operands: Any) -> Any:
        result = operands[0]
        for operand in operands[1:]:
            result = function(result, operand)
        return result

    return folded


def _sigmoid(x: Any) -> Any:
    return np.where(np.asarray(x) >= 0, 1 / (1 + np.exp(-np.abs(x))), np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))))


def _gelu(x: Any) -> Any:
    """The tanh form of Hendrycks and Gimpel (arXiv 1606.08415), as BERT and GPT-2 use it."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


MAPS: Mapping[str, MapFunction] = {
    "+": MapFunction("add", 2, np.add),
    "-": MapFunction("sub", 2, np.subtract),
    "*": MapFunction("mul", 2, np.multiply),
    "/": MapFunction("div", 2, np.divide),
    "**": MapFunction("pow", 2, np.power),
    "//": MapFunction("floor_div", 2, np.floor_divide),
    "%": MapFunction("mod", 2, np.mod),
    "negative": MapFunction("neg", 1, np.negative),
    "max": MapFunction("max", None, _fold(np.maximum)),
    "min": MapFunction("min", None, _fold(np.minimum)),
    "exp": MapFunction("exp", 1, np.exp),
    "exp2": MapFunction("exp", 1, np.exp2),
    "log": MapFunction("log", 1, np.log),
    "log2": MapFunction("log", 1, np.log2),
    "sqrt": MapFunction("sqrt", 1, np.sqrt),
    "rsqrt": MapFunction("rsqrt", 1, lambda x: 1 / np.sqrt(x)),
    "abs": MapFunction("abs", 1, np.abs),
    "sign": MapFunction("sign", 1, np.sign),
    "round": MapFunction("round", 1, np.round),
    "floor": MapFunction("floor", 1, np.floor),
    "tanh": MapFunction("tanh", 1, np.tanh),
    "sigmoid": MapFunction("sigmoid", 1, _sigmoid),
    "relu": MapFunction("relu", 1, lambda x: np.maximum(x, 0)),
    "gelu": MapFunction("gelu", 1, _gelu),
    "silu": MapFunction("silu", 1, lambda x: x * _sigmoid(x)),
    "select": MapFunction("select", 3, lambda c, a, b: np.where(np.asarray(c) != 0, a, b)),
    "<": MapFunction("cmp", 2, np.less),
    "<=": MapFunction("cmp", 2, np.less_equal),
    ">": MapFunction("cmp", 2, np.greater),
    ">=": MapFunction("cmp", 2, np.greater_equal),
    "==": MapFunction("cmp", 2, np.equal),
    "!=": MapFunction("cmp", 2, np.not_equal),
}
"""Functions of a body by name. Comparisons give 1 or 0."""


@dataclass(frozen=True)
class Reduction:
    """kind: operation charged per point; identity: value over no points; ufunc: combines two values (None: top-k)."""

    kind: str
    identity: float
    ufunc: np.ufunc | None


REDUCTIONS: Mapping[str, Reduction] = {
    "sum": Reduction("add", 0.0, np.add),
    "prod": Reduction("mul", 1.0, np.multiply),
    "max": Reduction("max", -np.inf, np.maximum),
    "min": Reduction("min", np.inf, np.minimum),
    "any": Reduction("or", 0.0, np.maximum),
    "all": Reduction("and", 1.0, np.minimum),
    "topk": Reduction("topk", -1.0, None),
    "topk_values": Reduction("topk", -np.inf, None),
    "topk_mask": Reduction("topk", 0.0, None),
}
"""Reductions by name.

`IDX[p,r] = topk(j) S[p,j]` gives the coordinates j of the R largest values, largest first, ties by the smaller j, -1
where fewer than R points exist; `topk_values` gives the values; `KEEP[p,j] = topk_mask(j, k) S[p,j]` gives 1 at the k
largest and 0 elsewhere.
"""


def reads(body: Body) -> Iterator[Access]:
    """All accesses, from left to right."""
    if isinstance(body, Read):
        yield body.access
    elif isinstance(body, Map):
        for operand in body.operands:
            yield from reads(operand)


def symbols(body: Body) -> Iterator[str]:
    """All variables and ranks whose value is used."""
    if isinstance(body, Symbol):
        yield body.name
    elif isinstance(body, Map):
        for operand in body.operands:
            yield from symbols(operand)


def is_product(body: Body) -> bool:
    """Whether the body is a product of tensor elements and constants, whose missing indices are summed."""
    if isinstance(body, Map):
        return body.function == "*" and all(is_product(operand) for operand in body.operands)
    return True


def operations(body: Body, reduction: str | None) -> dict[str, int]:
    """Operations per iteration point by kind.

    A product that is summed is one `mac`. What needs no tensor element (`1/sqrt(E)`, `m - p`) is not charged.
    """
    counts: Counter[str] = Counter()
    _count(body, counts)
    if reduction is not None:
        kind = REDUCTIONS[reduction].kind
        multiplied = isinstance(body, Map) and body.function == "*" and any(True for _ in reads(body))
        if reduction == "sum" and multiplied:
            counts["mul"] -= 1
            kind = "mac"
        counts[kind] += 1
    return {kind: count for kind, count in counts.items() if count}


def _count(body: Body, counts: Counter[str]) -> None:
    if not isinstance(body, Map) or not any(True for _ in reads(body)):
        return
    function = MAPS[body.function]
    counts[function.kind] += 1 if function.arity is not None else len(body.operands) - 1
    for operand in body.operands:
        _count(operand, counts)
