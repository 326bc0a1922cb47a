"""Finding the point programs of a design: each by running the simulation once on symbols."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.errors import EinsightError
from einsum.symbols import Graph, Symbols, Undecided, Untraceable
from mappings.lowering import needs_single_points
from mappings.nest import StructureVaries
from simulator.analytic import evaluate
from simulator.point_program import Failure, PointProgram, compile_graph
from simulator.result import result_values
from simulator.simulate import Design, build_program, runs_in_blocks, split_by_structure, with_linear_layers

SAMPLES = 256
"""Sample points of a program at most: the more there are, the more questions they answer differently."""
LEFT = 1e-3
"""The share of a design's points that may be left without a program."""


def point_programs(
    chosen: Design, names: Collection[str], end_to_end: bool = False, most: int = 32
) -> tuple[PointProgram, ...]:
    """Programs, at most so many, that give the results of these names at (nearly) all points of a design.

    A point belongs to the first program that holds for it. None are found for a mapping that is no nest, for one in
    thread blocks of a GPU, under a mask, and where the simulation does with a value what cannot be followed.
    """
    if not chosen.mapping.nest or needs_single_points(chosen.cascade) or runs_in_blocks(chosen):
        return ()
    programs: list[PointProgram] = []
    rest = np.arange(chosen.points)
    for _ in range(most):
        if len(rest) <= LEFT * chosen.points:
            break
        samples = rest[np.unique(np.linspace(0, len(rest) - 1, SAMPLES).astype(np.intp))]
        program, used = _traced(chosen.at(samples), names, end_to_end)
        if program is None:
            rest = np.setdiff1d(rest, samples[used])
            continue
        _, holds = program.run({name: chosen.settings[name][rest] for name in program.inputs}, len(rest))
        programs.append(program)
        rest = np.setdiff1d(rest[~holds], samples[used])
    return tuple(programs)


def _traced(samples: Design, names: Collection[str], end_to_end: bool) -> tuple[PointProgram | None, NDArray[np.intp]]:
    """The program of some sample points, or of those among them that take the same course, and which these are."""
    used = np.arange(samples.points)
    inputs = [name for name, value in samples.settings.items() if np.ndim(value) > 0]
    while True:
        graph, chosen = Graph(), samples.at(used)
        try:
            return _trace(chosen, inputs, names, end_to_end, graph), used
        except Undecided as undecided:
            values = np.broadcast_to(undecided.values, used.shape)
            used = used[_larger([np.flatnonzero(values), np.flatnonzero(~values)])]
        except StructureVaries as varies:
            used = used[_larger(split_by_structure(chosen, varies))]
        # NumPy refuses what symbols cannot do with these; arrays take over, and a mistake of the user shows there.
        except (Untraceable, TypeError, ValueError, IndexError, AttributeError, NotImplementedError):
            return None, used


def _trace(chosen: Design, inputs: list[str], names: Collection[str], end_to_end: bool, graph: Graph) -> PointProgram:
    symbols: dict[str, Any] = {name: graph.input(np.asarray(chosen.settings[name])) for name in inputs}
    symbolic = replace(chosen, settings={**chosen.settings, **symbols})
    try:
        program = build_program(symbolic)
        if end_to_end:
            program = with_linear_layers(program, symbolic)
        values = result_values(evaluate(program))
    except EinsightError as error:
        # Some sample point fails, perhaps not all: the last question that the code asked is why.
        graph.pin_answer()
        return _failing(error, inputs, graph)
    if not values.keys() >= set(names):
        raise Untraceable("the design has not all of the results")
    return compile_graph(graph, inputs, {name: values[name] for name in names})


def _failing(error: EinsightError, inputs: list[str], graph: Graph) -> PointProgram:
    """The program of points that all fail with one error."""
    failure, numbers = Failure.of(str(error), graph)
    program = compile_graph(graph, inputs, {name: _single(symbol) for name, symbol in numbers.items()})
    return replace(program, failure=failure)


def _single(symbol: object) -> Any:
    array = np.empty(1, dtype=object)
    array[0] = symbol
    return array.view(Symbols)


def _larger(groups: list[NDArray[np.intp]]) -> NDArray[np.intp]:
    return max(groups, key=len)
