"""Grids of thread blocks as streams that the event evaluator can play: what a `Residency` says, spelled out as steps.

What a tile takes of its own multiprocessor, beside the blocks that share it, comes from where the closed form has it:
the queueing network of `simulator.class_cost`, at the clock that `simulator.grid` finds. Here it is a step without a
resource. What several multiprocessors share, and the order of blocks, is played:

* A block starts with a step of the block scheduler, which serves one block at a time, and a setup.
* A tile takes its own time when the tile before it has ended and its loads are there. The first tile of a loop waits
  for the loop's first loads too.
* Loads and stores of a tile pass the shared resources one after another. Loads that run ahead are asked for as the
  pipeline's stages allow; others when the tile begins. Nothing waits for stores but the end of the grid.
* Blocks of the first wave are in step; those that start later are at different places, and take what `simulator.grid`
  says of a whole block; the last, which fill a part of the multiprocessors, go at the pace of as many as are there.
* The units of the multiprocessor are busy while a tile takes its time, side by side.

So the two evaluators share every rule of a multiprocessor, and differ by design in what they say of several: here the
memory serves one request after another, those first that are furthest behind, where the closed form turns from latency
to bandwidth by a measured curve (`Residency.sharpness`); and multiprocessors that run empty at the end of an uneven
grid are not given to the blocks that are left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mappings.program import Array, Dependence, Phase, Resource, Step, Stream, TileOrder, TileProgram
from simulator.class_cost import ClassCost
from simulator.grid import Grid, ramp_s, settled

SCHEDULER = "block scheduler"
LAUNCH, SETUP, BEGUN, LOADS, TILE = "launch", "setup", "begun", "loads", "tile"
SETS = 6
"""Kinds of each class of tiles: in blocks of the first wave, of those between, and of the last; the first tile of its
loop, and others."""


def with_explicit_grids(program: TileProgram, most_tile_steps: float = np.inf) -> TileProgram:
    """The program with every grid of thread blocks spelled out; others as they are.

    The blocks of a grid with more tile steps, which will be simulated in part, all go at their mean pace.
    """
    if all(stream.residency is None for phase in program.phases for stream in phase.streams):
        return program
    most = most_tile_steps / len(program.phases)
    phases = tuple(
        replace(phase, streams=tuple(_explicit(stream, program, most) for stream in phase.streams))
        for phase in program.phases
    )
    return replace(program, phases=phases, resources={**program.resources, SCHEDULER: Resource(SCHEDULER)})


def ramps_s(phase: Phase, latency_s: float, busy_s: Mapping[str, float]) -> float:
    """Seconds at both ends of a phase of grids in which the memory is not in full use; `phase` is the original one."""
    streams = [stream for stream in phase.streams if stream.residency is not None]
    return max((ramp_s(each, latency_s, _outermost_s(each, busy_s)) for each in streams), default=0.0)


def _outermost_s(stream: Stream, busy_s: Mapping[str, float]) -> float:
    return busy_s.get(stream.residency.outermost, 0.0) if stream.residency else 0.0


@dataclass(frozen=True)
class _BlockOrder:
    """The start of a block, then its tiles, each of the kind that its block and its place in the loop make it.

    waves  first instance of each of the three kinds of blocks
    """

    tiles: TileOrder
    classes: int
    waves: tuple[int, int, int]

    def __call__(self, point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
        """See `program.TileOrder`."""
        inner = np.asarray(self.tiles(point, instance, limit), dtype=np.int64)
        first = np.zeros(inner.size, dtype=bool)
        first[np.unique(inner, return_index=True)[1]] = True
        kind = 2 * (int(np.searchsorted(self.waves, instance, side="right")) - 1) + ~first
        return np.concatenate([[SETS * self.classes], kind * self.classes + inner]).astype(np.int32)[:limit]


def _explicit(stream: Stream, program: TileProgram, most_tile_steps: float) -> Stream:
    residency = stream.residency
    if residency is None:
        return stream
    grid, _ = settled(stream, program.resources, program.energy_j)
    classes, instances = stream.counts.shape[1], int(np.max(stream.instances))
    places = int(np.max(stream.slots)) * grid.copies
    # Blocks that fit at once are all of the first wave; what a last, partial wave has is told apart from full ones.
    waves = 0, min(places, instances), instances - instances % places if instances > places else instances
    own = _own_s(grid, instances, places)
    steps = _tile(stream, program.resources, grid)
    if instances * (stream.counts.sum() + 1) * (len(steps) + 4) > most_tile_steps:
        shares = np.diff([*waves, instances]) / instances
        own[:] = np.tensordot(shares, own, axes=1)
        waves = 0, instances, instances
    start = np.zeros((1, SETS * classes + 1))
    start[0, -1] = 1.0
    begin = (Dependence(TILE, 1), Dependence(BEGUN))
    loads = tuple({step.name: Dependence(step.name) for step in steps if step.name.startswith(LOADS)}.values())
    own_s = np.concatenate([own.reshape(1, -1), np.zeros((1, 1))], axis=1)
    made = (
        Step(LAUNCH, SCHEDULER, start * residency.start_s),
        Step(SETUP, None, 0.0, start * residency.setup_s, (Dependence(LAUNCH),)),
        Step(BEGUN, None, 0.0, 0.0, (Dependence(SETUP), Dependence(BEGUN, 1))),
        *steps,
        Step(TILE, None, 0.0, own_s, (*begin, *loads)),
    )
    order = _BlockOrder(stream.order, classes, waves)
    counts = _counts(stream, instances, waves)
    return replace(stream, steps=made, counts=counts, order=order, first=SETS * classes)


def _counts(stream: Stream, instances: int, waves: tuple[int, int, int]) -> Array:
    """Tiles of each kind in the mean of the blocks, (1, kinds of tiles)."""
    assert stream.residency is not None
    tiles = stream.residency.counts
    each = np.broadcast_to(stream.counts, (instances, stream.counts.shape[1])) if tiles is None else tiles
    counts: list[Array] = []
    for begin, end in zip(waves, (*waves[1:], instances), strict=True):
        done, walked = each[begin:end].sum(axis=0), (each[begin:end] > 0).sum(axis=0)
        counts += [walked, done - walked]
    return np.concatenate([*counts, [instances]]).reshape(1, -1) / max(instances, 1)


def _own_s(grid: Grid, instances: int, places: int) -> Array:
    """Seconds of a tile of each kind without what it queues for shared resources, (3, 2, classes)."""
    resident, rest = min(places // grid.copies, -(-instances // grid.copies)), instances % places
    few = -(-rest // grid.copies) if rest else resident
    last_s = _in_step_s(grid, few, rest or places)
    first_s = _in_step_s(grid, resident, min(places, instances))
    _, _, whole = grid.alone_s(resident)
    shared = [float(load.sum()) * places for load in grid.shared_s.values()]
    whole += grid.between_s(whole, places) - max([whole, *shared])
    in_step = float((first_s[0] * (grid.counts > 0) + first_s[1] * np.maximum(grid.counts - 1, 0)).sum())
    apart = max(whole - grid.residency.setup_s, 0.0) / in_step if in_step > 0 else 1.0
    return np.array([first_s, first_s * apart, last_s])


def _in_step_s(grid: Grid, resident: int, active: int) -> Array:
    """Seconds of the first tile of each loop, and of the others, of blocks that do the same at a time, (2, classes).

    What latency adds where a shared resource is in much use is the closed form's; its queue is played.
    """
    rounds, fills, _ = grid.alone_s(resident)
    shared = np.array([grid.outermost_s, *grid.near_s]).max(axis=0) * active
    more = grid.together_s(rounds, active, np.ones(rounds.size)) - np.maximum(rounds, shared)
    return np.array([np.maximum(rounds + more + fills, 0.0), rounds + more])


def _tile(stream: Stream, resources: Mapping[str, Resource], grid: Grid) -> list[Step]:
    """What a tile asks for: its loads, the multiprocessor's units, its stores.

    What a tile loads passes each shared resource as a whole: were its loads served in turn with those of other
    multiprocessors, all would wait for the last, and nothing ask meanwhile.
    """
    classes = grid.counts.size
    units: dict[str, Array] = {}
    asked: dict[tuple[int, str], Array] = {}  # tiles ahead, 0 for stores, and shared resource -> seconds
    way: list[Step] = []
    for step in stream.steps:
        used = np.flatnonzero(np.broadcast_to(np.asarray(step.busy_s), (1, classes))[0])
        if step.resource is None or not used.size:
            continue
        if np.all(np.equal(resources[step.resource].copies, 1)):
            way.append(step)
            continue
        units[step.resource] = units.get(step.resource, 0.0) + _spread(step.busy_s, classes)
        if step.traffic:
            ahead = 0 if _stores(step) else _ahead(grid.costs[int(used[0])])
            for stop in way:
                place = ahead, str(stop.resource)
                asked[place] = asked.get(place, 0.0) + _spread(stop.busy_s, classes)
            way = []
    made: list[Step] = []
    for distance in sorted({ahead for ahead, _ in asked if ahead}):
        made += _chain(f"{LOADS} {distance}", asked, distance, [Dependence(TILE, distance), Dependence(BEGUN)])
    begin = (Dependence(TILE, 1), Dependence(BEGUN))
    made += [Step(name, name, seconds, 0.0, begin) for name, seconds in units.items()]
    return [*made, *_chain("stores", asked, 0, [Dependence(TILE)])]


def _chain(name: str, asked: Mapping[tuple[int, str], Array], ahead: int, before: list[Dependence]) -> list[Step]:
    """Transfers through the shared resources, one after another."""
    made: list[Step] = []
    for (distance, resource), seconds in asked.items():
        if distance == ahead:
            made.append(Step(f"{name} {resource}", resource, seconds, 0.0, tuple(before)))
            before = [Dependence(made[-1].name)]
    return made


def _ahead(cost: ClassCost) -> int:
    """Tiles from that at whose end a tile's loads are asked for to itself: 1 where that is at its start."""
    return max(1, int(cost.stages - cost.lost_stages) + 1)


def _spread(busy_s: Array | float, classes: int) -> Array:
    """Seconds of a class for all its kinds, and none for the start of a block."""
    row = np.broadcast_to(np.asarray(busy_s, dtype=float), (1, classes))
    return np.concatenate([np.tile(row, (1, SETS)), np.zeros((1, 1))], axis=1)


def _stores(step: Step) -> bool:
    return any(np.any(np.asarray(moved.write_bytes) > 0) for moved in step.traffic.values())
