"""Grids of thread blocks as streams that the event evaluator can play: what a `Residency` says, spelled out as steps.

The queueing network of `simulator.grid` reads from a grid's steps what they demand, and leaves out what follows from
the nature of a thread block. Here it is written down:

* A block starts with a step of the block scheduler, which serves one block at a time, and a setup.
* Warps run in order: a team works on `in_flight` tiles at a time. The teams of a block each take a part of every tile
  and are at different places of the program: a tile is as many tiles as there are teams, each of a part of the work.
* A transfer passes the shared resources listed before it (DRAM, then L2) and then its multiprocessor's own way to them.
  Transfers of a tile that are not separated by computation are asked for together; what follows waits for all.
* A load that runs ahead waits only for its buffer: for the tile that last used it.

Loops that need the same resources in the same order become one list of steps, with a time for each class of tiles.

What fits no event: the clock that falls with the load and at the limit of power (the phase's time is stretched
afterwards, see `clock_stretch`), and the part of the DRAM's rate that concurrency reaches (`Residency.sharpness`): here
it follows from the loads under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mappings.program import Array, Dependence, Phase, Resource, Step, Stream, TileOrder, TileProgram
from simulator.grid import dynamic_j
from simulator.point_stream import at_point

SCHEDULER = "block scheduler"
LAUNCH, SETUP, BEGUN, TILE = "launch", "setup", "begun", "tile"


def with_explicit_grids(program: TileProgram) -> TileProgram:
    """The program with every grid of thread blocks spelled out; others as they are."""
    if all(stream.residency is None for phase in program.phases for stream in phase.streams):
        return program
    phases = tuple(
        replace(phase, streams=tuple(_explicit(stream, program.resources) for stream in phase.streams))
        for phase in program.phases
    )
    return replace(program, phases=phases, resources={**program.resources, SCHEDULER: Resource(SCHEDULER)})


def clock_stretch(
    phase: Phase, latency_s: float, busy_s: Mapping[str, float], program: TileProgram, point: int = 0
) -> float:
    """How much longer a phase lasts because a busy unit lowers the clock, and because of what the device may draw.

    `phase` is the original one: steps that are spelled out do not tell their actions.
    """
    longest, drawn_j, limit = 1.0, 0.0, None
    for stream in phase.streams:
        if stream.residency is None:
            continue
        if stream.residency.power is not None:
            limit = stream.residency.power
            instances = at_point(stream.instances, program.points, point)
            drawn_j += dynamic_j(stream, program.energy_j, point) * instances
        unit = stream.residency.droop.resource
        if latency_s > 0 and unit in busy_s:
            share = busy_s[unit] / float(np.max(program.resources[unit].copies)) / latency_s
            longest = max(longest, stream.residency.droop.stretch(share))
    if limit is None:
        return longest
    return longest * limit.stretch(lambda stretch: latency_s * longest * stretch, drawn_j, 1 / longest)


@dataclass
class _Slot:
    """A step of a group of loops: the steps of its classes that stand at the same place."""

    name: str
    resource: str | None
    busy: Array
    latency: Array
    original: dict[int, Step] = field(default_factory=dict)


def _explicit(stream: Stream, resources: Mapping[str, Resource]) -> Stream:
    residency = stream.residency
    if residency is None:
        return stream
    steps, classes, teams = [], stream.counts.shape[1], residency.teams
    for group in _groups(stream):
        steps += _loop(group, resources, residency.in_flight * teams, teams)
    start = np.zeros((1, classes + 1))
    start[0, classes] = 1.0
    head = [
        Step(LAUNCH, SCHEDULER, start * residency.start_s),
        Step(SETUP, None, 0.0, start * residency.setup_s, (Dependence(LAUNCH),)),
        Step(BEGUN, None, 0.0, 0.0, (Dependence(SETUP), Dependence(BEGUN, 1))),
    ]
    waited_for = tuple(Dependence(step.name) for step in steps if not _stores(step))
    join = Step(TILE, None, 0.0, 0.0, (Dependence(BEGUN), *waited_for))
    counts = np.concatenate([stream.counts * teams, np.ones((stream.counts.shape[0], 1))], axis=1)
    order = _BlockOrder(stream.order, classes, teams)
    return replace(stream, steps=(*head, *steps, join), counts=counts, order=order, first=classes)


def _stores(step: Step) -> bool:
    return any(np.any(np.asarray(moved.write_bytes) > 0) for moved in step.traffic.values())


@dataclass(frozen=True)
class _BlockOrder:
    """The start of a block, then each of its tiles as many times as there are teams."""

    tiles: TileOrder
    start: int
    teams: int

    def __call__(self, point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
        """See `program.TileOrder`."""
        inner = self.tiles(point, instance, limit)
        return np.concatenate([[self.start], np.repeat(inner, self.teams)]).astype(np.int32)[:limit]


def _groups(stream: Stream) -> Iterator[list[_Slot]]:
    """The steps of loops that need the same resources in the same order, place by place."""
    classes = stream.counts.shape[1]
    loops: dict[int, list[Step]] = {}
    for step in stream.steps:
        used = np.flatnonzero(np.broadcast_to(np.asarray(step.busy_s), (1, classes))[0])
        if used.size:
            loops.setdefault(int(used[0]), []).append(step)
    groups: dict[tuple[object, ...], list[_Slot]] = {}
    for kind, steps in loops.items():
        form = tuple((step.resource, _runs_ahead(step), bool(step.traffic), _stores(step)) for step in steps)
        if form not in groups:
            groups[form] = [
                _Slot(step.name, step.resource, np.zeros((1, classes + 1)), np.zeros((1, classes + 1)))
                for step in steps
            ]
        for slot, step in zip(groups[form], steps, strict=True):
            slot.busy[0, kind] = np.asarray(step.busy_s)[0, kind]
            slot.latency[0, kind] = max(0.0, float(np.max(step.latency_s)))  # what overlaps is told apart by the steps
            slot.original[kind] = step
    yield from groups.values()


def _runs_ahead(step: Step) -> float:
    """Tiles by which the step may precede the one whose buffer it reuses; 0 for a step that runs with its tile."""
    return max((float(np.max(dependence.distance)) for dependence in step.after), default=0.0)


def _loop(slots: Sequence[_Slot], resources: Mapping[str, Resource], in_flight: int, teams: int) -> list[Step]:
    """The steps of a group of loops with all that they wait for."""
    made: list[Step] = []
    computed: tuple[Dependence, ...] = (Dependence(TILE, in_flight), Dependence(BEGUN))
    started = computed
    loaded: list[Dependence] = []
    way: list[Step] = []
    for slot in slots:
        first = next(iter(slot.original.values()))
        step = Step(slot.name, slot.resource, slot.busy / teams, slot.latency, (), first.traffic)
        shared = slot.resource is not None and np.all(np.equal(resources[slot.resource].copies, 1))
        if shared:
            way.append(step)
        elif first.traffic:
            ahead = _runs_ahead(first)
            before = computed
            if ahead:
                before = (Dependence(TILE, int(ahead) * teams), Dependence(BEGUN))
            for stop in (*way, step):
                made.append(replace(stop, after=before))
                before = (Dependence(stop.name),)
            way = []
            if not _stores(step):
                loaded.append(Dependence(step.name))
        else:
            if not first.beside:
                started, computed, loaded = (*computed, *loaded), (), []
            made.append(replace(step, after=started))
            computed = (*computed, Dependence(step.name))
    return made + way
