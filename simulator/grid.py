"""Time of a grid of thread blocks: several on one multiprocessor contend for its units, and waves follow one another.

The teams of warps that a multiprocessor holds are the customers of a closed queueing network. Its stations are the
multiprocessor's units; a team visits them in turn, once per tile, and spends latencies between them. Mean value
analysis (Reiser and Lavenberg, J. ACM 1980) gives the time of one round for n teams from that for n - 1: a team that
comes to a station finds the queue that n - 1 teams leave there on average. One team alone takes the sum of its steps;
many are bound by the busiest unit.

Loads that run ahead occupy the way to the L2 beside all this; a tile waits for what of their latency the tiles before
it do not cover. A block's time is the sum over its tiles; blocks start in order, each where one has ended.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mappings.program import Array, Phase, Resource, Step, Stream, TileProgram

SHARPNESS = 2.75
"""How sharply the time turns from bound by latency to bound by a shared resource: t = (t1^p + t2^p)^(1/p).

Measured, concurrency: 16, 32, 64 KiB in flight on each multiprocessor reach 0.49, 0.78, 0.97 of the DRAM's bandwidth
where latency alone would allow 0.56, 1.12, 2.24 of it.
"""
CROWD_ROUNDS = 3
"""How often time and the share of it for which the L2 is busy are computed from each other."""
import os
RESIDUAL=float(os.environ.get('RES','0.5'))
EXPOSED_ROUNDS = 6
LOST_STAGES = float(os.environ.get('LOST','1.7'))
"""Stages of a load pipeline that do not help: the tile in use, and a third of one until its buffer is free again."""


@dataclass(frozen=True)
class ClassCost:
    """What one tile of a class needs of a multiprocessor.

    demand_s   busy seconds of each station, for the whole block
    latency_s  latencies between the steps
    ahead_s    seconds of the way to the L2 for loads that run ahead, their latency, and the stages of their pipeline
    queue_s, ahead_queue_s   what transfers take longer when all multiprocessors ask at the same time
    """

    demand_s: Mapping[str, float]
    latency_s: float
    ahead_s: float
    ahead_latency_s: float
    stages: float
    queue_s: float = 0.0
    ahead_queue_s: float = 0.0

    def round_s(self, blocks: int, teams: int, in_flight: int = 1, crowd: float = 0.0) -> float:
        """Seconds in which each of `blocks` blocks of `teams` teams, each with some tiles at a time, finishes one.

        `crowd` is the share of the time for which the others keep busy what all multiprocessors share.
        """
        demands = [demand + (self.queue_s if name == "port" else 0.0) for name, demand in self.demand_s.items()]
        seconds = self._tile_s(demands, self.latency_s, blocks, teams, in_flight)
        if self.stages <= 1:
            return seconds
        wait = self.ahead_latency_s + self.ahead_queue_s + blocks * self.ahead_s
        covered, exposed = self.stages - LOST_STAGES, 0.0
        for _ in range(EXPOSED_ROUNDS if wait > covered * seconds else 0):
            exposed = (exposed + max(0.0, wait - covered * seconds)) / 2
            seconds = self._tile_s(demands, self.latency_s + exposed, blocks, teams, in_flight)
        return max(seconds, blocks * self.ahead_s)

    def _tile_s(self, demands: list[float], latency_s: float, blocks: int, teams: int, in_flight: int) -> float:
        """The same, when every load is there in time."""
        if in_flight > 1:
            parts = [demand / teams for demand in demands]
            return residence_s(parts, latency_s, blocks * teams * in_flight) / in_flight
        alone = residence_s(demands, latency_s, blocks)
        if teams > 1:
            apart = residence_s([demand / teams for demand in demands], latency_s, blocks * teams)
            alone = apart if self.stages > 2 else (alone + apart) / 2
        return alone

    def fill_s(self, blocks: int, crowd: float = 0.0) -> float:
        """Seconds until the first tile's loads are there."""
        if self.stages <= 1:
            return 0.0
        return self.ahead_latency_s + self.ahead_queue_s + blocks * self.ahead_s


def residence_s(demands_s: list[float], latency_s: float, customers: int) -> float:
    """Time of one round of a closed network of queues with a delay, by mean value analysis."""
    demands = [demand for demand in demands_s if demand > 0]
    total = latency_s + sum(demands)
    if total == 0 or not demands:
        return total
    queue = [demand / total for demand in demands]
    busy = queue
    for count in range(2, customers + 1):
        waits = [
            demand * (1 + waiting - RESIDUAL * serving)
            for demand, waiting, serving in zip(demands, queue, busy, strict=True)
        ]
        total = latency_s + sum(waits)
        queue = [wait * count / total for wait in waits]
        busy = [min(1.0, demand * count / total) for demand in demands]
    return max(total, customers * max(demands))


