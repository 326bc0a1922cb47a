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
LOST_STAGES = 1.3
"""Stages of a load pipeline that do not help: the tile in use, and a third of one until its buffer is free again."""


@dataclass(frozen=True)
class ClassCost:
    """What one tile of a class needs of a multiprocessor.

    demand_s   busy seconds of each station, for the whole block
    latency_s  latencies between the steps
    ahead_s    seconds of the way to the L2 for loads that run ahead, their latency, and the stages of their pipeline
    """

    demand_s: Mapping[str, float]
    latency_s: float
    ahead_s: float
    ahead_latency_s: float
    stages: float

    def round_s(self, blocks: int, teams: int, in_flight: int = 1) -> float:
        """Seconds in which each of `blocks` blocks of `teams` teams, each with some tiles at a time, finishes one."""
        demands = list(self.demand_s.values())
        alone = residence_s(demands, self.latency_s, blocks)
        if teams > 1:
            apart = residence_s([demand / teams for demand in demands], self.latency_s, blocks * teams)
            alone = apart if self.stages > 2 else (alone + apart) / 2
        if in_flight > 1:
            parts = [demand / teams for demand in demands]
            alone = residence_s(parts, self.latency_s, blocks * teams * in_flight) / in_flight
        if self.stages <= 1:
            return alone
        wait = self.ahead_latency_s + blocks * self.ahead_s
        return max(alone, (alone + wait) / (1 + self.stages - LOST_STAGES), blocks * self.ahead_s)

    def fill_s(self, blocks: int) -> float:
        """Seconds until the first tile's loads are there."""
        return self.ahead_latency_s + blocks * self.ahead_s if self.stages > 1 else 0.0


def residence_s(demands_s: list[float], latency_s: float, customers: int) -> float:
    """Time of one round of a closed network of queues with a delay, by mean value analysis."""
    demands = np.array([demand for demand in demands_s if demand > 0])
    queue = np.zeros(demands.size)
    total = latency_s
    for count in range(1, customers + 1):
        waits = demands * (1 + queue)
        total = float(waits.sum()) + latency_s
        if total == 0:
            return 0.0
        queue = waits * (count / total)
    return total


def grid_time(phase: Phase, program: TileProgram) -> tuple[Array, NDArray[np.str_]]:
    """Seconds of a phase of grids, one after another where there are several, and what bounds it; one design point."""
    total, longest, bound = 0.0, -1.0, ""
    for stream in phase.streams:
        seconds, by = _stream_time(stream, program.resources)
        total += seconds
        if seconds > longest:
            longest, bound = seconds, by
    return np.array([total]), np.array([bound])


def _stream_time(stream: Stream, resources: Mapping[str, Resource]) -> tuple[float, str]:
    residency = stream.residency
    assert residency is not None
    copies = max(int(np.max(resource.copies)) for resource in resources.values())
    instances, slots = int(np.max(stream.instances)), int(np.max(stream.slots))
    classes = stream.counts.shape[1]
    costs = [_class_cost(stream, resources, index) for index in range(classes)]

    def block_s(resident: int, counts: Array) -> Array:
        rounds = np.array([cost.round_s(resident, residency.teams, residency.in_flight) for cost in costs])
        fills = np.array([cost.fill_s(resident) for cost in costs])
        return np.asarray(residency.setup_s + (counts * rounds).sum(axis=1) + ((counts > 0) * fills).sum(axis=1))

    counts = residency.counts
    if counts is None:
        grid_s = _even_waves(lambda resident: float(block_s(resident, stream.counts)[0]), instances, slots, copies)
    else:
        resident = min(slots, -(-instances // copies))
        grid_s = makespan_s(block_s(resident, counts), copies * resident)
    unit, lost, onset = residency.droop
    if lost > 0 and grid_s > 0:
        busy = sum(
            float(np.sum(np.asarray(step.busy_s) * stream.counts)) for step in stream.steps if step.resource == unit
        )
        grid_s /= 1 - lost * min(1.0, busy * instances / copies / grid_s / onset)
    grid_s = max(grid_s, residency.start_s * instances)
    shared_s: dict[str, float] = {}
    for step in stream.steps:
        if step.resource is not None and resources[step.resource].copies == 1:
            load = float(np.sum(np.asarray(step.busy_s) * stream.counts)) * instances
            shared_s[step.resource] = shared_s.get(step.resource, 0.0) + load
    heaviest = max(shared_s, key=lambda name: shared_s[name], default="")
    outermost = shared_s.pop(residency.outermost, 0.0)
    near_s = max([grid_s, *shared_s.values()])
    most = max(near_s, outermost, 1e-30)
    seconds = most * ((near_s / most) ** SHARPNESS + (outermost / most) ** SHARPNESS) ** (1 / SHARPNESS)
    shared_s[residency.outermost] = outermost
    seconds += residency.ramp_s * min(1.0, outermost / most)
    if heaviest and shared_s[heaviest] > grid_s:
        return seconds, heaviest
    unit, busy = _busiest(stream, resources, costs)
    return seconds, unit if busy * instances / copies > 0.5 * grid_s else "latency"


def _busiest(stream: Stream, resources: Mapping[str, Resource], costs: list[ClassCost]) -> tuple[str, float]:
    """The unit of a multiprocessor with the most work per block, and that work in seconds."""
    work: dict[str, float] = {}
    for step in stream.steps:
        if step.resource is not None and resources[step.resource].copies > 1:
            busy = float(np.sum(np.asarray(step.busy_s) * stream.counts))
            work[step.resource] = work.get(step.resource, 0.0) + busy
    return max(work.items(), key=lambda item: item[1], default=("latency", 0.0))


def _class_cost(stream: Stream, resources: Mapping[str, Resource], index: int) -> ClassCost:
    demand: dict[str, float] = {}
    latency = transfer = ahead = ahead_latency = 0.0
    stages = 1.0
    for step in stream.steps:
        if step.resource is None or resources[step.resource].copies == 1:
            continue
        busy = float(np.asarray(step.busy_s)[0, index])
        if busy <= 0:
            continue
        distance = _distance(step)
        if distance > 0:
            ahead += busy
            ahead_latency = max(ahead_latency, float(np.max(step.latency_s)))
            stages = distance
        else:
            demand[step.resource] = demand.get(step.resource, 0.0) + busy
            if step.traffic:  # transfers are asked for together
                transfer = max(transfer, float(np.max(step.latency_s)))
            else:
                latency += float(np.max(step.latency_s))
    return ClassCost(demand, latency + transfer, ahead, ahead_latency, stages)


def _distance(step: Step) -> float:
    return max((float(np.max(dependence.distance)) for dependence in step.after), default=0.0)


def _even_waves(block_s: object, instances: int, slots: int, copies: int) -> float:
    """Equal blocks: full waves, then one that fills the copies less."""
    assert callable(block_s)
    full, rest = divmod(instances, slots * copies)
    seconds = full * float(block_s(slots))
    return seconds + (float(block_s(-(-rest // copies))) if rest else 0.0)


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
