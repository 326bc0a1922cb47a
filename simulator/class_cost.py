"""What one tile of a thread block needs of its multiprocessor, and how long it takes beside others there.

The network of queues of `simulator.grid`, for one class of tiles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from mappings.program import Array, Resource, Step, Stream
from simulator.residence import residence_s

WAIT_ROUNDS = 5
"""How often a tile's time and what it waits for its loads are computed from each other."""


@dataclass(frozen=True)
class ClassCost:
    """What one tile of a class needs of a multiprocessor.

    demand_s   busy seconds of each station, for the whole block
    latency_s  latencies between the steps
    ahead_s    seconds of the way to the L2 for loads that run ahead, their latency, and the stages of their pipeline
    free       teams of a block do not wait for each other; else they meet at barriers, and the time is the mean of that
               of free teams and of teams in step
    lost_stages  see `program.Residency`
    aside_s    busy seconds of what nothing in the tile waits for; the next tile's steps find it done or queue behind it
    beside_s, beside_latency_s   of the steps that run beside it
    filled_s, beside_filled_s    of the latencies, what the work of other teams in step fills
    late_s     what it is known to wait for loads
    taken_s, behind_s    seconds that its work at other stations, and what it leaves aside there, take of a station
    crossing_s  what the work that one team leaves behind takes while another in step needs the station
    forks_s    steps that start together, each with its busy seconds; the next waits for all of them
    """

    demand_s: Mapping[str, float]
    latency_s: float
    ahead_s: float
    ahead_latency_s: float
    stages: float
    free: bool = False
    lost_stages: float = 1.0
    aside_s: Mapping[str, float] = field(default_factory=dict)
    beside_s: Mapping[str, float] = field(default_factory=dict)
    beside_latency_s: float = 0.0
    filled_s: float = 0.0
    beside_filled_s: float = 0.0
    late_s: float = 0.0
    taken_s: Mapping[str, float] = field(default_factory=dict)
    behind_s: Mapping[str, float] = field(default_factory=dict)
    crossing_s: float = 0.0
    forks_s: tuple[Mapping[str, float], ...] = ()

    def round_s(self, blocks: int, teams: int, in_flight: int = 1) -> tuple[float, float]:
        """Seconds in which each of `blocks` blocks of `teams` teams, each with some tiles at a time, finishes one; and
        what of them it waits for loads."""
        seconds, late = self.own_round_s(blocks, teams, in_flight)
        return max(seconds, blocks * self.ahead_s if self.stages > 1 else 0.0), late

    def own_round_s(self, blocks: int, teams: int, in_flight: int = 1) -> tuple[float, float]:
        """The same without the way to the L2 of loads that run ahead, whose clock does not fall with the others'."""
        seconds = self._tile_s(self.late_s, blocks, teams, in_flight)
        if self.stages <= 1:
            return seconds, 0.0
        wait, covered, late = self.fill_s(blocks), self.stages - self.lost_stages, 0.0
        for _ in range(WAIT_ROUNDS if wait > covered * seconds else 0):
            late = (late + max(0.0, wait - covered * seconds)) / 2
            seconds = self._tile_s(in_flight * late, blocks, teams, in_flight)
        return seconds, late

    def _tile_s(self, late_s: float, blocks: int, teams: int, in_flight: int) -> float:
        """The same, for what a tile waits for its loads."""
        latency_s = self.latency_s + late_s
        if teams == in_flight == 1:
            return self._alone_s(latency_s, blocks, 1)
        if teams == 1 or self.free:
            return self._alone_s(latency_s, blocks * teams * in_flight, teams) / in_flight
        in_step = self._alone_s(latency_s, blocks * in_flight, 1) / in_flight
        if late_s > 0 and in_flight == 1:  # all teams of a block wait for the same loads, and begin the tile together
            return in_step
        return (in_step + self._alone_s(latency_s, blocks * teams * in_flight, teams) / in_flight) / 2

    def _alone_s(self, latency_s: float, customers: int, parts: int) -> float:
        beside_latency_s = self.beside_latency_s
        if parts == 1:
            latency_s += self.crossing_s - self.filled_s
            beside_latency_s -= self.beside_filled_s
        paths = [[seconds / parts for seconds in path] for path in self._paths]
        return residence_s(
            paths[0], latency_s, customers, paths[1], paths[2], beside_latency_s, paths[5:], paths[3], paths[4]
        )

    @cached_property
    def _paths(self) -> list[list[float]]:
        """Busy seconds of all stations, in one order for all: demand, aside, beside, taken, behind, forks."""
        paths = (self.demand_s, self.aside_s, self.beside_s, self.taken_s, self.behind_s, *self.forks_s)
        names = dict.fromkeys(name for path in paths for name in path)
        return [[path.get(name, 0.0) for name in names] for path in paths]

    def fill_s(self, blocks: int) -> float:
        """Seconds from asking for a tile's loads until they are there."""
        return self.ahead_latency_s if self.stages > 1 else 0.0


