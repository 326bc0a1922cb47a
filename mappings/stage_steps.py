"""The steps of stages on memories, units and top-k engines: what each takes, moves and does, in every tile class.

A stage that works `along` others becomes two steps. The work itself starts when those stages turn to its tile (their
tile before has ended), and occupies its unit; the end, which later stages wait for, comes when both it and they are
through. So a consumer that keeps up adds only its latency, and one that is slower than its producer adds its own time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from architectures import EvaluatedArchitecture, EvaluatedMemory, EvaluatedSelector, EvaluatedUnit
from einsum.errors import EinsightError, SpecError
from einsum.expressions import Expression
from mappings.movement import column
from mappings.program import Array, Dependence, Step, Traffic
from mappings.stages import Move, PlanStage


class RowError(Exception):
    """A sentence about tile classes that cannot be: `wrong` says which, (points, classes)."""

    def __init__(self, wrong: NDArray[np.bool_], sentence: str) -> None:
        super().__init__(sentence)
        self.wrong = wrong
        self.sentence = sentence


class StageLowering:
    """Steps of stages on a machine; `env` has a value for every name, `shape` is (points, classes)."""

    def __init__(
        self,
        stages: Sequence[PlanStage],
        machine: EvaluatedArchitecture,
        env: Mapping[str, Any],
        shape: tuple[int, int],
    ) -> None:
        self.stages = stages
        self.machine = machine
        self.env = env
        self.shape = shape
        self.ends = {stage.stage: f"{stage.stage} (end)" if stage.along else stage.stage for stage in stages}

    def steps(self) -> tuple[Step, ...]:
        """All steps, with quantities and distances (points, classes)."""
        found: list[Step] = []
        for place, stage in enumerate(self.stages):
            try:
                found += self._steps(stage)
            except EinsightError as error:
                raise error.located(key=f"stages[{place}]") from None
        return tuple(found)

    def peaks_per_s(self) -> dict[str, Array]:
        """What utilization is a share of: a unit's operation slots, a memory's bytes, an engine's cycles a second."""
        peaks: dict[str, Array] = {
            name: column(unit.elements * unit.clock_hz * unit.copies) for name, unit in self.machine.units.items()
        }
        for name in {stage.on for stage in self.stages if stage.on is not None}:
            if name in self.machine.memories:
                memory = self.machine.memories[name]
                if np.all(np.isfinite(memory.bandwidth_bytes_per_s)):
                    peaks[name] = column(memory.bandwidth_bytes_per_s * memory.copies)
            elif name in self.machine.selectors:
                peaks[name] = column(self.machine.selectors[name].clock_hz)
        return peaks

    def values(self, expression: Expression, key: str, active: NDArray[np.bool_] | None = None) -> Array:
        """An expression at every class, (points, classes), 0 where not `active`; SpecError for a negative number."""
        try:
            found = np.asarray(expression.evaluate(self.env))
        except EinsightError as error:
            raise error.located(key=key) from None
        if found.dtype.kind not in "biuf":
            raise SpecError(f"'{expression}' is {found.reshape(-1)[0]!r}, expected a number", key=key)
        spread = np.broadcast_to(found.astype(np.float64), self.shape)
        spread = spread if active is None else np.where(active, spread, 0.0)
        if not (spread >= 0).all():
            raise SpecError(f"'{expression}' is {spread.min():g}, expected a number of at least 0", key=key)
        return spread

    def whole(self, expression: Expression, key: str, least: int) -> Array:
        """An expression at every class, (points, classes); SpecError unless they are whole numbers, `least` or more."""
        found = self.values(expression, key)
        wrong = (found < least) | (found % 1 != 0)
        if wrong.any():
            message = f"'{expression}' is {found[wrong][0]:g}, expected a whole number of at least {least}"
            raise SpecError(message, key=key)
        return found

    def _steps(self, stage: PlanStage) -> list[Step]:
        active = np.ones(self.shape, dtype=bool) if stage.when is None else self.values(stage.when, "when") != 0
        step = self._work(stage, active)
        waits = [
            Dependence(self.ends[name], self.whole(distance, f"after.{name}", 0))
            for name, distance in stage.after.items()
        ]
        if not stage.along:
            return [replace(step, after=tuple(waits))]
        begin = [Dependence(self.ends[name], np.ones(self.shape)) for name in stage.along]
        now = np.zeros(self.shape)
        join = [Dependence(step.name, now), *(Dependence(self.ends[name], now) for name in stage.along)]
        latency = np.where(active, step.latency_s, 0.0)
        end = Step(self.ends[stage.stage], None, 0.0, latency, after=tuple(join))
        return [replace(step, latency_s=0.0, after=(*waits, *begin)), end]

    def _work(self, stage: PlanStage, active: NDArray[np.bool_]) -> Step:
        """The step's time on its resource, its traffic and actions; nothing in classes that do not run it."""
        traffic: dict[tuple[str, str], Traffic] = {}
        actions: dict[tuple[str, str], Array] = {}
        bus: dict[str, tuple[Array, Array]] = {}
        for name, tensors in stage.moves.items():
            memory = self.machine.memory(name)
            for tensor, move in tensors.items():
                self._move(memory, tensor, move, active, traffic, actions, bus)
        resource = self._resource(stage)
        if stage.select is not None and not isinstance(resource, EvaluatedSelector):
            raise SpecError(f"the stage selects, but '{stage.on}' is no top-k engine", key="select")
        busy, latency, work = np.zeros(self.shape), column(0.0), {}
        if isinstance(resource, EvaluatedMemory):
            read, write = bus.get(resource.name, (np.zeros(self.shape), np.zeros(self.shape)))
            busy, latency = _transfer_s(resource, read, write), column(resource.latency_s)
            work = {resource.name: read + write} if np.all(np.isfinite(resource.bandwidth_bytes_per_s)) else {}
        elif isinstance(resource, EvaluatedUnit):
            busy, work = self._compute(stage, resource, active, actions)
            latency = column(resource.depth) / column(resource.clock_hz)
        elif isinstance(resource, EvaluatedSelector):
            busy = self._select(stage, resource, active, actions)
            work = {resource.name: busy * column(resource.clock_hz)}
        if stage.latency is not None:
            latency = self.values(stage.latency, "latency", active) / column(self.machine.clock_hz)
        latency = np.where(active, latency, 0.0)
        return Step(stage.stage, stage.on, busy, latency, (), traffic, actions, work)

    def _move(
        self,
        memory: EvaluatedMemory,
        tensor: str,
        move: Move,
        active: NDArray[np.bool_],
        traffic: dict[tuple[str, str], Traffic],
        actions: dict[tuple[str, str], Array],
        bus: dict[str, tuple[Array, Array]],
    ) -> None:
        key = f"moves.{memory.name}.{tensor}"
        pieces = self.values(move.pieces, f"{key}.pieces", active)
        sides = [
            self.values(each, f"{key}.{side}", active) for side, each in (("read", move.read), ("write", move.write))
        ]
        traffic[memory.name, tensor] = Traffic(*sides)
        apart = np.where(pieces > 0, pieces, 1.0)
        spread = replace(memory, channels=column(memory.channels), transaction_bytes=column(memory.transaction_bytes))
        fetched = [spread.fetched_bytes(np.where(side > 0, apart, 0.0), side / apart) for side in sides]
        before = bus.get(memory.name, (np.zeros(self.shape), np.zeros(self.shape)))
        bus[memory.name] = (before[0] + spread.bus_bytes(fetched[0]), before[1] + spread.bus_bytes(fetched[1]))
        for side, count in zip(("read", "write"), fetched, strict=True):
            accesses = count * 8 / column(memory.access_bits)
            actions[memory.name, side] = actions.get((memory.name, side), np.zeros(self.shape)) + accesses

    def _compute(
        self,
        stage: PlanStage,
        unit: EvaluatedUnit,
        active: NDArray[np.bool_],
        actions: dict[tuple[str, str], Array],
    ) -> tuple[Array, dict[str, Array]]:
        cycles, work = [], np.zeros(self.shape)
        for kind, expression in stage.ops.items():
            cost, count = unit.op(kind), self.values(expression, f"ops.{kind}", active)
            cycles.append(np.ceil(count / column(unit.elements)) * column(cost.cycles))
            work = work + count * column(cost.cycles)
            actions[unit.name, kind] = count
        if not cycles:
            raise SpecError(f"the stage occupies the unit '{unit.name}' but has no operations")
        stacked = np.stack([np.broadcast_to(each, self.shape) for each in cycles])
        total = stacked.max(axis=0) if stage.issue == "chained" else stacked.sum(axis=0)
        slots = work if stage.issue == "serial" else total * column(unit.elements)
        return total / column(unit.clock_hz), {unit.name: np.minimum(work, slots)}

    def _select(
        self,
        stage: PlanStage,
        engine: EvaluatedSelector,
        active: NDArray[np.bool_],
        actions: dict[tuple[str, str], Array],
    ) -> Array:
        if stage.select is None:
            raise SpecError(f"the stage occupies the top-k engine '{engine.name}' but selects nothing")
        source = self.values(stage.select.source, "select.from", active)
        keep = self.values(stage.select.keep, "select.keep", active)
        wrong = active & ((keep < 1) | (keep > source))
        if wrong.any():
            at = tuple(np.argwhere(wrong)[0])
            raise RowError(wrong, f"the stage '{stage.stage}' cannot select {keep[at]:g} of {source[at]:g} values")
        full = source > column(engine.capacity)
        if full.any():
            held = float(np.broadcast_to(column(engine.capacity), self.shape)[tuple(np.argwhere(full)[0])])
            sentence = f"the top-k engine '{engine.name}' holds {held:g} values, fewer than {source[full].max():g}"
            raise RowError(full, sentence)
        work = _engine_work(engine, source, keep)
        actions[engine.name, "compare"] = work[1]
        return work[0] / column(engine.clock_hz)

    def _resource(self, stage: PlanStage) -> EvaluatedMemory | EvaluatedUnit | EvaluatedSelector | None:
        name = stage.on or ""
        machine = self.machine
        return machine.memories.get(name) or machine.units.get(name) or machine.selectors.get(name)


