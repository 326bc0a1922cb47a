"""The analytic evaluator: steady state of every stream, for all design points at once.

A stream takes at least the work of each of its resources, after what precedes its first use and before what follows
its last (fill and drain), and the sum of its slowest recurrences (dependences across tiles and through finite buffers).
Work of a resource is summed over all tiles, since tiles that need it more overlap with tiles that need it less;
recurrences are summed over tile classes. Streams of one phase share resources; phases follow one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.symbols import as_array, as_floats, labelled
from mappings.program import Array, Phase, Resource, Step, Stream, TileProgram, over_classes
from simulator.alike import alike
from simulator.critical_path import TilePaths, path_distances, recurrence_s, tile_alone_s, tile_latency_s, tile_paths_s
from simulator.grid import grid_time
from simulator.result import PhaseResult, Result


@dataclass(frozen=True)
class PhaseTime:
    """Latency of one phase, (points,), and what bounds it."""

    latency_s: Array
    bound_by: NDArray[np.str_]


def evaluate(program: TileProgram) -> Result:
    """Cost of a tile program at every design point."""
    times: dict[int, PhaseTime] = {}
    for places, phase, wider in alike(program):
        found = phase_time(phase, wider)
        for place, latency_s, bound_by in zip(
            places,
            np.split(found.latency_s, len(places)),
            np.split(np.broadcast_to(found.bound_by, (wider.points,)), len(places)),
            strict=True,
        ):
            times[place] = PhaseTime(latency_s, bound_by)
    return assemble(program, [times[place] for place in range(len(program.phases))], "analytic")


def phase_time(phase: Phase, program: TileProgram) -> PhaseTime:
    """The longest of: each shared resource's work over all streams, and each stream on its own."""
    if any(stream.residency is not None for stream in phase.streams):
        latency_s, bound_by = grid_time(phase, program)
        return PhaseTime(latency_s * _points(phase.repeat, program.points), bound_by)
    points = program.points
    shared: dict[str, Candidate] = {}
    candidates: list[Candidate] = []
    for stream in phase.streams:
        instances = _points(stream.instances, points)
        ends = Ends.of(stream, points)
        recurrent = recurrence_s(stream)
        alone_s = over_classes(recurrent * stream.counts)
        waves = np.ceil(instances / (_units(stream, program.resources) * _points(stream.slots, points)))
        around_s = ends.around_s(recurrent)
        candidates.append(Candidate("dependences", alone_s * waves + around_s * (waves - 1), around_s))
        used = dict.fromkeys(step.resource for step in stream.steps if step.resource is not None)
        for resource in used:
            copies = program.resources[resource].copies
            key = resource if np.all(np.equal(copies, 1)) else f"{stream.name}/{resource}"
            work = sum((_total(step.busy_s, stream) for step in stream.steps if step.resource == resource), np.zeros(1))
            found = Candidate(resource, work * np.ceil(instances / copies), *ends.idle_s(resource))
            shared[key] = shared[key].and_also(found) if key in shared else found
    candidates = [*shared.values(), *candidates]
    times = np.stack([np.broadcast_to(candidate.total_s, (points,)) for candidate in candidates])
    winner = np.argmax(times >= times.max(axis=0) * (1 - 1e-12), axis=0)  # a resource before a recurrence when equal
    names = tuple(candidate.name for candidate in candidates)
    latency_s = np.minimum(times.max(axis=0), _one_by_one_s(phase, points))
    return PhaseTime(latency_s * _points(phase.repeat, points), labelled(names, winner))


def _one_by_one_s(phase: Phase, points: int) -> Array:
    """Seconds if every tile ended before the next one began: few tiles have little to overlap with."""
    if any(stream.hidden_fill for stream in phase.streams):
        return np.full(points, np.inf)
    total = np.zeros(points)
    for stream in phase.streams:
        total = total + _total(tile_alone_s(stream), stream) * _points(stream.instances, points)
    return total


@dataclass(frozen=True)
class Candidate:
    """Something that may bound a phase: its work, and what passes before it starts and after it ends, (points,)."""

    name: str
    work_s: Array
    before_s: Array
    after_s: Array | float = 0.0

    @property
    def total_s(self) -> Array:
        """The phase takes at least this."""
        return as_array(self.work_s + self.before_s + self.after_s)

    def and_also(self, other: Candidate) -> Candidate:
        """The same resource with more work: it starts with the earlier and ends with the later of both."""
        return Candidate(
            self.name,
            self.work_s + other.work_s,
            np.minimum(self.before_s, other.before_s),
            np.minimum(self.after_s, other.after_s),
        )


