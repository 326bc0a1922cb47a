"""The analytic evaluator: steady state of every stream, for all design points at once.

A stream of n tiles takes n times its initiation interval, plus fill and drain. The interval is the larger of what
every resource has to do and of the slowest recurrence (dependences across tiles and through finite buffers). Work of a
resource is summed over all tiles, since tiles that need it more overlap with tiles that need it less; recurrences are
summed over tile classes. Streams of one phase share resources; phases follow one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mappings.program import Array, Phase, Resource, Step, Stream, TileProgram
from simulator.critical_path import recurrence_s, tile_latency_s
from simulator.result import PhaseResult, Result


@dataclass(frozen=True)
class PhaseTime:
    """Latency of one phase, (points,), and what bounds it."""

    latency_s: Array
    bound_by: NDArray[np.str_]


def evaluate(program: TileProgram) -> Result:
    """Cost of a tile program at every design point."""
    return assemble(program, [phase_time(phase, program) for phase in program.phases], "analytic")


def phase_time(phase: Phase, program: TileProgram) -> PhaseTime:
    """The longest of: each shared resource's work over all streams, and each stream on its own."""
    points = program.points
    shared: dict[str, Array] = {}
    candidates: list[tuple[str, Array]] = []
    fill_s = np.zeros(points)
    for stream in phase.streams:
        instances = _points(stream.instances, points)
        recurrent = recurrence_s(stream)
        alone_s = np.sum(recurrent * stream.counts, axis=1)
        stream_fill_s = np.zeros(points)
        if not stream.hidden_fill:
            first = tile_latency_s(stream)[:, :1] - recurrent[:, :1]
            stream_fill_s = np.maximum(first[:, 0], 0.0) * np.ones(points)
        fill_s = np.maximum(fill_s, stream_fill_s)
        waves = np.ceil(instances / (_units(stream, program.resources) * _points(stream.slots, points)))
        candidates.append(("dependences", alone_s * waves + stream_fill_s * (waves - 1)))
        for step in stream.steps:
            if step.resource is None:
                continue
            copies = program.resources[step.resource].copies
            key = step.resource if np.all(np.equal(copies, 1)) else f"{stream.name}/{step.resource}"
            load = _total(step.busy_s, stream) * np.ceil(instances / copies)
            shared[key] = shared.get(key, np.zeros(points)) + load
    candidates = [(key.rsplit("/", 1)[-1], load) for key, load in shared.items()] + candidates
    times = np.stack([np.broadcast_to(seconds, (points,)) for _, seconds in candidates])
    winner = np.argmax(times >= times.max(axis=0) * (1 - 1e-12), axis=0)  # a resource before a recurrence when equal
    names = np.array([name for name, _ in candidates])
    latency_s = (times.max(axis=0) + fill_s) * _points(phase.repeat, points)
    return PhaseTime(latency_s, names[winner])


def _units(stream: Stream, resources: Mapping[str, Resource]) -> Array:
    """Instances that run side by side, one slot each: copies of the stream's most numerous resource."""
    copies = [resources[step.resource].copies for step in stream.steps if step.resource is not None]
    return np.asarray(np.maximum.reduce(np.broadcast_arrays(*copies, np.ones(1))))


def _total(values: Array | float, stream: Stream) -> Array:
    """A per-tile quantity summed over all tiles of one instance, (points,)."""
    return np.asarray(np.sum(np.asarray(values) * stream.counts, axis=1))


def _points(value: Array | int, points: int) -> Array:
    return np.broadcast_to(np.asarray(value, dtype=float).reshape(-1), (points,))


def assemble(program: TileProgram, times: list[PhaseTime], fidelity: str, notes: tuple[str, ...] = ()) -> Result:
    """A result from the phases' times and the program's totals; both evaluators end here."""
    points = program.points
    latency_s = np.sum([time.latency_s for time in times], axis=0)
    totals = Totals.of(program)
    energy = {component: np.broadcast_to(joules, (points,)) for component, joules in totals.energy_j(program).items()}
    utilization: dict[str, Array] = {}
    by_einsum: dict[str, dict[str, Array]] = {}
    for unit, peak in program.peak_per_s.items():
        capacity = peak[:, 0] * latency_s
        by_einsum[unit] = {name: work / capacity for (used, name), work in totals.work.items() if used == unit}
        utilization[unit] = np.broadcast_to(sum(by_einsum[unit].values(), np.zeros(points)), (points,))
    longest = np.argmax(np.stack([time.latency_s for time in times]), axis=0)
    bounds = np.stack([time.bound_by for time in times])
    return Result(
        latency_s=latency_s,
        cycles=latency_s * program.clock_hz[:, 0],
        energy_j=np.asarray(sum(energy.values(), np.zeros(points))),
        energy_by_component_j=energy,
        traffic_bytes=totals.traffic(points),
        utilization=utilization,
        utilization_by_einsum=by_einsum,
        area_mm2=None if program.area_m2 is None else np.broadcast_to(program.area_m2[:, 0] * 1e6, (points,)),
        bound_by=bounds[longest, np.arange(points)],
        phases=tuple(
            PhaseResult(phase.name, time.latency_s, time.bound_by)
            for phase, time in zip(program.phases, times, strict=True)
        ),
        fidelity=fidelity,
        assumptions=program.assumptions + notes,
    )


@dataclass(frozen=True)
class Totals:
    """Sums over all tiles of a program, (points,) each."""

    read_bytes: dict[tuple[str, str], Array]
    write_bytes: dict[tuple[str, str], Array]
    actions: dict[tuple[str, str], Array]
    work: dict[tuple[str, str], Array]

    @classmethod
    def of(cls, program: TileProgram) -> Totals:
        """Add up every step of every stream."""
        totals = cls({}, {}, {}, {})
        for phase in program.phases:
            for stream in phase.streams:
                times = _points(phase.repeat, program.points) * _points(stream.instances, program.points)
                for step in stream.steps:
                    totals._add(step, stream, times)
        return totals

    def _add(self, step: Step, stream: Stream, times: Array) -> None:
        def add(book: dict[tuple[str, str], Array], key: tuple[str, str], value: Array | float) -> None:
            total = _total(value, stream) * times
            book[key] = book[key] + total if key in book else total

        for key, traffic in step.traffic.items():
            add(self.read_bytes, key, traffic.read_bytes)
            add(self.write_bytes, key, traffic.write_bytes)
        for key, count in step.actions.items():
            add(self.actions, key, count)
        for unit, work in step.work.items():
            add(self.work, (unit, step.name), work)

    def energy_j(self, program: TileProgram) -> dict[str, Array]:
        """Energy by component: every action's count times its energy."""
        energy: dict[str, Array] = {}
        for (component, action), count in self.actions.items():
            joules = count * program.energy_j[component, action][:, 0]
            energy[component] = energy[component] + joules if component in energy else joules
        return energy

    def traffic(self, points: int) -> dict[str, dict[str, dict[str, Array]]]:
        """level -> tensor and "total" -> "read", "write" bytes."""
        levels: dict[str, dict[str, dict[str, Array]]] = {}
        for level, tensor in self.read_bytes:
            table = levels.setdefault(level, {"total": {"read": np.zeros(points), "write": np.zeros(points)}})
            for side, book in (("read", self.read_bytes), ("write", self.write_bytes)):
                moved = np.broadcast_to(book[level, tensor], (points,))
                table.setdefault(tensor, {})[side] = moved
                table["total"][side] = table["total"][side] + moved
        return levels