def grid_time(phase: Phase, program: TileProgram) -> tuple[Array, NDArray[np.str_]]:
    """Seconds of a phase of grids, one after another where there are several, and what bounds it; one design point."""
    total, longest, bound = 0.0, -1.0, ""
    for stream in phase.streams:
        seconds, by = _stream_time(stream, program.resources, program.energy_j)
        total += seconds
        if seconds > longest:
            longest, bound = seconds, by
    return np.array([total]), np.array([bound])


def _stream_time(
    stream: Stream, resources: Mapping[str, Resource], energy_j: Mapping[tuple[str, str], Array]
) -> tuple[float, str]:
    residency = stream.residency
    assert residency is not None
    copies = max(int(np.max(resource.copies)) for resource in resources.values())
    instances, slots = int(np.max(stream.instances)), int(np.max(stream.slots))
    grid = Grid(stream, resources, copies, min(instances, copies))
    shared_s = {name: float(load.sum()) * instances for name, load in grid.shared_s.items()}
    near_s = max((load for name, load in shared_s.items() if name != residency.outermost), default=0.0)
    for _ in range(CROWD_ROUNDS):
        grid_s = grid.uneven_s(slots) if residency.counts is not None else grid.even_s(instances, slots)
        grid.crowd = min(1.0, near_s / grid_s) if grid_s > 0 else 0.0
    if residency.power is not None:
        grid_s *= residency.power.stretch(max(grid_s, *shared_s.values()), grid.dynamic_j(energy_j) * instances, 0.9)
    seconds = max(grid_s, residency.start_s * instances)
    heaviest = max(shared_s, key=lambda name: shared_s[name], default="")
    outermost = shared_s.get(residency.outermost, 0.0)
    if seconds > 0:
        seconds += residency.ramp_s * min(1.0, outermost / seconds)
    if heaviest and shared_s[heaviest] > 0.7 * seconds:
        return seconds, heaviest
    unit, busy = _busiest(stream, resources, grid.costs)
    return seconds, unit if busy * instances / copies > 0.5 * seconds else "latency"


def bound_s(own_s: Array, outermost_s: Array) -> Array:
    """Seconds of what takes `own_s` for itself alone and `outermost_s` of a shared resource that latency keeps away."""
    most = np.maximum(np.maximum(own_s, outermost_s), 1e-30)
    return np.asarray(most * ((own_s / most) ** SHARPNESS + (outermost_s / most) ** SHARPNESS) ** (1 / SHARPNESS))


