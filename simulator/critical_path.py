"""What the dependences alone cost: the longest recurrence of a stream, and the longest path through one of its tiles.

A stream's steps and dependences form a graph. A dependence cycle runs through `sum of distances` tiles, so no schedule
starts tiles faster than one per (sum of busy and latency) / (sum of distances): the cycle ratio of the recurrence
(Reiter, "Scheduling Parallel Computations", J. ACM 1968). A path of distance 0 lies inside one tile; the longest one
is the tile's latency. Both are computed for all design points and tile classes at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from graphlib import CycleError, TopologicalSorter
from operator import add

import numpy as np
from numpy.typing import NDArray

from einsum.errors import EinsightError, nearest
from einsum.symbols import as_floats
from mappings.program import Array, Stream

MAX_CYCLES = 10_000


@dataclass(frozen=True)
class Recurrence:
    """A dependence cycle: the steps on it, and the seconds per tile that it enforces, (points, classes)."""

    steps: tuple[str, ...]
    period_s: Array


def recurrence_s(stream: Stream) -> Array:
    """Seconds per tile that the slowest recurrence of the stream enforces, (points, classes).

    Raises EinsightError for a dependence cycle without distance and for more than MAX_CYCLES cycles.
    """
    period = np.zeros(_shape(stream))
    for recurrence in recurrences(stream):
        period = np.maximum(period, recurrence.period_s)
    return period


def recurrences(stream: Stream) -> Iterator[Recurrence]:
    """Every recurrence of the stream: each simple cycle of the dependence graph, and each busy step off all resources.

    A step on a resource that follows itself, tile after tile, is no recurrence here: its time is part of the
    resource's work, and a class of tiles in which it is long overlaps with classes in which it is short.
    """
    names = [step.name for step in stream.steps]
    busy, latency = step_times_s(stream)
    shape = _shape(stream)
    for step, seconds in zip(stream.steps, busy, strict=True):
        if step.resource is None and np.any(seconds > 0):
            yield Recurrence((step.name,), np.broadcast_to(seconds, shape))
    distances = _shortest_distances(stream)
    for cycle in _simple_cycles(stream, distances):
        around = zip(cycle, (*cycle[1:], cycle[0]), strict=True)
        distance = reduce(add, (distances[edge] for edge in around))
        if np.any(distance == 0):
            steps = " -> ".join(names[index] for index in (*cycle, cycle[0]))
            raise EinsightError(f"stream '{stream.name}': the steps {steps} wait for each other within one tile")
        seconds = reduce(add, (busy[index] + latency[index] for index in cycle))
        yield Recurrence(tuple(names[index] for index in cycle), np.broadcast_to(seconds / distance, shape))


@dataclass(frozen=True)
class TilePaths:
    """The steps of a tile that runs alone, by the longest paths through it; each (points, classes), one per step.

    starts  seconds from the tile's start to the step's
    tails   seconds from the end of the step's busy time to the tile's end
    """

    starts: tuple[Array, ...]
    tails: tuple[Array, ...]


def tile_paths_s(stream: Stream) -> TilePaths:
    """When each step of a lone tile starts, and what follows it. EinsightError for steps that wait for each other."""
    busy, latency = step_times_s(stream)
    edges = [
        (first, then, distance == 0)
        for (first, then), distance in _shortest_distances(stream).items()
        if (distance == 0).any()
    ]
    shape = _shape(stream)
    forward = [(first, then, active, busy[first] + latency[first]) for first, then, active in edges]
    backward = [(then, first, active, latency[first] + busy[then]) for first, then, active in edges]
    try:
        starts = _longest([np.zeros(shape) for _ in stream.steps], forward, stream.name)
        tails = _longest([np.broadcast_to(more, shape).copy() for more in latency], backward, stream.name)
    except CycleError:
        raise EinsightError(f"stream '{stream.name}': steps wait for each other within one tile") from None
    return TilePaths(tuple(starts), tuple(tails))


Path = tuple[int, int, NDArray[np.bool_], Array]


def _longest(values: list[Array], edges: Sequence[Path], name: str) -> list[Array]:
    """Raise values[then] to at least values[first] + seconds along each (first, then, active, seconds).

    Where distances vary over the points the graphs of all points are relaxed together, so one topological order need
    not exist; each round then lengthens the known part of every path by at least one step.
    """
    fixed = all(active.all() for _, _, active, _ in edges)
    for _ in range(len(values) + 1):
        changed = False
        for first, then, active, seconds in _ordered(edges) if fixed else edges:
            reached = values[first] + seconds
            if not fixed:
                reached = np.where(active, reached, 0.0)
                changed = changed or bool((reached > values[then]).any())
            values[then] = np.maximum(values[then], reached)
        if not changed:
            return values
    raise EinsightError(f"stream '{name}': steps wait for each other within one tile")


def _ordered(edges: Sequence[Path]) -> list[Path]:
    """Edges such that all into a step come before those out of it; CycleError where there is no such order."""
    before: dict[int, set[int]] = {}
    for first, then, _, _ in edges:
        before.setdefault(then, set()).add(first)
    place = {step: number for number, step in enumerate(TopologicalSorter(before).static_order())}
    return sorted(edges, key=lambda edge: place[edge[0]])


def tile_latency_s(stream: Stream, paths: TilePaths | None = None) -> Array:
    """Seconds from the start to the end of a tile that runs alone, (points, classes): the longest path through it."""
    paths = paths or tile_paths_s(stream)
    busy, _ = step_times_s(stream)
    ends = (start + seconds + tail for start, seconds, tail in zip(paths.starts, busy, paths.tails, strict=True))
    return reduce(np.maximum, ends, np.zeros(_shape(stream)))


def tile_alone_s(stream: Stream) -> Array:
    """Seconds of a tile that runs alone, each resource serving one step at a time, (points, classes).

    Steps are taken in the order of their dependences. Where that order differs between points, they run one by one.
    """
    busy, latency = step_times_s(stream)
    shape = _shape(stream)
    before: dict[int, list[tuple[int, NDArray[np.bool_]]]] = {step: [] for step in range(len(busy))}
    for (first, then), distance in _shortest_distances(stream).items():
        if (distance == 0).any():
            before[then].append((first, distance == 0))
    try:
        graph = {then: [first for first, _ in into] for then, into in before.items()}
        order = list(TopologicalSorter(graph).static_order())
    except CycleError:
        return reduce(add, [*busy, *latency], np.zeros(shape))
    ends = [np.zeros(shape) for _ in busy]
    free: dict[str | None, Array] = {}
    for step in order:
        start = np.zeros(shape)
        for first, inside in before[step]:
            start = np.maximum(start, np.where(inside, ends[first], 0.0))
        resource, runs = stream.steps[step].resource, busy[step] > 0
        if resource is not None:
            start = np.where(runs, np.maximum(start, free.get(resource, np.zeros(shape))), start)
            free[resource] = np.where(runs, start + busy[step], free.get(resource, 0.0))
        ends[step] = start + busy[step] + latency[step]
    return reduce(np.maximum, ends, np.zeros(shape))


def step_times_s(stream: Stream) -> tuple[list[Array], list[Array]]:
    """Busy and latency seconds of every step, each broadcasting to (points, classes).

    A step on a resource does not run in classes where its busy time is 0, so there its latency is 0 too. A step
    without a resource is a pure delay: its latency always counts.
    """
    busy = [as_floats(step.busy_s) for step in stream.steps]
    latency = [
        as_floats(step.latency_s if step.resource is None else np.where(seconds > 0, step.latency_s, 0))
        for step, seconds in zip(stream.steps, busy, strict=True)
    ]
    return busy, latency


def dependences(stream: Stream) -> list[tuple[int, int, Array]]:
    """All dependences: index of the step waited for, of the waiting step, distance in tiles, (points, 1) or (1, 1)."""
    index = {step.name: position for position, step in enumerate(stream.steps)}
    if len(index) < len(stream.steps):
        raise EinsightError(f"stream '{stream.name}': two steps have the same name")
    found: list[tuple[int, int, Array]] = []
    for step in stream.steps:
        for dependence in step.after:
            waits = f"stream '{stream.name}': step '{step.name}' waits for"
            if dependence.step not in index:
                raise EinsightError(f"{waits} an unknown step '{dependence.step}'{nearest(dependence.step, index)}")
            distance = as_floats(dependence.distance).reshape(-1, 1)
            if not (distance >= 0).all():
                raise EinsightError(f"{waits} '{dependence.step}' of a later tile (its distance is negative)")
            found.append((index[dependence.step], index[step.name], distance))
    return found


def path_distances(stream: Stream) -> dict[tuple[int, int], Array]:
    """(a, b) -> tiles between step a and the nearest step b that waits for it, over others too, (points, 1)."""
    nearest_tile = _shortest_distances(stream)
    for middle in range(len(stream.steps)):
        into = [first for first, then in nearest_tile if then == middle]
        out = [then for first, then in nearest_tile if first == middle]
        for first in into:
            for then in out:
                over = nearest_tile[first, middle] + nearest_tile[middle, then]
                nearest_tile[first, then] = np.minimum(nearest_tile.get((first, then), np.inf), over)
    return nearest_tile


def _shortest_distances(stream: Stream) -> dict[tuple[int, int], Array]:
    """The shortest distance between each two dependent steps. For tiles of one class it implies the longer ones."""
    found: dict[tuple[int, int], Array] = {}
    for first, then, distance in dependences(stream):
        found[first, then] = np.minimum(found.get((first, then), np.inf), distance)
    return found


def _simple_cycles(stream: Stream, edges: Iterable[tuple[int, int]]) -> list[tuple[int, ...]]:
    """The simple cycles of the step graph, each as the indices of its steps, the smallest first.

    Depth first from each step over the steps behind it. The graphs are small; a graph library would find the cycles
    too, but loading it takes a fifth of the time in which a simulation has to start.
    """
    follows: dict[int, list[int]] = {}
    for first, then in sorted(edges):
        follows.setdefault(first, []).append(then)
    cycles: list[tuple[int, ...]] = []
    for start in sorted(follows):
        returning = _reaching(start, edges)
        stack = [(start, iter(follows[start]))]
        path = [start]
        while stack:
            then = next(stack[-1][1], -1)
            if then < 0:
                stack.pop()
                path.pop()
            elif then == start:
                cycles.append(tuple(path))
                if len(cycles) > MAX_CYCLES:
                    raise EinsightError(
                        f"stream '{stream.name}' has more than {MAX_CYCLES:,} dependence cycles; use fewer steps"
                    )
            elif then > start and then not in path and then in returning:
                path.append(then)
                stack.append((then, iter(follows.get(then, []))))
    return cycles


def _reaching(goal: int, edges: Iterable[tuple[int, int]]) -> set[int]:
    """Steps from which `goal` is reached over steps that are not before it: the only ones worth following."""
    back: dict[int, list[int]] = {}
    for first, then in edges:
        if first >= goal and then >= goal:
            back.setdefault(then, []).append(first)
    found, pending = {goal}, [goal]
    while pending:
        for first in back.get(pending.pop(), []):
            if first not in found:
                found.add(first)
                pending.append(first)
    return found


def _shape(stream: Stream) -> tuple[int, ...]:
    arrays = [array for step in stream.steps for array in (step.busy_s, step.latency_s)]
    distances = [np.reshape(dependence.distance, (-1, 1)) for step in stream.steps for dependence in step.after]
    return np.broadcast_shapes(np.shape(stream.counts), *(np.shape(array) for array in [*arrays, *distances]))