def _engine_work(engine: EvaluatedSelector, source: Array, keep: Array) -> tuple[Array, Array]:
    """Mean cycles and candidates of selections, (points, classes); 0 where there is nothing to select from."""
    shape = np.broadcast_shapes(source.shape, np.shape(column(engine.parallelism)))
    engine = replace(
        engine,
        parallelism=column(engine.parallelism),
        pass_cycles=column(engine.pass_cycles),
        score_deviation=None if engine.score_deviation is None else column(engine.score_deviation),
        value_bits=column(engine.value_bits),
    )
    work = engine.work(source, np.maximum(keep, 1.0))
    runs = np.broadcast_to(source > 0, shape)
    return np.where(runs, work.cycles, 0.0), np.where(runs, work.candidates, 0.0)


def _transfer_s(memory: EvaluatedMemory, read: Array, write: Array) -> Array:
    """Seconds on the memory's bus: its shared bandwidth, and those of each direction."""
    shared = (read + write) / column(memory.bandwidth_bytes_per_s)
    alone = np.maximum(
        read / column(memory.read_bandwidth_bytes_per_s), write / column(memory.write_bandwidth_bytes_per_s)
    )
    return np.asarray(np.maximum(shared, alone))


def same_classes(steps: Sequence[Step]) -> NDArray[np.intp]:
    """For each tile class the first one in which every step is the same."""
    values: list[Array | float] = []
    for step in steps:
        values += [step.busy_s, step.latency_s, *step.actions.values(), *step.work.values()]
        values += [side for moved in step.traffic.values() for side in (moved.read_bytes, moved.write_bytes)]
        values += [dependence.distance for dependence in step.after]
    classes = max(np.shape(value)[1] for value in values if np.ndim(value) == 2)
    table = np.concatenate(
        [np.broadcast_to(value, (np.shape(value)[0], classes)) for value in values if np.ndim(value)]
    )
    _unique, first, kind = np.unique(table, axis=1, return_index=True, return_inverse=True)
    return np.asarray(first[kind.reshape(-1)])