@dataclass(frozen=True)
class Ends:
    """The first and the last tile of a stream: what comes before a resource's first work, and after its last.

    tiles  the stream reduced to its first (class 0) and last tile (class 1); None where fill and drain are hidden
    """

    tiles: Stream | None
    paths: TilePaths | None
    chosen: NDArray[np.intp]
    points: int
    ahead: Mapping[tuple[int, int], Array] = field(default_factory=dict)
    interval_s: Array | float = 1.0

    @classmethod
    def of(cls, stream: Stream, points: int) -> Ends:
        """Find the paths through both tiles."""
        classes = stream.counts.shape[1]
        both = [np.broadcast_to(as_array(tile) % classes, (points,)) for tile in (stream.first, stream.last)]
        chosen = np.stack(both, axis=1)
        if stream.hidden_fill:
            return cls(None, None, chosen, points)

        def at(values: Array | float) -> Array:
            wide = np.broadcast_to(as_floats(values), (points, classes))
            return np.take_along_axis(wide, chosen, axis=1)

        steps = tuple(replace(step, busy_s=at(step.busy_s), latency_s=at(step.latency_s)) for step in stream.steps)
        tiles = replace(stream, steps=steps, counts=np.ones((points, 2)))
        return cls(tiles, tile_paths_s(tiles), chosen, points, path_distances(stream), _interval_s(stream))

    def idle_s(self, resource: str) -> tuple[Array, Array]:
        """Seconds that a resource idles before and in the first tile's work, and in and after the last tile's.

        Before a step of the first tile can start, the resource has its earlier steps to do, of that tile and of as many
        later ones as may run ahead of the step; after a step of the last tile, the later steps of as many tiles as may
        lag behind it.
        """
        if self.tiles is None or self.paths is None:
            return np.zeros(self.points), np.zeros(self.points)
        steps = [index for index, step in enumerate(self.tiles.steps) if step.resource == resource]
        back = {(then, first): tiles for (first, then), tiles in self.ahead.items()}
        return self._idle(self.paths.starts, steps, 0, self.ahead), self._idle(self.paths.tails, steps, 1, back)

    def _idle(
        self, waits: Sequence[Array], steps: Sequence[int], tile: int, ahead: Mapping[tuple[int, int], Array]
    ) -> Array:
        assert self.tiles is not None
        busy = {step: as_array(self.tiles.steps[step].busy_s)[:, tile] for step in steps}
        wait = {step: waits[step][:, tile] for step in steps}
        idle = np.zeros(self.points)
        first = reduce(np.minimum, [np.where(busy[step] > 0, wait[step], np.inf) for step in steps])
        for step in steps:
            own, before, done = busy[step], wait[step], np.zeros(self.points)
            for other in steps:
                most = np.maximum(ahead[step, other][:, 0], 1.0) if (step, other) in ahead else np.inf
                early = np.minimum(np.maximum((before - wait[other]) / self.interval_s, 1.0), most)
                more = busy[other]
                done = done + np.where((wait[other] < before) & (more > 0), more * early, 0.0)
            idle = np.where(own > 0, np.maximum(idle, np.maximum(before - done, first)), idle)
        return idle

    def around_s(self, recurrent: Array) -> Array:
        """Seconds by which the first or the last tile lasts longer than its recurrence."""
        if self.tiles is None:
            return np.zeros(self.points)
        wide = np.broadcast_to(recurrent, (self.points, recurrent.shape[1]))
        longer = tile_latency_s(self.tiles, self.paths) - np.take_along_axis(wide, self.chosen, axis=1)
        return as_array(np.maximum(0.0, longer.max(axis=1)))


def _interval_s(stream: Stream) -> Array:
    """Mean seconds between tiles: of the resource with most work, or of the slowest recurrence; (points,)."""
    work: dict[str, Array] = {}
    for step in stream.steps:
        if step.resource is not None:
            work[step.resource] = work.get(step.resource, np.zeros(1)) + _total(step.busy_s, stream)
    longest = reduce(np.maximum, work.values(), over_classes(recurrence_s(stream) * stream.counts))
    return as_array(np.maximum(longest / np.maximum(over_classes(stream.counts), 1.0), np.finfo(float).tiny))