class Grid:
    """Blocks of one launch: what they need of their multiprocessor, and of what all multiprocessors share."""

    def __init__(self, stream: Stream, resources: Mapping[str, Resource], copies: int, active: int) -> None:
        assert stream.residency is not None
        self.crowd = 0.5
        self.stream, self.residency, self.copies = stream, stream.residency, copies
        classes = stream.counts.shape[1]
        self.costs = [_class_cost(stream, resources, index, active) for index in range(classes)]
        self.counts = stream.counts[0]
        self.tile_s: dict[str, Array] = {}
        tensor, lost, onset = self.residency.droop
        self.tensor_s = np.zeros(classes)
        for step in stream.steps:
            if step.resource is None:
                continue
            busy = np.broadcast_to(np.asarray(step.busy_s, dtype=float), (1, classes))[0]
            if resources[step.resource].copies == 1:
                self.tile_s[step.resource] = self.tile_s.get(step.resource, 0.0) + busy
            elif step.resource == tensor and lost > 0:
                self.tensor_s = self.tensor_s + busy
        self.shared_s = {name: tile_s * self.counts for name, tile_s in self.tile_s.items()}

    def rounds_s(self, resident: int) -> Array:
        """Seconds of a tile of each class, (classes,), with so many blocks on a multiprocessor, for itself alone."""
        teams, in_flight = self.residency.teams, self.residency.in_flight
        rounds = np.array([cost.round_s(resident, teams, in_flight, self.crowd) for cost in self.costs])
        return rounds * self._slowdown(rounds, resident)

    def dynamic_j(self, energy_j: Mapping[tuple[str, str], Array]) -> float:
        """Joules of the actions of one block at the nominal clock."""
        total = 0.0
        for step in self.stream.steps:
            for action, count in step.actions.items():
                total += float(np.sum(np.asarray(count) * self.counts)) * float(energy_j[action].flat[0])
        return total

    def fills_s(self, resident: int) -> Array:
        """Seconds until the first tile of each class is loaded."""
        return np.array([cost.fill_s(resident, self.crowd) for cost in self.costs])

    def _slowdown(self, rounds: Array, resident: int) -> float:
        """How much longer tiles take because the clock drops while the unit that draws most works."""
        _, lost, onset = self.residency.droop
        total = float((rounds * self.counts).sum())
        if not (lost > 0 and total > 0):
            return 1.0
        busy = float((self.tensor_s * self.counts).sum()) * resident
        return 1 / (1 - lost * min(1.0, busy / total / onset))

    def together_s(self, own_s: Array, active: int, counts: Array) -> Array:
        """Seconds of tiles when `active` blocks share what they share: (..., classes) of `counts` tiles each.

        `own_s` is what they take without the others.
        """
        longest = own_s
        for name, tile_s in self.tile_s.items():
            if name != self.residency.outermost:
                longest = np.maximum(longest, active * tile_s * counts)
        return bound_s(longest, active * self.tile_s.get(self.residency.outermost, np.zeros(1)) * counts)

    def wave_s(self, resident: int, active: int, in_step: bool) -> float:
        """Seconds of `active` equal blocks, `resident` on each multiprocessor.

        In step: all are at the same place, as in the first wave; else some load while others compute or store.
        """
        own = self.rounds_s(resident) * self.counts + self.fills_s(resident) * (self.counts > 0)
        if in_step:
            return self.residency.setup_s + float(self.together_s(own, active, self.counts).sum())
        shared = max((active * float(load.sum()) for load in self.shared_s.values()), default=0.0)
        return max(float(own.sum()) + self.residency.setup_s, shared)

    def even_s(self, instances: int, slots: int) -> float:
        """Equal blocks: full waves, then one that fills the multiprocessors less."""
        places = slots * self.copies
        full, rest = divmod(instances, places)
        seconds = self.residency.start_s * min(instances, places)
        if full:
            seconds += self.wave_s(slots, places, True)
            if full > 1:
                seconds += (full - 1) * self.wave_s(slots, places, False)
        if rest:
            seconds += self.wave_s(-(-rest // self.copies), rest, True)
        return seconds

    def uneven_s(self, slots: int) -> float:
        """Blocks that differ in their tiles: each starts in its turn where a place is free first."""
        counts = self.residency.counts
        assert counts is not None
        instances = counts.shape[0]
        resident = min(slots, -(-instances // self.copies))
        active = min(instances, resident * self.copies)
        own = counts * self.rounds_s(resident) + (counts > 0) * self.fills_s(resident)
        if instances <= active:
            durations = self.together_s(own, active, counts).sum(axis=1)
        else:
            durations = own.sum(axis=1)
        seconds = makespan_s(durations + self.residency.setup_s, self.copies * resident)
        if instances > active:
            shared = {name: float(load.sum()) * instances for name, load in self.shared_s.items()}
            seconds = max([seconds, *shared.values()])
        return seconds + self.residency.start_s * active


def _busiest(stream: Stream, resources: Mapping[str, Resource], costs: list[ClassCost]) -> tuple[str, float]:
    """The unit of a multiprocessor with the most work per block, and that work in seconds."""
    work: dict[str, float] = {}
    for step in stream.steps:
        if step.resource is not None and resources[step.resource].copies > 1:
            busy = float(np.sum(np.asarray(step.busy_s) * stream.counts))
            work[step.resource] = work.get(step.resource, 0.0) + busy
    return max(work.items(), key=lambda item: item[1], default=("latency", 0.0))


def _class_cost(stream: Stream, resources: Mapping[str, Resource], index: int, active: int) -> ClassCost:
    demand: dict[str, float] = {}
    latency = transfer = ahead = ahead_latency = queue = ahead_queue = 0.0
    stages = 1.0
    shared = {step.name: _busy_s(step, index) for step in stream.steps if step.name.endswith(" L2")}
    for step in stream.steps:
        if step.resource is None or resources[step.resource].copies == 1:
            continue
        busy = _busy_s(step, index)
        if busy <= 0:
            continue
        crowded = max(0.0, active * shared.get(f"{step.name} L2", 0.0) - busy)
        distance = _distance(step)
        if distance > 0:
            ahead += busy
            ahead_queue += crowded
            ahead_latency = max(ahead_latency, float(np.max(step.latency_s)))
            stages = distance
        else:
            demand[step.resource] = demand.get(step.resource, 0.0) + busy
            queue += crowded
            if step.traffic:  # transfers are asked for together
                transfer = max(transfer, float(np.max(step.latency_s)))
            else:
                latency += float(np.max(step.latency_s))
    return ClassCost(demand, latency + transfer, ahead, ahead_latency, stages, queue, ahead_queue)


def _busy_s(step: Step, index: int) -> float:
    return float(np.asarray(step.busy_s)[0, index])


def _distance(step: Step) -> float:
    return max((float(np.max(dependence.distance)) for dependence in step.after), default=0.0)


def makespan_s(durations_s: Array, places: int) -> float:
    """When the last of some blocks ends that start in order, each at the place that is free first."""
    if durations_s.size <= places:
        return float(durations_s.max())
    if durations_s.size > 40 * places:  # so many that the order of all but the last ones does not matter
        head, tail = durations_s[: -20 * places], durations_s[-20 * places :]
        return float(head.sum()) / places + makespan_s(tail, places)
    ends = list(durations_s[:places])
    heapq.heapify(ends)
    for duration in durations_s[places:]:
        heapq.heapreplace(ends, ends[0] + duration)
    return float(max(ends))
