"""One stream of a tile program at one design point: plain numbers, checked. The event evaluator works on these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from einsum.errors import EinsightError, nearest
from mappings.program import Array, Resource, Stream, TileProgram
from simulator.critical_path import dependences, step_times_s
from simulator.software_pipeline import Edge, SoftwarePipeline, software_pipeline


@dataclass(frozen=True)
class PointStream:
    """A stream at one design point.

    busy_s, latency_s   (steps, classes)
    edges               (step waited for, waiting step, distance in tiles)
    counts              tiles of each class in one instance, (classes,); a mean where instances differ
    units               copies of the private resource with most copies; 1 without a private resource
    pipeline            the order in which an instance uses its resources
    only_class          every tile is of this class, whatever the stream's order says
    """

    stream: Stream
    point: int
    busy_s: Array
    latency_s: Array
    edges: tuple[tuple[int, int, int], ...]
    counts: Array
    instances: int
    slots: int
    units: int
    pipeline: SoftwarePipeline
    only_class: int | None = None

    @classmethod
    def build(cls, stream: Stream, program: TileProgram, point: int, alone: bool = True) -> PointStream:
        """Reduce `stream` to design point `point`; EinsightError where a number makes no sense.

        `alone` says that its phase has no other stream.
        """
        points, classes = program.points, np.shape(stream.counts)[-1]
        busy, latency = (
            np.array([_row(value, points, point, classes) for value in values]).reshape(len(stream.steps), classes)
            for values in step_times_s(stream)
        )
        for step, times in zip(stream.steps, np.hstack([busy, latency]), strict=True):
            if not (np.isfinite(times).all() and (times >= 0).all()):
                raise EinsightError(
                    f"stream '{stream.name}': step '{step.name}' has a time that is negative or not finite"
                )
        edges = tuple(
            (first, then, round(at_point(distance[:, 0], points, point)))
            for first, then, distance in dependences(stream)
        )
        _check_order_exists(stream, edges)
        counts = _row(stream.counts, points, point, classes)
        if not (np.isfinite(counts).all() and (counts >= 0).all()):
            raise EinsightError(f"stream '{stream.name}': a tile count is negative or not finite")
        instances = round(at_point(stream.instances, points, point))
        slots = round(at_point(stream.slots, points, point))
        if instances < 0 or slots < 1:
            raise EinsightError(
                f"stream '{stream.name}' needs at least 0 instances and 1 slot, not {instances} and {slots}"
            )
        copies = {name: copies_of(program.resources, stream, name, points, point) for name in resource_names(stream)}
        units, slots = max(copies.values(), default=1), min(slots, max(instances, 1))
        sharing = {name: max(min(instances, units * slots) // count, 1) for name, count in copies.items()}
        pipeline = _pipeline(stream, busy, latency, edges, counts, sharing, alone)
        built = cls(stream, point, busy, latency, edges, counts, instances, slots, units, pipeline)
        return built._simplified()

    def _simplified(self) -> PointStream:
        """One instance with tiles of one class only needs no order."""
        used = np.flatnonzero(self.counts)
        if self.instances == 1 and used.size == 1:
            return replace(self, only_class=int(used[0]))
        return self

    @property
    def lanes(self) -> int:
        """Instances that can be under way at the same time."""
        return self.units * self.slots

    @property
    def tiles(self) -> int:
        """Tiles of one instance."""
        return round(float(self.counts.sum()))

    @property
    def tiles_per_lane(self) -> float:
        """Tiles of all instances that follow each other in a lane, on average."""
        return self.tiles * self.instances / self.lanes

    @property
    def tile_steps(self) -> int:
        """Tile steps of all instances."""
        return self.instances * self.tiles * len(self.stream.steps)

    def sequence(self, instance: int, limit: int | None) -> NDArray[np.int32]:
        """Class of each tile of an instance, or of its first `limit` tiles."""
        if self.only_class is not None:
            length = self.tiles if limit is None else min(limit, self.tiles)
            return np.full(length, self.only_class, dtype=np.int32)
        sequence = np.asarray(self.stream.order(self.point, instance, limit), dtype=np.int32)[:limit]
        if sequence.size and not 0 <= sequence.min() <= sequence.max() < self.counts.size:
            raise EinsightError(f"stream '{self.stream.name}': the order names a tile class that has no count")
        if (
            self.instances == 1
            and limit is None
            and (np.bincount(sequence, minlength=self.counts.size) != self.counts).any()
        ):
            raise EinsightError(f"stream '{self.stream.name}': the order of the tiles does not agree with their counts")
        return sequence


def _pipeline(
    stream: Stream,
    busy_s: Array,
    latency_s: Array,
    edges: Sequence[Edge],
    counts: Array,
    sharing: Mapping[str, int],
    alone: bool,
) -> SoftwarePipeline:
    """The software pipeline of the mean tile."""
    share = counts / max(float(counts.sum()), 1.0)
    names = [step.resource for step in stream.steps]
    complete = alone and int(np.count_nonzero(counts)) < 2 and max(sharing.values(), default=1) == 1
    shared_by = [1 if name is None else sharing[name] for name in names]
    return software_pipeline(busy_s @ share, latency_s @ share, names, edges, shared_by, complete)


def copies_of(resources: Mapping[str, Resource], stream: Stream, name: str, points: int, point: int) -> int:
    """Copies of a resource at a design point; EinsightError when the program does not know it."""
    if name not in resources:
        raise EinsightError(f"stream '{stream.name}' uses an unknown resource '{name}'{nearest(name, resources)}")
    copies = round(at_point(resources[name].copies, points, point))
    if copies < 1:
        raise EinsightError(f"resource '{name}' has {copies} copies; it needs at least 1")
    return copies


def at_point(value: ArrayLike, points: int, point: int) -> float:
    """The entry of a number or (points,) array at one design point."""
    return float(np.broadcast_to(np.asarray(value, dtype=np.float64).reshape(-1), (points,))[point])


def _row(value: ArrayLike, points: int, point: int, classes: int) -> Array:
    row: Array = np.broadcast_to(np.asarray(value, dtype=np.float64), (points, classes))[point]
    return row


def resource_names(stream: Stream) -> list[str]:
    """The resources that a stream uses, in order of first use."""
    return list(dict.fromkeys(step.resource for step in stream.steps if step.resource is not None))


def _check_order_exists(stream: Stream, edges: Sequence[tuple[int, int, int]]) -> None:
    """Refuse steps that wait for each other within one tile: they would never start."""
    left = set(range(len(stream.steps)))
    while left:
        blocked = {then for first, then, distance in edges if distance == 0 and first in left and then in left}
        if blocked == left:
            names = ", ".join(stream.steps[index].name for index in sorted(left))
            raise EinsightError(
                f"stream '{stream.name}': among the steps {names} some wait for each other within one tile"
            )
        left = blocked
