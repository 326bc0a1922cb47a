"""The tile program: the one form between every description and every evaluator.

Lowering turns (cascade, mapping, architecture) into a `TileProgram`; the analytic and the event evaluator read
nothing else. A program is a list of phases that run one after another. A phase is a set of streams that run side by
side and share resources. A stream is a sequence of tiles; each tile executes the stream's steps, subject to
dependences inside the tile, on earlier tiles (recurrences) and through finite buffers.

Array convention. Every quantity of a step is an array that broadcasts to (points, classes): axis 0 runs over the
design points that are evaluated together, axis 1 over the stream's tile classes. Tiles of one class are alike: the same
steps run, each with the same work. `Stream.counts` says how many tiles of each class there are, `Stream.order`
gives their sequence for one design point (the event evaluator asks for it, the analytic one never does).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


_ADDED_ONE_BY_ONE = 64


def over_classes(values: Array) -> Array:
    """The sum over tile classes, (points,). Few classes are added in their order, however they lie in memory."""
    if values.shape[1] > _ADDED_ONE_BY_ONE:
        return np.asarray(values.sum(axis=1))
    return reduce(add, (values[:, place] for place in range(values.shape[1])))


@dataclass(frozen=True)
class Resource:
    """Something that one step at a time occupies: an array, a pipe, a memory port, a channel.

    `copies` identical ones exist (the SMs of a GPU, the channels of a drive), (points,). With more than one copy the
    resource is private: a stream instance (a thread block, a channel's queue) runs on one copy from start to end.
    """

    name: str
    copies: Array | int = 1


@dataclass(frozen=True)
class Dependence:
    """The step named waits for `step` of the tile `distance` places earlier in the stream (0: the same tile).

    `distance` broadcasts to (points,) and is at least 0. A dependence on a tile before the first is satisfied.
    """

    step: str
    distance: Array | int = 0


@dataclass(frozen=True)
class Traffic:
    """Bytes that one execution of a step reads from and writes to one memory for one tensor: (points, classes)."""

    read_bytes: Array | float = 0.0
    write_bytes: Array | float = 0.0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(self.read_bytes + other.read_bytes, self.write_bytes + other.write_bytes)


@dataclass(frozen=True)
class Step:
    """One piece of work of a tile.

    resource      the resource that it occupies, or None for a pure delay or a join
    busy_s        seconds on that resource, (points, classes); 0 in classes whose tiles do not run the step
    latency_s     further seconds until dependents may start, the resource being free again already; not charged in
                  classes that do not run the step
    slack_s       the part of the latency that does not add up with the resource's work for others at the same time
    after         dependences; besides them a step runs its own tiles in order
    beside        of a grid's step: the step before that it starts together with; what waits for that waits for both
    traffic       (memory level, tensor) -> bytes moved by one execution
    actions       (component, action) -> number of energy actions by one execution, e.g. ("array_2d", "mac")
    work          unit -> operations x cycles done by one execution, the numerator of the unit's utilization
    takes         resource -> part of its time that the step takes while it is busy, without waiting for it
    crowd_s       of a grid's step: further seconds on its resource where all copies run it at the same time
    """

    name: str
    resource: str | None
    busy_s: Array | float
    latency_s: Array | float = 0.0
    after: tuple[Dependence, ...] = ()
    traffic: Mapping[tuple[str, str], Traffic] = field(default_factory=dict)
    actions: Mapping[tuple[str, str], Array | float] = field(default_factory=dict)
    work: Mapping[str, Array | float] = field(default_factory=dict)
    slack_s: float = 0.0
    takes: Mapping[str, float] = field(default_factory=dict)
    beside: str = ""
    crowd_s: Array | float = 0.0


class TileOrder(Protocol):
    """The sequence of tile classes of one stream instance at one design point."""

    def __call__(self, point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
        """Class of each tile in execution order, or of the first `limit` tiles."""


@dataclass(frozen=True)
class PowerLimit:
    """What a device may draw on average when the same work runs again and again.

    limit_w   beyond it the clock is lowered
    idle_w    drawn whatever runs
    exponent  energy of an action falls with this power of the clock, since the voltage falls with it
    pause_s, pause_w   between two runs, and what is drawn then
    """

    limit_w: float
    idle_w: float
    exponent: float
    pause_s: float = 0.0
    pause_w: float = 0.0

    def stretch(self, run_s: Callable[[float], float], dynamic_j: float, clock: float = 1.0) -> float:
        """By how much a cycle is longer, of a run that takes `run_s(stretch)` seconds then, at a share `clock` of the
        nominal clock unstretched, and whose actions take `dynamic_j` at the nominal one."""

        def excess_w(share: float) -> float:
            seconds = run_s(clock / share)
            if seconds <= 0:
                return 0.0
            drawn_j = self.idle_w * seconds + dynamic_j * share**self.exponent + self.pause_w * self.pause_s
            return float(drawn_j / (seconds + self.pause_s) - self.limit_w)

        if excess_w(clock) <= 0:
            return 1.0
        from scipy.optimize import brentq

        low = 0.2 * clock
        return float(clock / (brentq(excess_w, low, clock, rtol=1e-4) if excess_w(low) < 0 else low))


@dataclass(frozen=True)
class Droop:
    """How the clock falls while a resource works.

    resource   the one that draws most
    at_once    part of the clock that is lost as soon as it is used at all
    lost       further part that is lost when it works all the time; else with the square of its share of the time
    """

    resource: str = ""
    at_once: float = 0.0
    lost: float = 0.0

    def stretch(self, share: float) -> float:
        """How much longer a cycle lasts when the resource works for that share of the time."""
        return 1 / ((1 - self.at_once) * (1 - self.lost * min(1.0, share) ** 2)) if share > 0 else 1.0


@dataclass(frozen=True)
class Residency:
    """How the instances of a grid share a copy of the private resources, where that is told apart.

    teams    groups of threads in an instance that each run a part of every step, side by side
    in_flight  tiles that a team works on at a time
    free     teams do not meet at barriers for each tile
    counts   tiles of each class of each instance in starting order, (instances, classes); None when all are alike
    start_s  seconds between the starts of two instances, over all copies
    setup_s  seconds of an instance before its first tile
    outermost  the shared resource that is furthest away: how much of it is reached depends on the requests under way
    ramp_s   seconds at the beginning and end in which shared resources are not yet, or no longer, in full use
    droop    how the clock falls while a resource works
    power    what the whole may draw; None where that is not known
    sharpness    how sharply the time turns from bound by latency to bound by the outermost resource: the p of
                 t = (t1^p + t2^p)^(1/p); infinite: the longer of the two
    even_share   part of the outermost resource's rate that instances reach which stream each over its own
    lost_stages  stages of a load pipeline that cover none of a load's latency: the tile in use at least
    near_sharpness  as sharpness, to bound by the other shared resources
    """

    teams: int = 1
    in_flight: int = 1
    counts: Array | None = None
    start_s: float = 0.0
    setup_s: float = 0.0
    outermost: str = ""
    ramp_s: float = 0.0
    droop: Droop = Droop()
    power: PowerLimit | None = None
    free: bool = False
    sharpness: float = np.inf
    even_share: float = 1.0
    lost_stages: float = 1.0
    near_sharpness: float = np.inf


@dataclass(frozen=True)
class Stream:
    """A sequence of tiles that run the same steps.

    counts        tiles of each class, (points, classes), for one instance; the mean where instances differ
    order         order(point, instance, limit=None) -> class of each tile, int32 (tiles,), consistent with `counts`;
                  with a limit, that of the first `limit` tiles only (a stream may have more tiles than memory holds)
    instances     identical or similar copies of the stream (thread blocks of a grid), (points,); each runs all tiles
    slots         instances that one copy of the private resources holds at a time (occupancy), (points,)
    first, last   classes of the first and of the last tile, (points,)
    hidden_fill   the first tile's fill and the last one's drain are overlapped with work outside the program
    residency     how instances share the private resources; None when each has a slot of its own
    """

    name: str
    steps: tuple[Step, ...]
    counts: Array
    order: TileOrder
    instances: Array | int = 1
    slots: Array | int = 1
    hidden_fill: bool = False
    first: NDArray[np.intp] | int = 0
    last: NDArray[np.intp] | int = -1
    residency: Residency | None = None


@dataclass(frozen=True)
class Phase:
    """Streams that run side by side; the next phase starts when all have ended. `repeat` such phases run in a row."""

    name: str
    streams: tuple[Stream, ...]
    repeat: Array | int = 1


@dataclass(frozen=True)
class Footprint:
    """What a memory or a drive has to hold, tensor -> bytes, and what it can, all copies together; (points,)."""

    needed_bytes: Mapping[str, Array]
    capacity_bytes: Array


@dataclass(frozen=True)
class TileProgram:
    """Phases in order, what they run on, and what the lowering assumed (shown in every Result).

    energy_j     (component, action) -> energy of one action, (points, 1)
    peak_per_s   unit -> operation slots per second of all its processing elements, (points, 1)
    clock_hz     the clock in which cycles are counted, (points, 1)
    area_m2      silicon area, (points, 1); None when the architecture does not say
    launch_s     seconds before the first phase, and those between one phase and the next
    footprints   memory or drive -> what it has to hold while the program runs, where the mapping says
    """

    phases: tuple[Phase, ...]
    resources: Mapping[str, Resource]
    points: int
    energy_j: Mapping[tuple[str, str], Array]
    peak_per_s: Mapping[str, Array]
    clock_hz: Array
    area_m2: Array | None = None
    assumptions: tuple[str, ...] = ()
    launch_s: tuple[float, float] = (0.0, 0.0)
    footprints: Mapping[str, Footprint] = field(default_factory=dict)