def merged(costs: Sequence[ClassCost], counts: Array, late_s: Array, latency_s: float) -> ClassCost:
    """A whole block as a single tile: all its tiles, what they wait for loads, and latencies of its own."""
    paths: tuple[dict[str, float], ...] = ({}, {}, {}, {}, {})
    stages, beside_latency, filled, beside_filled, crossing = 1.0, 0.0, 0.0, 0.0, 0.0
    forks: list[Mapping[str, float]] = []
    for cost, count in zip(costs, counts, strict=True):
        parts = (cost.demand_s, cost.aside_s, cost.beside_s, cost.taken_s, cost.behind_s)
        for path, part in zip(paths, parts, strict=True):
            for name, seconds in part.items():
                path[name] = path.get(name, 0.0) + count * seconds
        latency_s += count * cost.latency_s
        beside_latency += count * cost.beside_latency_s
        filled += count * cost.filled_s
        beside_filled += count * cost.beside_filled_s
        crossing += count * cost.crossing_s
        forks += [{name: count * seconds for name, seconds in fork.items()} for fork in cost.forks_s if count > 0]
        stages = max(stages, cost.stages)
    free = any(cost.free for cost in costs)
    return ClassCost(
        paths[0], latency_s, 0.0, 0.0, stages, free, aside_s=paths[1], beside_s=paths[2],
        beside_latency_s=beside_latency, filled_s=filled, beside_filled_s=beside_filled, forks_s=tuple(forks),
        late_s=float((counts * late_s).sum()), taken_s=paths[3], behind_s=paths[4], crossing_s=crossing,
    )  # fmt: skip


def class_costs(stream: Stream, resources: Mapping[str, Resource], crowded: bool = False) -> list[ClassCost]:
    """The cost of each class; `crowded`: all copies run each step at the same time."""
    own = [
        (step, _distance(step))
        for step in stream.steps if step.resource is not None and resources[step.resource].copies != 1
    ]  # fmt: skip
    waited_for = {
        dependence.step for step in stream.steps for dependence in step.after if _most(dependence.distance) == 0
    }
    return [_class_cost(stream, own, waited_for, index, crowded) for index in range(stream.counts.shape[1])]


def _class_cost(
    stream: Stream, own: Sequence[tuple[Step, float]], waited_for: Set[str], index: int, crowded: bool
) -> ClassCost:
    """`own`: steps on the resources of a copy, and how many tiles before they wait for."""
    steps = [(step, distance) for step, distance in own if _at(step.busy_s, index) > 0]
    computing = [id(step) for step, distance in steps if not step.traffic and distance == 0 and not step.beside]
    followed = set(computing[:-1])
    paths: tuple[dict[str, float], ...] = ({}, {}, {})
    latency, filled = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    teams = stream.residency.teams if stream.residency else 1
    transfer = ahead = ahead_latency = 0.0
    forks: dict[str, dict[str, float]] = {step.beside: {} for step, _ in steps if step.beside}
    stages, path = 1.0, 0
    taken: dict[str, float] = {}
    behind: dict[str, float] = {}
    for step, distance in steps:
        busy, delay = _at(step.busy_s, index), _most(step.latency_s)
        if crowded:
            more = _at(step.crowd_s, index)
            busy, delay = busy + more, delay - more if delay < 0 else delay  # a transfer that nothing waits for
        if distance > 0:
            ahead += busy
            ahead_latency = max(ahead_latency, delay)
            stages = distance
            continue
        assert step.resource is not None
        left = id(step) in followed and step.name not in waited_for
        place = 1 if left else path
        work = forks.get(step.beside or step.name, paths[place])
        work[step.resource] = work.get(step.resource, 0.0) + busy
        for name, part in step.takes.items():
            into = behind if left else taken
            into[name] = into.get(name, 0.0) + part * busy
        if step.traffic:  # transfers are asked for together
            transfer = max(transfer, delay)
            latency[place] += min(delay, 0.0)  # posted: nothing waits for it
        else:
            latency[place] += delay
            filled[place] += min(step.slack_s, busy * (1 - 1 / teams))
        path = 2 if left else path
    assert stream.residency is not None
    # What a tile loads itself is waited for before the loads that ran ahead.
    ahead_latency = max(0.0, ahead_latency - transfer)
    crossed = [min(part * (1 - 1 / teams), paths[0].get(name, 0.0)) for name, part in behind.items()]
    return ClassCost(
        paths[0], latency[0] + transfer, ahead, ahead_latency, stages, stream.residency.free,
        stream.residency.lost_stages, paths[1], paths[2], latency[2], filled[0], filled[2],
        forks_s=tuple(forks.values()), taken_s=taken, behind_s=behind, crossing_s=max(crossed, default=0.0),
    )  # fmt: skip


def _distance(step: Step) -> float:
    return max((_most(dependence.distance) for dependence in step.after), default=0.0)


def _most(value: Array | float) -> float:
    return float(value.max()) if isinstance(value, np.ndarray) else float(value)


def _at(value: Array | float, index: int) -> float:
    """A step's value for one class of tiles, at the only design point."""
    return float(value[0, index]) if isinstance(value, np.ndarray) else float(value)
