"""The order in which a stream instance uses each of its resources: a software pipeline, found before the run.

Tiles start one interval apart; step k of tile i is planned for `start[k] + i * interval`. A plan is feasible if every
dependence holds and, on each resource, the busy times of all steps do not overlap modulo the interval (Rau, "Iterative
Modulo Scheduling", MICRO 1994). The interval is at least the work of the busiest resource and the slowest recurrence;
the smallest feasible one is searched from there. Busy times are never interrupted, so a plan at that bound need not
exist: a long step off a tight recurrence may not fit into any gap that the recurrence leaves on its resource.

Only the order is used, not the planned times: a resource serves the steps of one instance in the order of their
planned starts, each as soon as it can. Run like that, a uniform stream is at least as fast as its plan, and a shorter
step never makes it slower (its times are a max-plus linear system: Baccelli et al., "Synchronization and Linearity",
1992).

Where the plan does not account for all the work (tiles differ and it was made for the mean one, or other instances use
the same resources), a step may overtake one that is planned before it but not yet ready, provided that the recurrences
of the other can take the delay: their slack, shared out evenly among their steps.

Feasibility is decided by branch and bound on pairs of steps that share a resource. The dependences and the decisions
so far leave a range for the difference of two starts; in it a pair may meet in either order, some whole number of
intervals apart, and each of these is an alternative. The pair with the fewest alternatives is decided first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mappings.program import Array

Edge = tuple[int, int, int]

NO_PATH = -1e300
MARGIN = 1e-6  # the interval is this much wider than its bound, so that rounding decides nothing
SEPARATION = 1e-9  # least time from a step to its dependents, in intervals: steps that take no time have an order too
PRECISION = 0.002  # of the interval, where the bound itself is not feasible
MAX_DECISIONS = 2_000  # for one interval


@dataclass(frozen=True)
class SoftwarePipeline:
    """Order of a stream's tile steps on one resource: by `tile + stage`, then by `place`; arrays are (steps,).

    slack_s     a step is overtaken by none that takes longer than this
    interval_s  seconds between tiles in the plan that the order was taken from
    complete    the plan accounts for all the work
    bound_s     the work of the busiest resource and the slowest recurrence, which no plan undercuts
    """

    stage: NDArray[np.int64]
    place: NDArray[np.int64]
    slack_s: Array
    interval_s: float
    bound_s: float
    complete: bool

    @classmethod
    def of_plan(cls, starts: Array, slack_s: Array, interval_s: float, bound_s: float, complete: bool) -> Self:
        """The order in which the steps of a plan start."""
        stage = np.floor(starts / interval_s).astype(np.int64)
        place = np.empty(starts.size, dtype=np.int64)
        place[np.argsort(starts - stage * interval_s, kind="stable")] = np.arange(starts.size)
        return cls(stage, place, slack_s, interval_s, bound_s, complete)


def software_pipeline(
    busy_s: Array,
    latency_s: Array,
    resources: Sequence[str | None],
    edges: Sequence[Edge],
    sharing: Sequence[int],
    complete: bool,
) -> SoftwarePipeline:
    """Order the steps of a stream for the shortest interval between its tiles.

    Raises graphlib.CycleError for steps that wait for each other within one tile.

    busy_s, latency_s  of each step, (steps,); means where tiles differ
    resources          of each step; None for a step that has a unit of its own
    edges              (step waited for, waiting step, distance in tiles)
    sharing            instances that use the same copy of each step's resource
    complete           whether the plan accounts for all the work, so that no step overtakes another
    """
    work: dict[str | int, float] = {}
    for step, (seconds, name, others) in enumerate(zip(busy_s, resources, sharing, strict=True)):
        unit = step if name is None else name
        work[unit] = work.get(unit, 0.0) + float(seconds) * others
    bound_s = max([slowest_cycle_s(busy_s + latency_s, edges), *work.values()], default=0.0)
    scale = bound_s or 1.0
    problem = Problem.of(busy_s / scale, latency_s / scale, resources, edges)
    plan = problem.shortest()
    slack = np.zeros(busy_s.size) if complete else problem.slack(plan.interval)
    return SoftwarePipeline.of_plan(plan.starts * scale, slack * scale, plan.interval * scale, bound_s, complete)


def slowest_cycle_s(seconds: Array, edges: Sequence[Edge]) -> float:
    """The largest (sum of seconds) / (sum of distances) of a cycle: raised from cycle to cycle until none is longer."""
    period = 0.0
    while True:
        cycle = _positive_cycle(seconds, edges, period)
        if not cycle:
            return period
        longer = sum(float(seconds[edge[0]]) for edge in cycle) / sum(edge[2] for edge in cycle)
        if longer <= period * (1 + 1e-12):
            return period
        period = longer


def _positive_cycle(seconds: Array, edges: Sequence[Edge], period: float) -> list[Edge]:
    """Edges of a cycle that needs more than `period` per tile (Bellman and Ford); empty when there is none."""
    steps = seconds.size
    least = 1e-12 * max(float(seconds.sum()), period)
    reached, into = [0.0] * steps, dict[int, Edge]()
    last = -1
    for _ in range(steps + 1):
        last = -1
        for edge in edges:
            arrival = reached[edge[0]] + float(seconds[edge[0]]) - period * edge[2]
            if arrival > reached[edge[1]] + least:
                reached[edge[1]], into[edge[1]], last = arrival, edge, edge[1]
        if last < 0:
            return []
    for _ in range(steps):  # back into the cycle
        last = into[last][0]
    cycle = [into[last]]
    while cycle[-1][0] != last:
        cycle.append(into[cycle[-1][0]])
    return cycle


@dataclass(frozen=True)
class Plan:
    """A start for each step of tile 0, and the interval between tiles, in units of the bound."""

    starts: Array
    interval: float


@dataclass(frozen=True)
class Problem:
    """Steps to be planned, times in units of the bound; `pairs` are those that share a resource, (pairs, 2)."""

    busy: Array
    delay: Array
    edges: tuple[Edge, ...]
    pairs: NDArray[np.intp]

    @classmethod
    def of(cls, busy: Array, latency: Array, resources: Sequence[str | None], edges: Sequence[Edge]) -> Self:
        """Steps that take no time share nothing."""
        pairs = [
            (first, then)
            for first, name in enumerate(resources)
            for then in range(first + 1, len(resources))
            if name is not None and name == resources[then] and busy[first] > 0 and busy[then] > 0
        ]
        delay = np.maximum(busy + latency, SEPARATION)
        return cls(busy, delay, tuple(edges), np.array(pairs, dtype=np.intp).reshape(-1, 2))

    def shortest(self) -> Plan:
        """The plan with the shortest interval that is found, to PRECISION above the bound."""
        best = self.one_by_one()
        low, step = 0.0, 0.0
        while 1 + MARGIN + step < best.interval:
            plan = self.plan(1 + MARGIN + step)
            if plan is not None:
                best = plan
                break
            low, step = step, max(2 * step, PRECISION)
        while best.interval - (1 + MARGIN + low) > PRECISION * 1.01 and low > 0:
            middle = (low + best.interval - 1 - MARGIN) / 2
            plan = self.plan(1 + MARGIN + middle)
            if plan is None:
                low = middle
            else:
                best = plan
        return best

    def one_by_one(self) -> Plan:
        """Each step after the end of all before it, each tile after the end of the one before."""
        before: dict[int, list[int]] = {step: [] for step in range(self.busy.size)}
        for first, then, distance in self.edges:
            if distance == 0:
                before[then].append(first)
        starts, now = np.zeros(self.busy.size), 0.0
        for step in TopologicalSorter(before).static_order():
            starts[step] = now
            now += float(self.delay[step])
        return Plan(starts, now + SEPARATION)

    def plan(self, interval: float) -> Plan | None:
        """A plan with this interval; None when there is none, or none is found in MAX_DECISIONS."""
        apart = self._from_dependences(interval)
        if apart is None:
            return None
        open_nodes: list[Iterator[Node]] = [iter([Node(apart, self.pairs)])]
        decisions = 0
        while open_nodes and decisions <= MAX_DECISIONS:
            node = next(open_nodes[-1], None)
            if node is None:
                open_nodes.pop()
                continue
            decisions += 1
            settled = self._settle(node, interval)
            if settled is None:
                continue
            if not settled.pairs.size:
                return Plan(np.maximum(settled.apart.max(axis=0), 0.0), interval)
            open_nodes.append(self._alternatives(settled, interval))
        return None

    def _from_dependences(self, interval: float) -> Array | None:
        """[a, b] the least start of b minus that of a; None if the interval is shorter than a recurrence."""
        steps = self.busy.size
        apart = np.full((steps, steps), NO_PATH)
        np.fill_diagonal(apart, 0.0)
        for first, then, distance in self.edges:
            apart[first, then] = max(apart[first, then], self.delay[first] - interval * distance)
        for middle in range(steps):
            np.maximum(apart, apart[:, middle, None] + apart[middle], out=apart)
        return apart if bool((np.diag(apart) <= 0).all()) else None

    def slack(self, interval: float) -> Array:
        """Each step's share of the time by which it may be late without delaying itself one or more tiles later."""
        apart = self._from_dependences(interval)
        assert apart is not None
        around = apart + apart.T
        np.fill_diagonal(around, NO_PATH)
        for first, then, distance in self.edges:
            if first == then:
                around[first, first] = max(around[first, first], self.delay[first] - interval * distance)
        together = (around > NO_PATH / 2).sum(axis=1)
        return np.asarray(-around.max(axis=1) / np.maximum(together, 1))

    def _settle(self, node: Node, interval: float) -> Node | None:
        """Decide every pair that has one alternative left; None when a pair has none."""
        apart, pairs = node.apart, node.pairs
        while pairs.size:
            least, most = self._turns(apart, pairs, interval)
            if (least > most).any():
                return None
            forced = np.flatnonzero(least == most)
            if not forced.size:
                break
            place = int(forced[0])
            decided = self._decided(apart, pairs[place], float(least[place]), interval)
            if decided is None:
                return None
            apart, pairs = decided, np.delete(pairs, place, axis=0)
        return Node(apart, pairs)

    def _turns(self, apart: Array, pairs: NDArray[np.intp], interval: float) -> tuple[Array, Array]:
        """For each pair (a, b) the fewest and the most whole intervals by which b of a later tile may follow a.

        b starts when a has ended, `turns` intervals early, and a of the next tile when b has ended:
        busy_a <= start_b - start_a + turns * interval <= interval - busy_b.
        """
        first, then = pairs.T
        with np.errstate(over="ignore"):
            least = np.ceil((self.busy[first] + apart[then, first]) / interval)
            most = np.floor((interval - self.busy[then] - apart[first, then]) / interval)
        return least, most

    def _decided(self, apart: Array, pair: NDArray[np.intp], turns: float, interval: float) -> Array | None:
        first, then = int(pair[0]), int(pair[1])
        after = _further(apart, first, then, float(self.busy[first]) - turns * interval)
        if after is None:
            return None
        return _further(after, then, first, float(self.busy[then]) + (turns - 1) * interval)

    def _alternatives(self, node: Node, interval: float) -> Iterator[Node]:
        """The pair with the fewest alternatives decided in each way; that closest to the earliest starts comes first.

        Where a side of the range is open, the pair can always be put off by one more interval: two ways are tried.
        """
        least, most = self._turns(node.apart, node.pairs, interval)
        place = int(np.argmin(most - least))
        first, then = node.pairs[place]
        earliest = np.maximum(node.apart.max(axis=0), 0.0)
        lead = earliest[then] - earliest[first]
        best = (interval - self.busy[then] + self.busy[first]) / 2 - lead
        wanted = float(np.clip(np.round(best / interval), least[place], most[place]))
        low, high = max(float(least[place]), wanted - 2), min(float(most[place]), wanted + 2)
        ways = sorted(np.arange(low, high + 1), key=lambda turns: abs(turns * interval - best))
        rest = np.delete(node.pairs, place, axis=0)
        for turns in ways:
            decided = self._decided(node.apart, node.pairs[place], float(turns), interval)
            if decided is not None:
                yield Node(decided, rest)


@dataclass(frozen=True)
class Node:
    """Decisions so far: the least differences between starts, closed over paths, and the pairs not yet decided."""

    apart: Array
    pairs: NDArray[np.intp]


def _further(apart: Array, first: int, then: int, seconds: float) -> Array | None:
    """`apart` with `then` at least `seconds` after `first`; None when that cannot be."""
    if apart[first, then] >= seconds:
        return apart
    if apart[then, first] + seconds > 0:
        return None
    return np.asarray(np.maximum(apart, (apart[:, first] + seconds)[:, None] + apart[then]))
