"""Symbolic design points: arrays that remember the operations behind their values.

Code that evaluates design points with NumPy runs once on `Symbols` in place of numbers and leaves behind a `Graph` of
all that it computed, every common part once. The graph then serves any number of points without running that code
again. Each symbol also has its value at some sample points; where code asks whether `any` or `all` values satisfy
something, these decide, and the graph notes what has to hold at other points for the same answer (`Graph.required`).
At a point that meets the requirements the graph so gives exactly what the code would give for the sample and that point
together. A symbol that is put into a text, such as that of an error, leaves a mark there (`Graph.marks`). What cannot
be followed, such as a symbol used as a plain number, raises `Untraceable` or a TypeError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

Constant = float | bool | str
MARK = "\0"
"""Stands before and behind the number of a mark in a text."""


class Untraceable(Exception):
    """An operation that a graph cannot hold."""


class Undecided(Exception):
    """The sample points differ where the course of the computation depends on them: they have to be told apart."""

    def __init__(self, values: NDArray[np.bool_]) -> None:
        super().__init__("the sample points take different courses")
        self.values = values


@dataclass(frozen=True)
class Operation:
    """What made a symbol: a NumPy function by name, or `input`, and the operands."""

    name: str
    operands: tuple[Symbol | Constant, ...]


class Symbol:
    """One value of a graph: `index` says which operation made it, `values` what it is at the sample points."""

    __slots__ = ("graph", "index", "values")

    def __init__(self, graph: Graph, index: int, values: NDArray[Any]) -> None:
        self.graph, self.index, self.values = graph, index, values

    @property
    def boolean(self) -> bool:
        """Whether it is a truth value."""
        return bool(self.values.dtype == np.bool_)

    def __bool__(self) -> bool:
        """What it is at all sample points, and has to be at others. Raises Undecided where they differ."""
        truths = self.values != 0
        if truths.all() != truths.any():
            raise Undecided(truths)
        self.graph.require(self, bool(truths.all()))
        return bool(truths.all())

    def __lt__(self, other: Any) -> Any:
        return self.graph.apply("less", self, other)

    def __gt__(self, other: Any) -> Any:
        return self.graph.apply("greater", self, other)

    def __eq__(self, other: object) -> bool:
        raise Untraceable("a symbol is compared outside its array")

    def __format__(self, form: str) -> str:
        return self.graph.mark(self, form)

    def __repr__(self) -> str:
        return f"{MARK}?{MARK}"  # no text in which it stands can be used

    def __hash__(self) -> int:
        return hash(self.index)


class Graph:
    """Operations in the order of their computation, each distinct one once.

    required  symbol's index -> whether it has to be true (not 0) or false at a point for the graph to hold there
    marks     symbols in texts, each with its format
    answer    the values of the last question, whether it was for all of them, and the answer
    """

    def __init__(self) -> None:
        self.answer: tuple[Sequence[Symbol | Constant], bool, bool] = ((), True, True)
        self.marks: list[tuple[Symbol, str]] = []
        self.operations: list[Operation] = []
        self.required: dict[int, bool] = {}
        self._known: dict[tuple[Any, ...], Symbol] = {}

    def input(self, samples: NDArray[Any]) -> Symbols:
        """A new input with its values at the sample points."""
        values = np.asarray(samples)
        values = values if values.dtype.kind in "bU" else values.astype(np.float64)
        symbol = Symbol(self, len(self.operations), values)
        self.operations.append(Operation("input", ()))
        array: Symbols = _symbols([symbol], (1,))
        return array

    def apply(self, name: str, *operands: Symbol | Constant) -> Symbol | Constant:
        """The value of a function of numbers; a constant when all operands are."""
        if not any(isinstance(operand, Symbol) for operand in operands):
            return _plain(_FUNCTIONS[name](*operands))
        simple = _simplified(name, operands)
        if simple is not None:
            return simple
        key = (name, *(o.index if isinstance(o, Symbol) else (o, type(o)) for o in operands))
        found = self._known.get(key)
        if found is None:
            with np.errstate(all="ignore"):
                values = np.asarray(_FUNCTIONS[name](*(o.values if isinstance(o, Symbol) else o for o in operands)))
            found = self._known[key] = Symbol(self, len(self.operations), values)
            self.operations.append(Operation(name, tuple(operands)))
        return found

    def require(self, symbol: Symbol, value: bool) -> None:
        """Note what has to hold at a point."""
        if self.required.setdefault(symbol.index, value) != value:
            raise Untraceable("a condition is required to hold and not to hold")

    def pin_answer(self) -> None:
        """Require the answer to the last question of each point alone. Raises Undecided where sample points differ."""
        row, every, _ = self.answer
        if row:
            bool(reduce(lambda a, b: self.apply("logical_and" if every else "logical_or", a, b), row))

    def mark(self, symbol: Symbol, form: str) -> str:
        """What stands for a symbol in a text: the number of its mark."""
        self.marks.append((symbol, form))
        return f"{MARK}{len(self.marks) - 1}{MARK}"


def _plain(value: Any) -> Constant:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    return str(value) if isinstance(value, str) or np.asarray(value).dtype.kind == "U" else float(value)


def _simplified(name: str, operands: Sequence[Symbol | Constant]) -> Symbol | Constant | None:
    """An operand that the operation leaves as it is, bit for bit; None when there is none."""
    first = operands[0]
    if name == "where":
        condition, taken, other = operands
        if isinstance(condition, Symbol):
            return taken if _same(taken, other) else None
        return taken if condition else other
    if name == "float":
        return first if isinstance(first, Symbol) and not first.boolean else None
    if len(operands) < 2:
        return None
    second = operands[1]
    if name in ("minimum", "maximum") and _same(first, second):
        return first
    for own, other in ((first, second), (second, first)):
        if not isinstance(own, Symbol) or isinstance(other, Symbol):
            continue
        if name in ("logical_and", "logical_or") and own.boolean:
            return own if bool(other) is (name == "logical_and") else _plain(other)
        if own.boolean:
            continue
        if (name == "multiply" and other == 1) or (name == "add" and other == 0):
            return own
        if own is first and ((name == "divide" and other == 1) or (name == "subtract" and other == 0)):
            return own
    return None


def _same(first: Symbol | Constant, second: Symbol | Constant) -> bool:
    if isinstance(first, Symbol) or isinstance(second, Symbol):
        return first is second
    return first == second and isinstance(first, bool) == isinstance(second, bool)


class Symbols(np.ndarray[Any, Any]):
    """An array of symbols and constants, for one design point: its first axis has length 1.

    Code sees an array of floats, of truth values or of text. NumPy's own copies of it (`np.asarray`) are arrays of
    objects with which nothing can be computed by mistake.
    """

    @property
    def dtype(self) -> Any:
        """float64, bool or that of text."""
        first = next(iter(self.view(np.ndarray).flat), 0.0)
        return first.values.dtype if isinstance(first, Symbol) else np.asarray(first).dtype

    def astype(self, kind: Any, *_: Any, **__: Any) -> Any:  # type: ignore[override]
        """The same values; only floats can be asked for."""
        if np.dtype(kind) != np.float64:
            raise Untraceable(f"symbols have no form as {kind}")
        return _elementwise("float", self)

    def __bool__(self) -> bool:
        return bool(self.item())

    def __format__(self, form: str) -> str:
        return format(self.item(), form)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if any(part is not None for part in options.get("out") or ()):
            raise Untraceable("a symbol cannot be written into an array of numbers")
        name = _UFUNCS.get(ufunc.__name__)
        if name is None or method not in ("__call__", "reduce"):
            raise Untraceable(f"the function {ufunc.__name__} cannot be followed")
        if method == "__call__":
            return _elementwise(name, *inputs)
        axis, keepdims = options.get("axis", 0), bool(options.get("keepdims", False))
        return _reduced(name, inputs[0], axis, keepdims)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        handler = _HANDLERS.get(function.__name__)
        if handler is not None:
            return handler(*args, **kwargs)
        if function.__name__ not in _STRUCTURAL:
            raise Untraceable(f"the function {function.__name__} cannot be followed")
        return _wrapped(super().__array_function__(function, types, args, kwargs))


def _symbols(elements: Sequence[Any], shape: tuple[int, ...]) -> Any:
    """Elements as an array: of symbols, or of plain numbers where all are constant."""
    if not any(isinstance(element, Symbol) for element in elements):
        kind = type(elements[0]) if elements and isinstance(elements[0], bool | str) else float
        return np.array(elements, dtype=kind).reshape(shape)
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape).view(Symbols)


def _objects(value: Any) -> NDArray[np.object_]:
    return np.asarray(value, dtype=object).view(np.ndarray)


def _wrapped(result: Any) -> Any:
    if isinstance(result, tuple | list):
        return type(result)(_wrapped(part) for part in result)
    plain = isinstance(result, np.ndarray) and not isinstance(result, Symbols)
    return result.view(Symbols) if plain and result.dtype.kind == "O" else result


def _graph(elements: Sequence[Any]) -> Graph:
    found = next((element.graph for element in elements if isinstance(element, Symbol)), None)
    if found is None:
        return Graph()  # constants only: nothing is recorded
    assert isinstance(found, Graph)
    return found


def _elementwise(name: str, *inputs: Any) -> Any:
    arrays = np.broadcast_arrays(*map(_objects, inputs))
    columns = [array.ravel().tolist() for array in arrays]
    graph = _graph([element for column in columns for element in column])
    return _symbols([graph.apply(name, *each) for each in zip(*columns, strict=True)], arrays[0].shape)


def _reduced(name: str, value: Any, axis: Any, keepdims: bool) -> Any:
    array = _objects(value)
    if axis is None:
        array, shape = array.reshape(1, -1), (1,) * array.ndim if keepdims else ()
    else:
        place = axis[0] if isinstance(axis, tuple) else axis
        array = np.moveaxis(array, place, -1)
        shape = np.expand_dims(array[..., 0], place).shape if keepdims else array.shape[:-1]
        array = array.reshape(-1, array.shape[-1])
    rows = array.tolist()
    if name in ("logical_or", "logical_and"):
        decided = [_decided(name == "logical_and", row) for row in rows]
        return np.array(decided).reshape(shape) if shape else decided[0]
    graph = _graph([element for row in rows for element in row])
    return _symbols([reduce(lambda a, b: graph.apply(name, a, b), row) for row in rows], shape)


def _decided(every: bool, row: Sequence[Any]) -> bool:
    """Whether all (or any) of some values are true at all (or any) sample points, noting what that requires of others.

    With a value that decides already, further points change nothing.
    """
    truths = [bool(e.values.all() if every else e.values.any()) for e in row if isinstance(e, Symbol)]
    truths += [bool(element) for element in row if not isinstance(element, Symbol)]
    decided = all(truths) if every else any(truths)
    if decided is every:
        for element in row:
            if isinstance(element, Symbol):
                element.graph.require(element, every)
    _graph(row).answer = (row, every, bool(decided))
    return bool(decided)


def chosen(table: Any, index: Any) -> Any:
    """`table[index]` along the first axis of a table, where the index may be symbols."""
    if not isinstance(index, Symbols):
        return as_array(table)[as_index(index)]
    result = table[-1]
    for place in reversed(range(len(table) - 1)):
        result = np.where(index == place, table[place], result)
    return result


def labelled(names: Sequence[str], index: Any) -> NDArray[np.str_]:
    """The name of each index, which may be symbols."""
    if not isinstance(index, Symbols):
        return np.array(names)[as_index(index)]
    result: Any = names[-1]
    for place in reversed(range(len(names) - 1)):
        result = np.where(index == place, names[place], result)
    return np.broadcast_to(result, np.shape(index))


def _take_along_axis(values: Any, indices: Any, axis: int) -> Any:
    if axis != 1:
        raise Untraceable("symbols are taken along the second axis only")
    if not isinstance(indices, Symbols):
        return _wrapped(np.take_along_axis(_objects(values), np.asarray(indices), axis=1))
    columns = [_symbols(_objects(values)[:, [place]].ravel().tolist(), (-1, 1)) for place in range(np.shape(values)[1])]
    return np.broadcast_to(chosen(columns, indices), np.shape(indices))


def _argmax(values: Any, axis: int | None = None) -> Any:
    """The first true value along the first axis."""
    if np.size(values) == 1:
        return 0
    if axis != 0 or values.dtype != np.bool_:
        raise Untraceable("only the first true value along the first axis can be found")
    result: Any = 0.0
    for place in reversed(range(len(values))):
        result = np.where(values[place], float(place), result)
    return result


def _where(condition: Any, taken: Any, other: Any) -> Any:
    return _elementwise("where", condition, taken, other)


_HANDLERS: dict[str, Callable[..., Any]] = {
    "where": _where,
    "take_along_axis": _take_along_axis,
    "argmax": _argmax,
    "ones_like": lambda value: np.ones(np.shape(value)),
    "zeros_like": lambda value: np.zeros(np.shape(value)),
    "round": lambda value: _elementwise("rint", value),
}

_STRUCTURAL = frozenset(
    {"any", "all", "sum", "max", "min", "amax", "amin", "prod", "shape", "size", "ndim", "broadcast_to", "stack",
     "broadcast_arrays", "concatenate", "reshape", "ravel", "repeat", "expand_dims", "squeeze", "moveaxis", "copy",
     "column_stack", "split", "array_split",
     "swapaxes"}
)  # fmt: skip

_UFUNCS = {
    "add": "add", "subtract": "subtract", "multiply": "multiply", "divide": "divide", "true_divide": "divide",
    "floor_divide": "floor_divide", "remainder": "remainder", "power": "power", "negative": "negative",
    "absolute": "absolute", "minimum": "minimum", "maximum": "maximum", "ceil": "ceil", "floor": "floor",
    "rint": "rint", "sqrt": "sqrt", "log2": "log2", "less": "less", "less_equal": "less_equal", "greater": "greater",
    "greater_equal": "greater_equal", "equal": "equal", "not_equal": "not_equal", "logical_and": "logical_and",
    "bitwise_and": "logical_and", "logical_or": "logical_or", "bitwise_or": "logical_or", "invert": "logical_not",
    "logical_not": "logical_not", "isfinite": "isfinite",
}  # fmt: skip
"""NumPy's functions -> the operations of a graph."""

_FUNCTIONS: dict[str, Callable[..., Any]] = {name: getattr(np, name) for name in set(_UFUNCS.values())}
_FUNCTIONS |= {"where": np.where, "float": lambda value: np.asarray(value, dtype=np.float64)}


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of arrays of numbers, elementwise, take symbols too; it becomes an operation of its own name."""
    name = function.__name__.lstrip("_")
    _FUNCTIONS[name] = function

    def applied(*values: Any) -> Any:
        if any(isinstance(value, Symbols) for value in values):
            return _elementwise(name, *values)
        return function(*values)

    return applied


def as_array(value: Any) -> NDArray[Any]:
    """`np.asarray` that leaves symbols as they are."""
    return value if isinstance(value, Symbols) else np.asarray(value)


def as_index(value: Any) -> NDArray[np.intp]:
    """Whole numbers as indices, leaving symbols as they are."""
    return value if isinstance(value, Symbols) else np.asarray(value).astype(np.intp)


def as_floats(value: Any) -> NDArray[np.float64]:
    """`np.asarray` as floats that leaves symbols as they are."""
    return value.astype(np.float64) if isinstance(value, Symbols) else np.asarray(value, dtype=np.float64)