def _units(stream: Stream, resources: Mapping[str, Resource]) -> Array:
    """Instances that run side by side, one slot each: copies of the stream's most numerous resource."""
    copies = [resources[step.resource].copies for step in stream.steps if step.resource is not None]
    return as_array(reduce(np.maximum, copies, np.ones(1)))


def _total(values: Array | float, stream: Stream) -> Array:
    """A per-tile quantity summed over all tiles of one instance, (points,)."""
    return over_classes(values * stream.counts)


def _points(value: Array | int, points: int) -> Array:
    return np.broadcast_to(as_floats(value).reshape(-1), (points,))


def assemble(program: TileProgram, times: list[PhaseTime], fidelity: str, notes: tuple[str, ...] = ()) -> Result:
    """A result from the phases' times and the program's totals; both evaluators end here."""
    points = program.points
    first_s, next_s = program.launch_s
    latency_s = sum((time.latency_s for time in times), np.zeros(points)) + first_s + next_s * (len(times) - 1)
    totals = Totals.of(program)
    energy = totals.energy_j(program)
    utilization: dict[str, Array] = {}
    by_einsum: dict[str, dict[str, Array]] = {}
    for unit, peak in program.peak_per_s.items():
        capacity = np.where(latency_s > 0, peak[:, 0] * latency_s, 1.0)  # nothing ran in no time
        by_einsum[unit] = {name: work / capacity for (used, name), work in totals.work.items() if used == unit}
        utilization[unit] = np.broadcast_to(sum(by_einsum[unit].values(), np.zeros(points)), (points,))
    return Result(
        latency_s=latency_s,
        cycles=latency_s * program.clock_hz[:, 0],
        energy_j=as_array(sum(energy.values(), np.zeros(points))),
        energy_by_component_j=energy,
        traffic_bytes=totals.traffic(points),
        utilization=utilization,
        utilization_by_einsum=by_einsum,
        area_mm2=None if program.area_m2 is None else np.broadcast_to(program.area_m2[:, 0] * 1e6, (points,)),
        bound_by=_longest_bound(times),
        phases=tuple(
            PhaseResult(phase.name, time.latency_s, time.bound_by)
            for phase, time in zip(program.phases, times, strict=True)
        ),
        fidelity=fidelity,
        assumptions=program.assumptions + notes,
        memory_bytes={
            name: {"needed": np.sum([*held.needed_bytes.values()], axis=0), "capacity": held.capacity_bytes}
            for name, held in program.footprints.items()
        },
    )


def _longest_bound(times: Sequence[PhaseTime]) -> NDArray[np.str_]:
    """What bounds the first of the longest phases."""
    longest_s, bound_by = times[0].latency_s, times[0].bound_by
    for time in times[1:]:
        longer = time.latency_s > longest_s
        longest_s, bound_by = np.where(longer, time.latency_s, longest_s), np.where(longer, time.bound_by, bound_by)
    return bound_by


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
                tile = cls({}, {}, {}, {})
                for step in stream.steps:
                    tile._add_step(step)
                for book, of_tile in zip(totals._books, tile._books, strict=True):
                    for key, value in of_tile.items():
                        _add(book, key, _total(value, stream) * times)
        return totals

    @property
    def _books(self) -> tuple[dict[tuple[str, str], Array], ...]:
        return self.read_bytes, self.write_bytes, self.actions, self.work

    def _add_step(self, step: Step) -> None:
        """One execution of a step, in tiles of each class."""
        for key, traffic in step.traffic.items():
            _add(self.read_bytes, key, traffic.read_bytes)
            _add(self.write_bytes, key, traffic.write_bytes)
        for key, count in step.actions.items():
            _add(self.actions, key, count)
        for unit, work in step.work.items():
            _add(self.work, (unit, step.name), work)

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
                moved = book[level, tensor]
                table.setdefault(tensor, {})[side] = moved
                table["total"][side] = table["total"][side] + moved
        return levels


def _add(book: dict[tuple[str, str], Any], key: tuple[str, str], value: Array | float) -> None:
    book[key] = book[key] + value if key in book else value
