"""Lowering of a plan: phases become streams of tiles, stages become their steps.

A phase's tile classes are the values of its series, such as all lengths of a context, or those that the rows of a trace
fall into; all else is the same for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from architectures import EvaluatedArchitecture
from einsum.cascade import Cascade
from einsum.errors import EinsightError, SpecError, nearest
from einsum.expressions import Expression, closed, resolve
from mappings.device_steps import tile_steps
from mappings.movement import column
from mappings.plan import PhasePlan, PlanPhase
from mappings.program import Array, Footprint, Phase, Resource, Step, Stream, TileProgram
from mappings.stage_steps import RowError, steps_at
from mappings.tile_group import TileGroup
from mappings.trace_classes import FIRST, TraceClasses, trace_columns
from workloads import HeadTrace

MOST_VALUES = 10_000_000
"""Values of a series, times design points, that are kept in memory at once."""


@dataclass(frozen=True)
class SeriesOrder:
    """Tiles value by value: `tiles` of each class, (points, classes)."""

    tiles: Array

    def __call__(self, point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
        """Class of each tile in execution order, or of the first `limit` tiles."""
        counts = self.tiles[point].astype(np.int64)
        if limit is not None:
            counts = np.clip(limit - (np.cumsum(counts) - counts), 0, counts)
        return np.repeat(np.arange(counts.size, dtype=np.int32), counts)


def lower_plan(
    plan: PhasePlan,
    cascade: Cascade | None,
    machine: EvaluatedArchitecture,
    definitions: Mapping[str, Expression],
    given: Mapping[str, Any],
    points: int,
    trace: HeadTrace | None = None,
) -> TileProgram:
    """The tile program of a plan on an evaluated architecture, at `points` design points at once.

    cascade      the algorithm; every Einsum must be computed by a stage
    definitions  variables as expressions of each other, of `given`, of a phase's series and of the trace's columns
    given        values of sizes and settings: numbers, text, or arrays with one value per design point
    trace        the rows of the phases that take their tiles from a trace

    SpecError for names that nobody defines, and for a row that does not meet the plan's requirements.
    """
    if cascade is not None:
        _check_complete(plan, cascade)
    if plan.traced and trace is None:
        raise SpecError("a phase takes its tiles from the rows of a trace, and there is none", key="plan.phases")
    values = {name: column(value) if np.ndim(value) else value for name, value in given.items()}
    _check_names(plan, definitions, values, trace)
    phases: list[Phase] = []
    peaks: dict[str, Array] = {}
    for place, phase in enumerate(plan.phases):
        try:
            lowered, shares = _phases(phase, machine, definitions, values, points, trace)
        except EinsightError as error:
            inside = error.file is None or error.key is not None  # else a row of the trace
            raise error.located(key=f"plan.phases[{place}]") if inside else error from None
        phases += lowered
        peaks.update(shares)
    streams = [stream for phase in phases for stream in phase.streams]
    used = sorted({step.resource for stream in streams for step in stream.steps if step.resource is not None})
    return TileProgram(
        phases=tuple(phases),
        resources={name: Resource(name) for name in used},
        points=points,
        energy_j={key: column(value) for key, value in machine.action_energies_j().items()},
        peak_per_s={name: peak for name, peak in peaks.items() if name in used},
        clock_hz=column(machine.clock_hz),
        area_m2=None if machine.area_m2 is None else column(machine.area_m2),
        assumptions=(*plan.assumptions, *_notes(plan, machine)),
        footprints=_footprints(plan, machine, definitions, values, points),
    )


def _phases(
    phase: PlanPhase,
    machine: EvaluatedArchitecture,
    definitions: Mapping[str, Expression],
    given: Mapping[str, Any],
    points: int,
    trace: HeadTrace | None,
) -> tuple[list[Phase], dict[str, Array]]:
    """A phase, or one for each group of rows that run together, and the peaks of what it uses."""
    source: TraceClasses | SeriesClasses
    if phase.rows is not None and trace is not None:
        source = TraceClasses(trace, phase, definitions, given, points)
        shape = (points, source.classes)
    else:
        source = SeriesClasses.of(phase, definitions, given, points)
        shape = (points, source.counts.shape[1])
    try:
        steps, peaks = tile_steps(phase.stages, machine, source.env, shape)
    except RowError as error:
        raise source.refused(error) from None
    _check_order(steps)
    repeat = _number(phase.repeat, definitions, given, points, "repeat")[:, 0]
    if (repeat < 0).any() or (repeat % 1).any():
        wrong = repeat[(repeat < 0) | (repeat % 1 != 0)][0]
        raise SpecError(f"'{phase.repeat}' is {wrong:g}, expected a whole number of at least 0", key="repeat")
    made = [
        Phase(
            group.name,
            (Stream(group.name, steps_at(steps, group.classes), group.counts, group.order, last=group.last),),
            repeat=repeat * group.repeat,
        )
        for group in source.groups(steps)
    ]
    return made, peaks


@dataclass(frozen=True)
class SeriesClasses:
    """The tile classes of a phase that a series gives, one for each value; a phase without one has a single class.

    env     values of all names at every class
    counts  tiles of each class, (points, classes)
    last    the class of the last tile, (points,)
    """

    name: str
    env: Mapping[str, Any]
    counts: Array
    last: NDArray[np.intp]

    @classmethod
    def of(
        cls, phase: PlanPhase, definitions: Mapping[str, Expression], given: Mapping[str, Any], points: int
    ) -> SeriesClasses:
        """Evaluate the series and everything that depends on it."""
        env, exists = dict(given), np.ones((points, 1))
        for name, series in phase.series.items():
            start = _number(series.start, definitions, env, points, f"series.{name}.from")
            count = _number(series.count, definitions, env, points, f"series.{name}.count")
            wrong = count[(count < 1) | (count % 1 != 0) | (count * points > MOST_VALUES)]
            if wrong.size:
                limit = f"a whole number of at least 1 and at most {MOST_VALUES:,} in all"
                raise SpecError(f"'{series.count}' is {wrong[0]:.12g}, expected {limit}", key=f"series.{name}.count")
            steps = np.arange(int(count.max()), dtype=np.float64)[None, :]
            env[name] = start + steps
            exists = (steps < count).astype(np.float64)
        env = resolve(closed(definitions, env), env)  # without those that need another phase's names
        for place, requirement in enumerate(phase.require):
            try:
                unmet = requirement.unmet(env, exists.shape)
            except EinsightError as error:
                raise error.located(key=f"require[{place}].that") from None
            if unmet is not None:
                raise SpecError(unmet[1], key=f"require[{place}]")
        tiles = np.broadcast_to(np.asarray(phase.tiles.evaluate(env), dtype=np.float64), exists.shape)
        if (tiles < 1).any() or (tiles % 1).any():
            wrong = tiles[(tiles < 1) | (tiles % 1 != 0)][0]
            raise SpecError(f"'{phase.tiles}' is {wrong:g}, expected a whole number of at least 1", key="tiles")
        return cls(phase.phase, env, tiles * exists, np.asarray(exists.sum(axis=1) - 1, dtype=np.intp))

    def refused(self, error: RowError) -> SpecError:
        """The error as one of the phase."""
        return SpecError(error.sentence)

    def groups(self, steps: Sequence[Step]) -> Iterator[TileGroup]:
        """All values together."""
        classes = np.arange(self.counts.shape[1])
        yield TileGroup(self.name, classes, self.counts, SeriesOrder(self.counts), last=self.last)


def _footprints(
    plan: PhasePlan,
    machine: EvaluatedArchitecture,
    definitions: Mapping[str, Expression],
    given: Mapping[str, Any],
    points: int,
) -> dict[str, Footprint]:
    """What each memory and drive has to hold, and what it can."""
    found = {}
    for name, tensors in plan.memory.items():
        key = f"plan.memory.{name}"
        part: Any = machine.memories.get(name) or machine.devices.get(name)
        if part is None or not hasattr(part, "capacity_bytes"):
            known = [*machine.memories, *machine.devices]
            raise SpecError(f"'{name}' is no memory and no drive{nearest(name, known)}", key=key)
        needed = {
            tensor: _number(size, definitions, given, points, f"{key}.{tensor}")[:, 0]
            for tensor, size in tensors.items()
        }
        for tensor, size in needed.items():
            if (size < 0).any():
                found_bytes = f"'{tensors[tensor]}' is {size.min():g}"
                raise SpecError(f"{found_bytes}, expected bytes of at least 0", key=f"{key}.{tensor}")
        capacity = np.broadcast_to(np.asarray(part.capacity_bytes * part.copies, dtype=np.float64), (points,))
        found[name] = Footprint(needed, capacity)
    return found


def _number(
    expression: Expression, definitions: Mapping[str, Expression], given: Mapping[str, Any], points: int, key: str
) -> Array:
    """An expression that no series enters, (points, 1)."""
    try:
        value = expression.evaluate(resolve(_reached(expression.names, definitions), given))
        return np.broadcast_to(np.asarray(value, dtype=np.float64), (points, 1))
    except EinsightError as error:
        raise error.located(key=key) from None


def _reached(names: Iterable[str], definitions: Mapping[str, Expression]) -> dict[str, Expression]:
    """The definitions that names depend on."""
    found: dict[str, Expression] = {}
    todo = list(names)
    while todo:
        name = todo.pop()
        if name in definitions and name not in found:
            found[name] = definitions[name]
            todo += definitions[name].names
    return found


def _check_names(
    plan: PhasePlan, definitions: Mapping[str, Expression], given: Mapping[str, Any], trace: HeadTrace | None
) -> None:
    """No variable has the name of a series or a column, and every definition rests on names that some phase knows."""
    columns = {FIRST, *trace_columns(trace)} if trace is not None and plan.traced else set()
    clash = definitions.keys() & columns
    if clash:
        raise SpecError(f"the variable '{min(clash)}' has the name of a column of the trace", key="variables")
    known = {*given, *columns}
    for place, phase in enumerate(plan.phases):
        for name in phase.series:
            if name in given or name in definitions:
                raise SpecError(f"'{name}' is a variable already", key=f"plan.phases[{place}].series.{name}")
        known |= phase.series.keys()
    for name, expression in definitions.items():
        unknown = sorted(expression.names - known - definitions.keys())
        if unknown:
            hint = nearest(unknown[0], known | definitions.keys())
            raise SpecError(f"unknown name '{unknown[0]}'{hint}", key=f"variables.{name}")


def _check_order(steps: Sequence[Step]) -> None:
    """SpecError when stages wait for each other within a tile: none of them would ever start."""
    waiting = {step.name: {other.step for other in step.after if np.any(np.equal(other.distance, 0))} for step in steps}
    while waiting:
        ready = {name for name, others in waiting.items() if not others & waiting.keys()}
        if not ready:
            names = ", ".join(dict.fromkeys(name.removesuffix(" (end)") for name in waiting))
            raise SpecError(f"some of the stages {names} wait for each other within one tile", key="stages")
        waiting = {name: others for name, others in waiting.items() if name not in ready}


def _check_complete(plan: PhasePlan, cascade: Cascade) -> None:
    """Every Einsum of the cascade is computed, once in a phase that computes it."""
    known = {einsum.name for einsum in cascade.einsums}
    computed: set[str] = set()
    for place, phase in enumerate(plan.phases):
        names = [name for stage in phase.stages for name in stage.computes]
        for name in names:
            key = f"plan.phases[{place}]"
            if name not in known:
                raise SpecError(f"the cascade '{cascade.name}' has no Einsum '{name}'{nearest(name, known)}", key=key)
            if names.count(name) > 1:
                raise SpecError(f"the Einsum '{name}' is computed by two stages", key=key)
        computed |= set(names)
    missing = [einsum.name for einsum in cascade.einsums if einsum.name not in computed]
    if missing:
        raise SpecError(f"no stage computes {', '.join(missing)} of cascade '{cascade.name}'", key="plan.phases")


def _notes(plan: PhasePlan, machine: EvaluatedArchitecture) -> tuple[str, ...]:
    notes = []
    selecting = [stage.on for phase in plan.phases for stage in phase.stages if stage.select is not None]
    for name in dict.fromkeys(map(str, selecting)):
        engine = machine.selectors[name]
        values = "distinct values"
        if engine.score_deviation is not None:
            bits, deviation = (f"{np.ravel(each)[0]:g}" for each in (engine.value_bits, engine.score_deviation))
            values = f"probabilities in {bits} bits, the softmax of normal scores of deviation {deviation}"
        notes.append(f"{name} takes the mean time of its algorithm over random orders of {values}")
    for phase in plan.phases:
        if phase.rows is not None and phase.rows.serial:
            columns = ", ".join(phase.rows.serial)
            notes.append(f"rows that differ in {columns} do not overlap; the order of alike ones is free")
    return tuple(notes)
