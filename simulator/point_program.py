"""Point programs: what the lowering and the analytic evaluator do, as one list of operations over design points.

Lowering and evaluator run once on symbols (`einsum.symbols`) instead of numbers; what they compute for the results that
are asked for becomes a `PointProgram`, which then serves any number of points at a millionth of a second or so each.
There is no second model behind it: a program repeats the operations of `simulate`, in the same order, and gives the
same numbers. It holds for the points that answer every question of the code as its sample points did (is a tile
ragged, does a buffer overflow, ...) and says which these are; others, and all that fail, are left to `simulate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.symbols import MARK, Constant, Graph, Symbol, Untraceable

Cells = NDArray[Any]


@dataclass(frozen=True)
class Failure:
    """Why no point of a program can be evaluated: one sentence, with numbers of the point in it.

    parts    texts around the numbers, one more than there are numbers
    numbers  output and format of each number
    """

    parts: tuple[str, ...]
    numbers: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, sentence: str, graph: Graph) -> tuple[Failure, dict[str, Symbol]]:
        """From a sentence with marks, and the symbols behind them by output. Raises Untraceable for an unusable one."""
        parts = sentence.split(MARK)
        if "?" in parts[1::2]:
            raise Untraceable("a text holds a symbol that has no form")
        marks = [int(part) for part in parts[1::2]]
        numbers = tuple((f"mark {mark}", graph.marks[mark][1]) for mark in marks)
        return cls(tuple(parts[::2]), numbers), {f"mark {mark}": graph.marks[mark][0] for mark in marks}

    def sentences(self, results: Mapping[str, Cells], points: int) -> list[str]:
        """The sentence for each point."""
        columns = [[format(value, form) for value in results[name].tolist()] for name, form in self.numbers]
        rows = zip(*columns, strict=True) if columns else [()] * points
        return ["".join(chain.from_iterable(zip(self.parts, (*row, ""), strict=True))) for row in rows]


@dataclass(frozen=True)
class PointProgram:
    """Operations over design points.

    inputs     names of the inputs, in order
    outputs    name of a result -> its place among the outputs
    constants  name of a result that is the same at all points -> its value
    texts      texts, which the operations see as their places in this list
    worded     outputs that are places of texts
    code       (operations, 5), see `point_engine.run`
    registers  numbers in registers beforehand: those of the operations' constants; (registers,)
    failure    why its points cannot be evaluated; None when they can
    """

    inputs: tuple[str, ...]
    outputs: Mapping[str, int]
    constants: Mapping[str, Constant]
    texts: tuple[str, ...]
    worded: frozenset[str]
    code: NDArray[np.int32]
    registers: NDArray[np.float64]
    failure: Failure | None = None

    def run(self, inputs: Mapping[str, Cells], points: int) -> tuple[dict[str, Cells], NDArray[np.bool_]]:
        """Results by name at some points, (points,) each, and the points at which they hold."""
        from simulator import point_engine

        holds = np.ones(points, dtype=np.bool_)
        rows = np.empty((len(self.inputs), points))
        for place, name in enumerate(self.inputs):
            rows[place] = self._numbers(inputs[name])
        known = ~np.isnan(rows).any(axis=0)
        found = np.empty((len(self.outputs), points))
        registers = np.repeat(self.registers[:, None], point_engine.BLOCK, axis=1)
        point_engine.run(self.code, registers, rows, found, holds)
        holds &= known
        results: dict[str, Cells] = {name: np.full(points, value) for name, value in self.constants.items()}
        for name, place in self.outputs.items():
            if name in self.worded:
                results[name] = np.array(self.texts)[np.where(holds, found[place], 0).astype(np.intp)]
            else:
                results[name] = found[place]
        return results, holds

    def _numbers(self, cells: Cells) -> Cells:
        """An input as numbers; NaN for a text that the program does not know."""
        if cells.dtype.kind in "biuf":
            return cells
        places = {text: float(place) for place, text in enumerate(self.texts)}
        return np.array([places.get(text, np.nan) for text in cells.tolist()])


def compile_graph(graph: Graph, inputs: Sequence[str], results: Mapping[str, Any]) -> PointProgram:
    """The program that gives some results of a graph: arrays of one symbol or constant each, by name.

    `inputs` names the graph's inputs in the order in which they were made; they come first among its operations.
    """
    elements = {name: np.asarray(value, dtype=object).reshape(-1)[0] for name, value in results.items()}
    made = {name: element for name, element in elements.items() if isinstance(element, Symbol)}
    return _Compiler(graph, inputs, made).program(
        {name: element for name, element in elements.items() if not isinstance(element, Symbol)}
    )


_SWAPPED = {"greater": "less", "greater_equal": "less_equal"}


class _Compiler:
    """Turns the operations that outputs and requirements need into code, with as few registers as it takes."""

    def __init__(self, graph: Graph, inputs: Sequence[str], made: Mapping[str, Symbol]) -> None:
        self._graph = graph
        self._inputs = tuple(inputs)
        self._outputs = made
        self._needed = sorted(_needed(graph, [symbol.index for symbol in made.values()]))
        self._last_use = self._uses()
        self._texts: dict[str, int] = {}
        self._constants: dict[float, int] = {}
        self._code: list[tuple[int, int, int, int, int]] = []
        self._register: dict[int, int] = {}
        self._free: set[int] = set()
        self._count = 0

    def program(self, constants: Mapping[str, Constant]) -> PointProgram:
        """The finished program; `constants` are results that need none."""
        for index in self._needed:
            for operand in self._graph.operations[index].operands:
                if not isinstance(operand, Symbol):
                    self._constant(operand)
        places: dict[int, list[int]] = {}
        for place, symbol in enumerate(self._outputs.values()):
            places.setdefault(symbol.index, []).append(place)
        for index in self._needed:
            self._operate(index)
            if index in self._graph.required:
                self._emit("true" if self._graph.required[index] else "false", 0, self._register[index])
            for place in places.get(index, ()):
                self._emit("output", place, self._register[index])
            self._release(index, index)
        registers = np.zeros(self._count)
        for value, register in self._constants.items():
            registers[register] = value
        worded = frozenset(name for name, symbol in self._outputs.items() if symbol.values.dtype.kind == "U")
        outputs = {name: place for place, name in enumerate(self._outputs)}
        code = np.array(self._code, dtype=np.int32).reshape(-1, 5)
        return PointProgram(self._inputs, outputs, dict(constants), tuple(self._texts), worded, code, registers)

    def _uses(self) -> dict[int, int]:
        """The last operation that reads each symbol; itself when none does."""
        last = {index: index for index in self._needed}
        for index in self._needed:
            for operand in self._graph.operations[index].operands:
                if isinstance(operand, Symbol):
                    last[operand.index] = index
        return last

    def _operate(self, index: int) -> None:
        operation = self._graph.operations[index]
        name, operands = operation.name, operation.operands
        if name in _SWAPPED:
            name, operands = _SWAPPED[name], operands[::-1]
        # A result never lies in a register that is read for it: the loop over the points could not be vectorised.
        own = self._take()
        self._register[index] = own
        if name == "input":
            self._emit(name, own, index)
        else:
            self._emit(name, own, *(self._place(operand) for operand in operands))
        for operand in operands:
            if isinstance(operand, Symbol):
                self._release(operand.index, index)

    def _place(self, operand: Symbol | Constant) -> int:
        return self._register[operand.index] if isinstance(operand, Symbol) else self._constant(operand)

    def _constant(self, value: Constant) -> int:
        number = float(self._texts.setdefault(value, len(self._texts)) if isinstance(value, str) else value)
        if number not in self._constants:
            self._constants[number] = self._take()
        return self._constants[number]

    def _take(self) -> int:
        if self._free:
            return self._free.pop()
        self._count += 1
        return self._count - 1

    def _release(self, index: int, at: int) -> None:
        register = self._register[index]
        if self._last_use[index] == at:
            self._free.add(register)

    def _emit(self, name: str, result: int, *operands: int) -> None:
        from simulator.point_engine import CODE

        first, second, third = (*operands, 0, 0, 0)[:3]
        self._code.append((CODE[name], result, first, second, third))


def _needed(graph: Graph, wanted: Iterable[int]) -> set[int]:
    """The operations that some symbols and all requirements need."""
    found: set[int] = set()
    pending = [*wanted, *graph.required]
    while pending:
        index = pending.pop()
        if index not in found:
            found.add(index)
            pending += [o.index for o in graph.operations[index].operands if isinstance(o, Symbol)]
    return found
