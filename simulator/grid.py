"""Time of a grid of thread blocks: several on one multiprocessor contend for its units, and waves follow one another.

The teams of warps that a multiprocessor holds are the customers of a closed queueing network. Its stations are the
multiprocessor's units; a team visits them in turn, once per tile, and spends latencies between them. Mean value
analysis (Reiser and Lavenberg, J. ACM 1980) gives the time of one round for n teams from that for n - 1: a team that
comes to a station finds the queue that n - 1 teams leave there on average. Units that change between warps at every
instruction share their time, the case for which this is exact whatever the lengths of the work. One team alone takes
the sum of its steps; many are bound by the busiest unit.

Loads that run ahead occupy the way to the L2 beside all this; a tile waits for what of their latency the tiles before
it do not cover. The blocks of the first wave, and those that remain for the last, do the same at the same time: each of
their loops shares the memory with the same loop of all others. In the waves between, some load while others compute.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mappings.program import Array, Phase, Resource, Step, Stream, TileProgram
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
        all_paths = (self.demand_s, self.aside_s, self.beside_s, self.taken_s, self.behind_s, *self.forks_s)
        names = dict.fromkeys(name for path in all_paths for name in path)
        paths = [[path.get(name, 0.0) / parts for name in names] for path in all_paths]
        return residence_s(
            paths[0], latency_s, customers, paths[1], paths[2], beside_latency_s, paths[5:], paths[3], paths[4]
        )

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
    grid = Grid(stream, resources, copies)
    shared_s = {name: float(load.sum()) * instances for name, load in grid.shared_s.items()}

    def run_s(throttle: float) -> float:
        grid.throttle = throttle
        counts = residency.counts
        grid_s = grid.even_s(instances, slots) if counts is None else grid.uneven_s(counts, slots)
        return max([grid_s, *shared_s.values()])

    seconds = run_s(1.0)
    if residency.power is not None:
        throttle = residency.power.stretch(run_s, dynamic_j(stream, energy_j) * instances, 1 / grid.slowdown)
        seconds = run_s(throttle) if throttle > 1 else seconds
    seconds = max(seconds, residency.start_s * instances)
    outermost = shared_s.get(residency.outermost, 0.0)
    if seconds > 0:
        seconds += residency.ramp_s * min(1.0, outermost / seconds)
    heaviest = max(shared_s, key=lambda name: shared_s[name], default="")
    if heaviest and shared_s[heaviest] > 0.7 * seconds:
        return seconds, heaviest
    unit, busy = _busiest(stream, resources, grid.costs)
    return seconds, unit if busy * instances / copies > 0.5 * seconds else "latency"


def dynamic_j(stream: Stream, energy_j: Mapping[tuple[str, str], Array], point: int = 0) -> float:
    """Joules of the actions of one block at the nominal clock; the mean where blocks differ."""
    total, shape = 0.0, np.shape(stream.counts)
    for step in stream.steps:
        for action, count in step.actions.items():
            times = float((np.broadcast_to(count, shape)[point] * stream.counts[point]).sum())
            total += times * float(np.broadcast_to(energy_j[action], (shape[0], 1))[point, 0])
    return total


def bound_s(own_s: Array, outermost_s: Array, sharpness: float) -> Array:
    """Seconds of what takes `own_s` for itself alone and `outermost_s` of a shared resource that latency keeps away:
    (t1^p + t2^p)^(1/p), the longer of the two where p is infinite."""
    most = np.maximum(np.maximum(own_s, outermost_s), 1e-30)
    return np.asarray(most * ((own_s / most) ** sharpness + (outermost_s / most) ** sharpness) ** (1 / sharpness))


class Grid:
    """Blocks of one launch: what they need of their multiprocessor, and of what all multiprocessors share."""

    def __init__(self, stream: Stream, resources: Mapping[str, Resource], copies: int) -> None:
        assert stream.residency is not None
        self.stream, self.residency, self.copies = stream, stream.residency, copies
        classes = stream.counts.shape[1]
        self.costs = [_class_cost(stream, resources, index, crowded=True) for index in range(classes)]
        self.ahead = np.array([cost.stages > max(1.0, cost.lost_stages) for cost in self.costs])
        self.piped = np.array([1 < cost.stages <= cost.lost_stages + 1 for cost in self.costs])
        self.waiting = any(1 < cost.stages <= cost.lost_stages for cost in self.costs)
        self.at_once = np.array([cost.stages <= 1 for cost in self.costs])
        self.sharpness = stream.residency.sharpness
        teams, in_flight = stream.residency.teams, stream.residency.in_flight
        self.lone_s = np.array([cost.round_s(1, teams, in_flight)[0] for cost in self.costs])
        self.counts = stream.counts[0]
        # Blocks without a pipeline are short and come in many waves: between the first and the last they ask for what
        # they share at different times. Blocks of long loops stay in step.
        self.short = bool(self.at_once[self.counts > 0].all())
        self.between = [_class_cost(stream, resources, index) for index in range(classes)] if self.short else self.costs
        self.slowdown = self.throttle = 1.0
        self._found: dict[int, tuple[Array, Array, float]] = {}
        tile_s: dict[str, Array] = {}
        self._drawing_s = 0.0
        for step in stream.steps:
            if step.resource is None:
                continue
            busy = np.broadcast_to(np.asarray(step.busy_s, dtype=float), (1, classes))[0]
            if resources[step.resource].copies == 1:
                tile_s[step.resource] = tile_s.get(step.resource, 0.0) + busy
            elif step.resource == self.residency.droop.resource:
                self._drawing_s += float((busy * self.counts).sum())
        self.outermost_s = tile_s.get(self.residency.outermost, np.zeros(classes))
        self.near_s = np.array([load for name, load in tile_s.items() if name != self.residency.outermost])
        self.shared_s = {name: load * self.counts for name, load in tile_s.items()}

    def _drooped(self, block_s: float, resident: int) -> float:
        """How much longer blocks take because the clock drops while the unit that draws most works."""
        share = self._drawing_s * resident / block_s if block_s > 0 else 0.0
        self.slowdown = self.residency.droop.stretch(share) * self.throttle
        return self.slowdown

    def alone_s(self, resident: int) -> tuple[Array, Array, float]:
        """With so many blocks on a multiprocessor, what those on others ask for left aside: seconds of a tile of each
        class and of its first loads, (classes,), and of a whole block when blocks beside each other are at different
        places. What a multiprocessor does itself takes longer where its clock falls, not the way to the L2."""
        if resident not in self._found:
            self._found[resident] = self._own_s(resident)
        rounds, fills, whole = self._found[resident]
        ahead = resident * np.array([cost.ahead_s for cost in self.costs])
        ahead_s = float((ahead * self.counts).sum())
        slowdown = self._drooped(max(whole, ahead_s), resident)
        return np.maximum(rounds * slowdown, ahead), fills, max(whole * slowdown, ahead_s)

    def _own_s(self, resident: int) -> tuple[Array, Array, float]:
        """The same at the nominal clock, without the way to the L2 of loads that run ahead."""
        teams, in_flight = self.residency.teams, self.residency.in_flight
        found = [cost.own_round_s(resident, teams, in_flight) for cost in self.costs]
        rounds, late = (np.array(values) for values in zip(*found, strict=True))
        # A loop's first tile waits for its first loads, and not for loads that a tile before it asks for.
        fills = np.array([cost.fill_s(resident) for cost in self.costs]) - late
        latency = self.residency.setup_s + float(fills[self.counts > 0].sum())
        if in_flight > 1:
            whole = latency + float((rounds * self.counts).sum())
        else:
            whole, _ = merged(self.between, self.counts, late, latency).round_s(resident, teams)
        return rounds, fills, whole

    def together_s(self, own_s: Array, active: int, counts: Array) -> Array:
        """Seconds of tiles when `active` blocks share what they share: (..., classes) of `counts` tiles each.

        `own_s` is what they take without the others.
        """
        near = np.max(self.near_s, axis=0) * active * counts if self.near_s.size else np.zeros(1)
        residency = self.residency
        own_s = np.where(self.piped, bound_s(own_s, near, residency.near_sharpness), np.maximum(own_s, near))
        outermost_s = active * self.outermost_s * counts
        streaming = np.maximum(own_s, outermost_s / residency.even_share)
        # Where threads wait for their loads, other blocks compute meanwhile: a lone block's time is what adds to it.
        lone_s = np.where(self.at_once, np.minimum(self.lone_s * self.slowdown * counts, own_s), own_s)
        waiting = np.maximum(own_s, bound_s(lone_s, outermost_s, self.sharpness))
        return np.where(self.ahead, streaming, waiting)

    def even_s(self, instances: int, slots: int) -> float:
        """Equal blocks: full waves, then one that fills the multiprocessors less."""
        places = slots * self.copies
        full, rest = divmod(instances, places)
        seconds = self.residency.start_s * min(instances, places)
        if full:
            rounds, fills, whole = self.alone_s(slots)
            seconds += self._in_step_s(rounds, fills, places)
            seconds += (full - 1) * self._between_s(whole, places)
        if rest:
            gathered = full == 1 and self._ends_apart(places)  # on the multiprocessors that end first
            rounds, fills, _ = self.alone_s(slots if gathered else -(-rest // self.copies))
            seconds += self._in_step_s(rounds, fills, rest)
        return seconds

    def _ends_apart(self, places: int) -> bool:
        """Whether the memory sets the pace of a first wave: it serves some multiprocessors sooner than others, so those
        end one after another, each with all its blocks; blocks that keep their own pace end everywhere at once."""
        rounds, fills, _ = self.alone_s(places // self.copies)
        own_s = float((rounds * self.counts + fills * (self.counts > 0)).sum())
        return not self.short and places * float((self.outermost_s * self.counts).sum()) > own_s

    def _between_s(self, whole_s: float, places: int) -> float:
        """A wave whose blocks are at different places; where each tile's loads are waited for, less is under way."""
        shared = {name: places * float(load.sum()) for name, load in self.shared_s.items()}
        outermost = shared.pop(self.residency.outermost, 0.0)
        if self.ahead[self.counts > 0].any():
            outermost /= self.residency.even_share
        near = max(shared.values(), default=0.0)
        if self.short:  # what is waited for as a whole comes in bursts, as from the memory
            nearer_s = self._bound(whole_s, near, self.sharpness)
        elif self.piped.any():
            nearer_s = self._bound(whole_s, near, self.residency.near_sharpness)
        else:
            nearer_s = max(whole_s, near)
        # Who waits in the longer queue finds the other one short.
        return max(nearer_s, self._bound(whole_s, outermost, self.sharpness) if self.waiting else outermost)

    def _bound(self, own_s: float, shared_s: float, sharpness: float) -> float:
        return float(bound_s(np.array(own_s), np.array(shared_s), sharpness))

    def _in_step_s(self, rounds: Array, fills: Array, active: int) -> float:
        own = rounds * self.counts + fills * (self.counts > 0)
        return float(self.residency.setup_s) + float(self.together_s(own, active, self.counts).sum())

    def uneven_s(self, counts: Array, slots: int) -> float:
        """Blocks of (instances, classes) tiles: each starts in its turn where a place is free first."""
        instances = counts.shape[0]
        resident = min(slots, -(-instances // self.copies))
        active = min(instances, resident * self.copies)
        rounds, fills, whole = self.alone_s(resident)
        own = counts * rounds + (counts > 0) * fills
        if instances <= active:
            durations = self.together_s(own, active, counts).sum(axis=1) + self.residency.setup_s
        else:
            durations = own.sum(axis=1) + self.residency.setup_s
            durations *= self._between_s(whole, active) / durations.mean()
        # Where a place stays free, those beside it go on faster.
        fewer = [self.alone_s(count)[2] for count in range(1, resident)]
        pace = np.minimum(np.array([*fewer, whole]) / max(whole, 1e-30), 1.0)
        return makespan_s(durations, self.copies, pace) + float(self.residency.start_s * active)


def _busiest(stream: Stream, resources: Mapping[str, Resource], costs: list[ClassCost]) -> tuple[str, float]:
    """The unit of a multiprocessor with the most work per block, and that work in seconds."""
    work: dict[str, float] = {}
    for step in stream.steps:
        if step.resource is not None and resources[step.resource].copies > 1:
            busy = float(np.sum(np.asarray(step.busy_s) * stream.counts))
            work[step.resource] = work.get(step.resource, 0.0) + busy
    return max(work.items(), key=lambda item: item[1], default=("latency", 0.0))


def _class_cost(stream: Stream, resources: Mapping[str, Resource], index: int, crowded: bool = False) -> ClassCost:
    """`crowded`: all copies run each step at the same time."""
    steps = [step for step in stream.steps if _own(step, resources) and float(np.asarray(step.busy_s)[0, index]) > 0]
    waited_for = {
        dependence.step for step in stream.steps for dependence in step.after if np.max(dependence.distance) == 0
    }
    computing = [step for step in steps if not step.traffic and _distance(step) == 0 and not step.beside]
    paths: tuple[dict[str, float], ...] = ({}, {}, {})
    latency, filled = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    teams = stream.residency.teams if stream.residency else 1
    transfer = ahead = ahead_latency = 0.0
    forks: dict[str, dict[str, float]] = {step.beside: {} for step in steps if step.beside}
    stages, path = 1.0, 0
    taken: dict[str, float] = {}
    behind: dict[str, float] = {}
    for step in steps:
        busy, delay = float(np.asarray(step.busy_s)[0, index]), float(np.max(step.latency_s))
        if crowded:
            more = float(np.broadcast_to(np.asarray(step.crowd_s), np.shape(step.busy_s))[0, index])
            busy, delay = busy + more, delay - more if delay < 0 else delay  # a transfer that nothing waits for
        if _distance(step) > 0:
            ahead += busy
            ahead_latency = max(ahead_latency, delay)
            stages = _distance(step)
            continue
        assert step.resource is not None
        left = step in computing[:-1] and step.name not in waited_for
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


def _own(step: Step, resources: Mapping[str, Resource]) -> bool:
    return step.resource is not None and resources[step.resource].copies != 1


def _distance(step: Step) -> float:
    return max((float(np.max(dependence.distance)) for dependence in step.after), default=0.0)


def makespan_s(durations_s: Array, copies: int, pace: Array) -> float:
    """When the last of some blocks ends that start in order, each at the place that is free first.

    `copies` multiprocessors have a place for each entry of `pace`: what a block takes where so many are, over what it
    takes where all places are taken. When no more start, the multiprocessors run empty.
    """
    places = copies * pace.size
    if durations_s.size > 40 * places:  # so many that the order of all but the last ones does not matter
        head, tail = durations_s[: -20 * places], durations_s[-20 * places :]
        return float(head.sum()) / places + makespan_s(tail, copies, pace)
    ends = [(end, place) for place, end in enumerate(durations_s[:places].tolist())]
    heapq.heapify(ends)
    started = 0.0
    for duration in durations_s[places:].tolist():
        started, place = ends[0]
        heapq.heapreplace(ends, (started + duration, place))
    left = np.zeros(places)
    for end, place in ends:
        left[place] = end - started
    left = np.sort(left.reshape(pace.size, copies), axis=0)
    return started + float((np.diff(left, axis=0, prepend=0.0) * pace[::-1, None]).sum(axis=0).max())