def steps_at(steps: Sequence[Step], classes: NDArray[np.intp]) -> tuple[Step, ...]:
    """The steps of some tile classes: quantities (points, those classes), distances (points,), the least of them.

    A dependence over fewer tiles is the stricter one, so where classes of a phase differ the least is on the safe side.
    """

    def pick(value: Array | float) -> Array | float:
        return value[:, classes] if isinstance(value, np.ndarray) and value.shape[1] > 1 else value

    return tuple(
        replace(
            step,
            busy_s=pick(step.busy_s),
            latency_s=pick(step.latency_s),
            after=tuple(Dependence(d.step, np.min(pick(d.distance), axis=1)) for d in step.after),
            traffic={
                key: Traffic(pick(moved.read_bytes), pick(moved.write_bytes)) for key, moved in step.traffic.items()
            },
            actions={key: pick(count) for key, count in step.actions.items()},
            work={key: pick(count) for key, count in step.work.items()},
        )
        for step in steps
    )


def stage_expressions(stages: Sequence[PlanStage]) -> Iterator[Expression]:
    """Everything that the stages' steps depend on."""
    for stage in stages:
        optional = (stage.when, stage.latency, stage.in_flight, stage.spread)
        yield from (each for each in optional if each is not None)
        yield from stage.ops.values()
        yield from stage.after.values()
        if stage.select is not None:
            yield from (stage.select.source, stage.select.keep)
        for tensors in stage.moves.values():
            for move in tensors.values():
                yield from (move.read, move.write, move.pieces)
        for touch in stage.touches.values():
            yield from (touch.vectors, touch.vector_bytes, touch.kept, touch.latest, touch.clustering, touch.sets)
