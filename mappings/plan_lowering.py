"""Lowering of a plan: phases of tiles whose classes are the values of a series, such as all lengths of a context."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from architectures import EvaluatedArchitecture
from einsum.cascade import Cascade
from einsum.errors import EinsightError, SpecError, nearest
from einsum.expressions import Expression, closed, resolve
from mappings.movement import column
from mappings.plan import PhasePlan, PlanPhase
from mappings.plan_steps import plan_steps
from mappings.program import Array, Phase, Resource, Stream, TileProgram


@dataclass(frozen=True)
class Footprint:
    """What a memory or a drive has to hold, tensor -> bytes, and what it can, all copies together; (points,)."""

    needed_bytes: Mapping[str, Array]
    capacity_bytes: Array


@dataclass(frozen=True)
class PlannedProgram(TileProgram):
    """The tile program of a plan, and what each memory and drive has to hold meanwhile."""

    footprints: Mapping[str, Footprint] = field(default_factory=dict)


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
    cascade: Cascade,
    machine: EvaluatedArchitecture,
    definitions: Mapping[str, Expression],
    given: Mapping[str, Any],
    points: int,
) -> PlannedProgram:
    """The tile program of a plan on an evaluated architecture, at `points` design points at once.

    definitions  variables as expressions of each other, of `given` and of a phase's series
    given        values of sizes and settings: numbers, text, or arrays with one value per design point
    """
    _check_complete(plan, cascade)
    values = {name: column(value) if np.ndim(value) else value for name, value in given.items()}
    phases: list[Phase] = []
    peaks: dict[str, Array] = {}
    used: dict[str, Resource] = {}
    for place, phase in enumerate(plan.phases):
        try:
            lowered, shares = _phase(phase, machine, definitions, values, points)
        except EinsightError as error:
            raise error.located(key=f"plan.phases[{place}]") from None
        phases.append(lowered)
        peaks.update(shares)
        names = {step.resource for step in lowered.streams[0].steps if step.resource is not None}
        used.update({name: Resource(name) for name in sorted(names)})
    return PlannedProgram(
        phases=tuple(phases),
        resources=used,
        points=points,
        energy_j={key: column(value) for key, value in machine.action_energies_j().items()},
        peak_per_s={name: peak for name, peak in peaks.items() if name in used},
        clock_hz=column(machine.clock_hz),
        area_m2=None if machine.area_m2 is None else column(machine.area_m2),
        assumptions=plan.assumptions,
        footprints=_footprints(plan, machine, definitions, values, points),
    )


def _phase(
    phase: PlanPhase,
    machine: EvaluatedArchitecture,
    definitions: Mapping[str, Expression],
    given: Mapping[str, Any],
    points: int,
) -> tuple[Phase, dict[str, Array]]:
    """A phase as one stream, and the peaks of what it uses."""
    env, exists = dict(given), np.ones((points, 1))
    for name, series in phase.series.items():
        if name in given or name in definitions:
            raise SpecError(f"'{name}' is a variable already", key=f"series.{name}")
        start = _number(series.start, definitions, env, points, f"series.{name}.from")
        count = _number(series.count, definitions, env, points, f"series.{name}.count")
        longest = int(count.max())
        if longest < 1:
            raise SpecError(f"'{series.count}' is {longest}, expected at least 1", key=f"series.{name}.count")
        steps = np.arange(longest, dtype=np.float64)[None, :]
        env[name] = start + steps
        exists = (steps < count).astype(np.float64)
    env = resolve(closed(definitions, env), env)  # without those that need another phase's series
    shape = (points, exists.shape[1])
    made, peaks = plan_steps(phase.stages, machine, env, shape)
    tiles = np.broadcast_to(np.asarray(phase.tiles.evaluate(env), dtype=np.float64), shape)
    if (tiles < 1).any() or (tiles % 1).any():
        wrong = tiles[(tiles < 1) | (tiles % 1 != 0)][0]
        raise SpecError(f"'{phase.tiles}' is {wrong:g}, expected a whole number of at least 1", key="tiles")
    counts = tiles * exists
    repeat = _number(phase.repeat, definitions, given, points, "repeat")[:, 0]
    last = np.asarray(exists.sum(axis=1) - 1, dtype=np.intp)
    stream = Stream(phase.phase, made, counts, SeriesOrder(counts), last=last)
    return Phase(phase.phase, (stream,), repeat=repeat), peaks


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
