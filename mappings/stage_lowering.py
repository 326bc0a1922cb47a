"""Lowering of a pipeline of stages over a trace: rows become tile classes, stages become steps of a tile program.

A tile is one query of one head. Rows in which everything that the stages read is equal make one class (two where
several queries share a head's keys: the first, which loads them, and the others). Rows that the pipeline's `serial`
columns tell apart make phases; phases of the same tiles are one phase that is repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from architectures import EvaluatedArchitecture
from einsum.cascade import Cascade
from einsum.errors import EinsightError, SpecError, nearest
from einsum.expressions import Expression, resolve
from mappings.movement import column
from mappings.program import Array, Phase, Resource, Stream, TileProgram
from mappings.stage_steps import RowError, StageLowering, same_classes, steps_at
from mappings.stages import StagePipeline
from workloads import HeadTrace

FIRST = "first_query"
"""Name of the flag of the tiles that are a head's first query."""


@dataclass(frozen=True)
class RowOrder:
    """The sequence of tile classes of a phase: row by row, head by head, the first query and then the others.

    first, other    class of a head's first query and of its other ones, (rows,)
    heads, queries  how many, (points, rows)
    """

    first: NDArray[np.intp]
    other: NDArray[np.intp]
    heads: Array
    queries: Array

    def __call__(self, point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
        """Class of each tile in execution order, or of the first `limit` tiles."""
        heads, queries = (values[point].astype(np.int64) for values in (self.heads, self.queries))
        if limit is not None:
            before = np.cumsum(heads * queries) - heads * queries
            left = np.maximum(limit - before, 0)
            heads = np.minimum(heads, -(-left // np.maximum(queries, 1)))
            queries = np.minimum(queries, limit)
        row = np.repeat(np.arange(heads.size), heads)
        classes = np.stack([self.first[row], self.other[row]], axis=1).reshape(-1)
        tiles = np.stack([np.ones_like(row), queries[row] - 1], axis=1).reshape(-1)
        return np.repeat(classes, tiles)[:limit].astype(np.int32)


def lower_trace(
    trace: HeadTrace,
    pipeline: StagePipeline,
    variables: Mapping[str, Expression],
    machine: EvaluatedArchitecture,
    settings: Mapping[str, Any],
    points: int,
    cascade: Cascade | None = None,
) -> TileProgram:
    """The tile program of a trace on an evaluated architecture, at `points` design points at once.

    variables   definitions of the mapping's variables: expressions of the trace's columns, the architecture's values
                and each other
    settings    values that replace variables: numbers, or arrays with one value per design point
    cascade     the algorithm; every Einsum must be computed by one stage

    SpecError for names that nobody defines, and for a row that does not meet the pipeline's requirements.
    """
    if cascade is not None:
        _check_complete(pipeline, cascade)
    rows = _Rows(trace, pipeline, variables, machine, settings, points)
    lowering = StageLowering(pipeline, machine, rows.classes_env(), (points, rows.classes))
    try:
        steps = lowering.steps()
    except RowError as error:
        wrong: NDArray[np.bool_] = np.asarray(error.wrong.any(axis=0))
        trace.refuse(wrong[rows.first] | wrong[rows.other], error.sentence.replace("{", "{{").replace("}", "}}"))
        raise
    rows.merge(same_classes(steps))
    phases = [
        Phase(
            name,
            (Stream(name, steps_at(steps, used), counts, order),),
            repeat=np.full(points, repeat, dtype=np.float64),
        )
        for name, used, counts, order, repeat in rows.phases()
    ]
    used_on = {stage.on for stage in pipeline.stages if stage.on is not None}
    return TileProgram(
        phases=tuple(phases),
        resources={name: Resource(name) for name in sorted(used_on)},
        points=points,
        energy_j={key: column(value) for key, value in machine.action_energies_j().items()},
        peak_per_s=lowering.peaks_per_s(),
        clock_hz=column(machine.clock_hz),
        area_m2=None if machine.area_m2 is None else column(machine.area_m2),
        assumptions=(*pipeline.assumptions, *_notes(pipeline, machine)),
    )


class _Rows:
    """The rows of a trace with the values of all names, the tile classes that they fall into, and their phases."""

    def __init__(
        self,
        trace: HeadTrace,
        pipeline: StagePipeline,
        variables: Mapping[str, Expression],
        machine: EvaluatedArchitecture,
        settings: Mapping[str, Any],
        points: int,
    ) -> None:
        self.trace, self.pipeline, self.points = trace, pipeline, points
        self.columns = {**trace.columns, **trace.layer_columns()}
        self.definitions = {name: value for name, value in variables.items() if name not in settings}
        given = {**machine.names(), **machine.variables, **settings}
        self.given = {name: column(value) if np.ndim(value) else value for name, value in given.items()}
        env = self._environment({**self.columns, FIRST: np.ones(len(trace))})
        self.first: NDArray[np.intp]
        self.other: NDArray[np.intp]
        self._require(env)
        self.heads = self._whole(pipeline.heads, env, "heads", 0)
        self.queries = self._whole(pipeline.queries, env, "queries", 1)
        self._classify()

    def classes_env(self) -> dict[str, Any]:
        """Values of all names at every class."""
        first = np.repeat([1.0, 0.0], [self.kinds, self.classes - self.kinds])
        chosen = {name: np.resize(cells[self.example], self.classes) for name, cells in self.columns.items()}
        return self._environment({**chosen, FIRST: first})

    def merge(self, stands_for: NDArray[np.intp]) -> None:
        """Put rows into the class that stands for theirs."""
        self.first, self.other = stands_for[self.first], stands_for[self.other]

    def phases(self) -> Iterator[tuple[str, NDArray[np.intp], Array, RowOrder, int]]:
        """(name, its classes, counts (points, classes), order, repetitions) of each phase, in the trace's order."""
        found: dict[tuple[bytes, bytes], list[Any]] = {}
        for name, rows in self._groups():
            first, other = self.first[rows], self.other[rows]
            heads, queries = self.heads[:, rows], self.queries[:, rows]
            appearing = np.stack([first, other], axis=1).reshape(-1)
            used = appearing[np.sort(np.unique(appearing, return_index=True)[1])]
            place = np.empty(self.classes, dtype=np.intp)
            place[used] = np.arange(used.size)
            counts = np.zeros((self.points, used.size))
            np.add.at(counts.T, place[first], heads.T)
            np.add.at(counts.T, place[other], (heads * (queries - 1)).T)
            ranked = np.argsort(used)
            key = (used[ranked].tobytes(), counts[:, ranked].tobytes())
            if key in found:
                found[key][-1] += 1
            else:
                found[key] = [name, used, counts, RowOrder(place[first], place[other], heads, queries), 1]
        for name, used, counts, order, repeat in found.values():
            yield name, used, counts, order, repeat

    def _groups(self) -> Iterator[tuple[str, NDArray[np.intp]]]:
        """Rows that run together, named by their values in the serial columns."""
        unknown = next((name for name in self.pipeline.serial if name not in self.columns), None)
        if unknown is not None:
            raise SpecError(f"unknown column '{unknown}'{nearest(unknown, self.columns)}", key="pipeline.serial")
        if not self.pipeline.serial:
            yield "trace", np.arange(len(self.trace))
            return
        table = np.stack([self.columns[name] for name in self.pipeline.serial], axis=1)
        values, start, group = np.unique(table, axis=0, return_index=True, return_inverse=True)
        members = np.split(np.argsort(group.reshape(-1), kind="stable"), np.cumsum(np.bincount(group.reshape(-1)))[:-1])
        for index in np.argsort(start):
            named = zip(self.pipeline.serial, values[index], strict=True)
            yield ", ".join(f"{name} {value:g}" for name, value in named), members[index]

    def _classify(self) -> None:
        """Rows that agree in every column that a stage reads fall into one class."""
        read = sorted(_closure(_stage_expressions(self.pipeline), self.definitions) & self.columns.keys())
        table = np.stack([self.columns[name] for name in read] or [np.zeros(len(self.trace))], axis=1)
        _values, self.example, kind = np.unique(table, axis=0, return_index=True, return_inverse=True)
        self.kinds = len(self.example)
        shared = bool((self.queries > 1).any())
        self.classes = self.kinds * 2 if shared else self.kinds
        self.first = kind.reshape(-1)
        self.other = self.first + self.kinds if shared else self.first

    def _environment(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        given = {**self.given, **{name: np.asarray(cells)[np.newaxis, :] for name, cells in columns.items()}}
        clash = self.definitions.keys() & columns.keys()
        if clash:
            raise SpecError(f"the variable '{min(clash)}' has the name of a column of the trace", key="variables")
        try:
            return resolve(self.definitions, given)
        except EinsightError as error:
            raise error.located(key="variables") from None

    def _require(self, env: Mapping[str, Any]) -> None:
        shape = (self.points, len(self.trace))
        for place, requirement in enumerate(self.pipeline.require):
            key = f"pipeline.require[{place}]"
            try:
                holds = np.broadcast_to(np.asarray(requirement.that.evaluate(env)), shape)
            except EinsightError as error:
                raise error.located(key=f"{key}.that") from None
            wrong = ~holds.astype(bool)
            if wrong.any():
                point = int(np.argmax(wrong.any(axis=1)))
                row = int(np.argmax(wrong[point]))
                shown = {
                    name: f"{np.broadcast_to(np.asarray(value), shape)[point, row]:.12g}"
                    for name, value in env.items()
                    if "{" + name + "}" in requirement.otherwise
                }
                sentence = requirement.otherwise
                for name, text in shown.items():
                    sentence = sentence.replace("{" + name + "}", text)
                raise SpecError(f"row {row + 1}: {sentence}", file=self.trace.file)

    def _whole(self, expression: Expression, env: Mapping[str, Any], key: str, least: int) -> Array:
        """Numbers of tiles, (points, rows); SpecError names the first row where one is no whole number."""
        try:
            found = np.asarray(expression.evaluate(env), dtype=np.float64)
        except EinsightError as error:
            raise error.located(key=key) from None
        spread = np.broadcast_to(found, (self.points, len(self.trace)))
        wrong = ~((spread >= least) & (spread % 1 == 0)).all(axis=0)
        self.trace.refuse(wrong, f"{key} '{expression}' must be a whole number of at least {least}")
        return spread


def _stage_expressions(pipeline: StagePipeline) -> Iterator[Expression]:
    for stage in pipeline.stages:
        yield from (each for each in (stage.when, stage.latency) if each is not None)
        yield from stage.ops.values()
        yield from stage.after.values()
        if stage.select is not None:
            yield from (stage.select.source, stage.select.keep)
        for tensors in stage.moves.values():
            for move in tensors.values():
                yield from (move.read, move.write, move.pieces)


def _closure(expressions: Iterable[Expression], definitions: Mapping[str, Expression]) -> set[str]:
    """All names that the values of expressions depend on."""
    found: set[str] = set()
    waiting = [name for expression in expressions for name in expression.names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += definitions[name].names if name in definitions else ()
    return found


def _check_complete(pipeline: StagePipeline, cascade: Cascade) -> None:
    computed = [name for stage in pipeline.stages for name in stage.computes]
    known = [einsum.name for einsum in cascade.einsums]
    for place, stage in enumerate(pipeline.stages):
        for name in stage.computes:
            if name not in known:
                hint = nearest(name, known)
                raise SpecError(f"unknown Einsum '{name}'{hint}", key=f"pipeline.stages[{place}].computes")
    missing = next((name for name in known if name not in computed), None)
    if missing is not None:
        raise SpecError(f"no stage computes {missing} of cascade '{cascade.name}'", key="pipeline")


def _notes(pipeline: StagePipeline, machine: EvaluatedArchitecture) -> tuple[str, ...]:
    notes = []
    for name in dict.fromkeys(stage.on for stage in pipeline.stages if stage.select is not None):
        engine = machine.selectors[str(name)]
        values = "distinct values"
        if engine.score_deviation is not None:
            bits, deviation = (f"{np.ravel(each)[0]:g}" for each in (engine.value_bits, engine.score_deviation))
            values = f"probabilities in {bits} bits, the softmax of normal scores of deviation {deviation}"
        notes.append(f"{name} takes the mean time of its algorithm over random orders of {values}")
    if pipeline.serial:
        notes.append(
            f"rows that differ in {', '.join(pipeline.serial)} do not overlap; the order of alike ones is free"
        )
    return tuple(notes)
