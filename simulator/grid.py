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

from collections.abc import Mapping
from functools import cache

import numpy as np
from numpy.typing import NDArray

from mappings.program import Array, Phase, Resource, Stream, TileProgram, over_classes
from simulator.class_cost import ClassCost, class_costs, merged


def grid_time(phase: Phase, program: TileProgram) -> tuple[Array, NDArray[np.str_]]:
    """Seconds of a phase of grids, one after another where there are several, and what bounds it; one design point."""
    total, longest, bound = 0.0, -1.0, ""
    for stream in phase.streams:
        seconds, by = _stream_time(stream, program.resources, program.energy_j)
        total += seconds
        if seconds > longest:
            longest, bound = seconds, by
    return np.array([total]), np.array([bound])


def settled(
    stream: Stream, resources: Mapping[str, Resource], energy_j: Mapping[tuple[str, str], Array]
) -> tuple[Grid, float]:
    """The grid of a stream at the clock that the power limit leaves it, and its seconds without the ramps."""
    residency = stream.residency
    assert residency is not None
    copies = max(int(np.max(resource.copies)) for resource in resources.values())
    instances, slots = int(np.max(stream.instances)), int(np.max(stream.slots))
    grid = Grid(stream, resources, copies)
    shared_s = [float(load.sum()) * instances for load in grid.shared_s.values()]

    @cache  # the power limit's root finder asks again for what it knows
    def run_s(throttle: float) -> float:
        grid.throttle = throttle
        counts = residency.counts
        grid_s = grid.even_s(instances, slots) if counts is None else grid.uneven_s(counts, slots)
        return max([grid_s, *shared_s])

    seconds = run_s(1.0)
    if residency.power is not None:
        grid.alone_s(min(slots, -(-instances // copies)))  # the clock that full multiprocessors have
        throttle = residency.power.stretch(run_s, dynamic_j(stream, energy_j) * instances, 1 / grid.slowdown)
        seconds = run_s(throttle) if throttle > 1 else seconds
        grid.throttle = max(throttle, 1.0)
    return grid, max(seconds, residency.start_s * instances)


def ramp_s(stream: Stream, seconds: float, outermost_s: float) -> float:
    """Seconds at both ends of a grid in which the outermost resource is not in full use."""
    assert stream.residency is not None
    return stream.residency.ramp_s * min(1.0, outermost_s / seconds) if seconds > 0 else 0.0


def _stream_time(
    stream: Stream, resources: Mapping[str, Resource], energy_j: Mapping[tuple[str, str], Array]
) -> tuple[float, str]:
    grid, seconds = settled(stream, resources, energy_j)
    residency, instances = grid.residency, int(np.max(stream.instances))
    shared_s = {name: float(load.sum()) * instances for name, load in grid.shared_s.items()}
    seconds += ramp_s(stream, seconds, shared_s.get(residency.outermost, 0.0))
    heaviest = max(shared_s, key=lambda name: shared_s[name], default="")
    if heaviest and shared_s[heaviest] > 0.7 * seconds:
        return seconds, heaviest
    unit, busy = _busiest(stream, resources, grid.costs)
    return seconds, unit if busy * instances / grid.copies > 0.5 * seconds else "latency"


def dynamic_j(stream: Stream, energy_j: Mapping[tuple[str, str], Array], point: int = 0) -> float:
    """Joules of the actions of one block at the nominal clock; the mean where blocks differ."""
    points = len(stream.counts)
    joules = {action: float(np.broadcast_to(each, (points, 1))[point, 0]) for action, each in energy_j.items()}
    total = 0.0
    for step in stream.steps:
        for action, count in step.actions.items():
            total += float(over_classes(count * stream.counts)[point]) * joules[action]
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
        self.costs = class_costs(stream, resources, crowded=True)
        self.ahead = np.array([cost.stages > max(1.0, cost.lost_stages) for cost in self.costs])
        self.ahead_s = np.array([cost.ahead_s for cost in self.costs])
        self.piped = np.array([1 < cost.stages <= cost.lost_stages + 1 for cost in self.costs])
        self.waiting = any(1 < cost.stages <= cost.lost_stages for cost in self.costs)
        self.at_once = np.array([cost.stages <= 1 for cost in self.costs])
        # Tiles whose loads from the memory are under way at a time take turns, as those of a block that waits for each.
        self.turn_s = np.array([cost.fill_s(1) / max(cost.stages - cost.lost_stages, 1.0) for cost in self.costs])
        self.sharpness = stream.residency.sharpness
        teams, in_flight = stream.residency.teams, stream.residency.in_flight
        lone = [cost.round_s(1, teams, in_flight)[0] if cost.stages <= 1 else 0.0 for cost in self.costs]
        self.lone_s = np.array(lone)
        self.counts = stream.counts[0]
        uneven = stream.residency.counts
        self.walked = None if uneven is None else (uneven > 0).astype(np.float64)  # (instances, classes)
        # Blocks without a pipeline are short and come in many waves: between the first and the last they ask for what
        # they share at different times. Blocks of long loops stay in step.
        self.short = bool(self.at_once[self.counts > 0].all())
        self.between = class_costs(stream, resources) if self.short else self.costs
        self.slowdown = self.throttle = 1.0
        self._found: dict[int, tuple[Array, Array, float]] = {}
        tile_s: dict[str, Array] = {}
        nothing = np.zeros((1, classes))
        self._drawing_s = 0.0
        for step in stream.steps:
            if step.resource is None:
                continue
            busy = (step.busy_s + nothing)[0]
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
        ahead = resident * self.ahead_s
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
        turning_s = np.where(outermost_s > 0, bound_s(self.turn_s * counts, outermost_s, self.sharpness), 0.0)
        streaming = np.maximum(np.maximum(own_s, outermost_s / residency.even_share), turning_s)
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
            seconds += (full - 1) * self.between_s(whole, places)
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

    def between_s(self, whole_s: float, places: int) -> float:
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
        assert self.walked is not None
        own = counts * rounds + self.walked * fills
        if instances <= active:
            durations = self.together_s(own, active, counts).sum(axis=1) + self.residency.setup_s
        else:
            durations = own.sum(axis=1) + self.residency.setup_s  # the same for equal blocks, to the last bit
            durations *= self.between_s(whole, active) / durations.mean()
        # Where a place stays free, those beside it go on faster.
        fewer = [self.alone_s(count)[2] for count in range(1, resident)]
        pace = np.minimum(np.array([*fewer, whole]) / max(whole, 1e-30), 1.0)
        return makespan_s(durations, self.copies, pace) + float(self.residency.start_s * active)


def _busiest(stream: Stream, resources: Mapping[str, Resource], costs: list[ClassCost]) -> tuple[str, float]:
    """The unit of a multiprocessor with the most work per block, and that work in seconds."""
    work: dict[str, float] = {}
    for step in stream.steps:
        if step.resource is not None and resources[step.resource].copies > 1:
            busy = float((step.busy_s * stream.counts).sum())
            work[step.resource] = work.get(step.resource, 0.0) + busy
    return max(work.items(), key=lambda item: item[1], default=("latency", 0.0))


def makespan_s(durations_s: Array, copies: int, pace: Array) -> float:
    """When the last of some blocks ends that start in order, each at the place that is free first.

    `copies` multiprocessors have a place for each entry of `pace`: what a block takes where so many are, over what it
    takes where all places are taken. When no more start, the multiprocessors run empty.
    """
    places = copies * pace.size
    if durations_s.size > 12 * places:  # so many that the order of all but the last ones does not matter
        head, tail = durations_s[: -6 * places], durations_s[-6 * places :]
        return float(head.sum()) / places + makespan_s(tail, copies, pace)
    ends, waiting, started = durations_s[:places].copy(), durations_s[places:], 0.0
    while waiting.size:  # as many at a time as start before the first of them ends
        order = ends.argsort(kind="stable")[: waiting.size]
        starts = ends[order]
        following = starts + waiting[: order.size]
        early = np.append(starts[1:] < np.minimum.accumulate(following)[:-1], False)
        many = int(early.argmin()) + 1
        ends[order[:many]] = following[:many]
        started, waiting = float(starts[many - 1]), waiting[many:]
    left = np.zeros(places)
    left[: ends.size] = ends - started
    left = np.sort(left.reshape(pace.size, copies), axis=0)
    return started + float((np.diff(left, axis=0, prepend=0.0) * pace[::-1, None]).sum(axis=0).max())
