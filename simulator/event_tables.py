"""The streams of one phase as flat arrays, which the compiled event engine reads and changes.

There are servers (one per copy of a resource), lanes (one per slot of a stream on a unit) and actors (one step in one
lane, which runs its tiles in order).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from einsum.errors import EinsightError
from mappings.program import Array, Resource
from simulator.point_stream import PointStream, copies_of, resource_names

Flags = NDArray[np.bool_]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Records = NDArray[Any]

NONE = -1
PROGRESS = 2.0**36  # of a lane that has done all its tiles: streams that share a server advance by equal shares

# Entries of Tables.size. DIRTY and ENDED are the heads of lists that are chained through servers and lanes: servers
# that may be able to start something, and lanes whose instance has ended.
EVENTS, RUNS, CELLS, DIRTY, ENDED, SIZES = range(6)


def _record(**fields: type) -> np.dtype[np.void]:
    return np.dtype(list(fields.items()))


STREAM = _record(lane0=np.int64, instance0=np.int64, instances=np.int64, next=np.int64, cells=np.int64, free=np.int64)
LANE = _record(
    stream=np.int64, unit=np.int64, copy=np.int64, actor0=np.int64, steps=np.int64, cell0=np.int64,
    instance=np.int64, tiles=np.int64, class0=np.int64, tile0=np.int64,  # of the instance that it holds
    left=np.int64, age0=np.int64, next_ended=np.int64, pace=np.float64,  # tile steps to go; tiles of earlier instances
)  # fmt: skip
ACTOR = _record(
    lane=np.int64, step=np.int64, server=np.int64, rank=np.int64, tile=np.int64,
    stage=np.int64, place=np.int64,  # its turn among the actors of its lane on the same server,
    next_same=np.int64,  # which form a ring
    is_queued=np.int64,
)  # fmt: skip
SERVER = _record(
    ready0=np.int64, queued=np.int64, is_busy=np.int64, is_dirty=np.int64, next_dirty=np.int64, busy_s=np.float64
)
INSTANCE = _record(class0=np.int64, tiles=np.int64, tile0=np.int64, lane=np.int64, start_s=np.float64, end_s=np.float64)
STEP = _record(in0=np.int64, in1=np.int64, out0=np.int64, out1=np.int64, slack_s=np.float64)
EDGE = _record(step=np.int64, distance=np.int64)  # the other step, as an index inside the stream
EVENT = _record(time=np.float64, code=np.int64)
RUN = _record(server=np.int64, actor=np.int64, instance=np.int64, tile=np.int64, start_s=np.float64, end_s=np.float64)


class Tables(NamedTuple):
    """What the engine reads and changes: one record per thing (fields above), and flat lists.

    Actors of lane l are lanes[l]["actor0"] onwards, one per step of its stream; steps[s]["in0"]:["in1"] are the edges
    of step s to those that it waits for, ["out0"]:["out1"] those to its dependents. A cell is a (tile, step) of the
    instance that a lane holds.
    """

    streams: Records
    lanes: Records
    actors: Records
    servers: Records
    instances: Records
    steps: Records
    edges: Records
    times: Array  # (steps, classes, 2): busy and latency seconds
    classes: Int32  # tile classes of all instances
    by_rank: Int64  # rank -> actor
    waits: Int32  # per cell: dependences that have not ended
    ready: Int64  # per server: a heap of priorities
    free: Int64  # per stream, from its first lane on: lanes without an instance
    unit_load: Int64  # instances on each unit
    events: Records  # a heap
    size: Int64
    record: Flags  # whether to keep `runs`
    tile_end: Array  # when each tile of each instance ended, from instances[i]["tile0"] on
    runs: Records  # every execution, in order of start: the first size[RUNS]


@dataclass(frozen=True)
class Layout:
    """How the servers of the tables are named: `resources[r]` owns servers server0[r]:server0[r + 1]."""

    resources: tuple[str, ...]
    server0: tuple[int, ...]


@dataclass(frozen=True)
class Limit:
    """How much of a stream is simulated: its first `instances`, and of each the first `tiles` (None: all)."""

    instances: int
    tiles: int | None = None


def build_tables(
    streams: Sequence[PointStream],
    resources: Mapping[str, Resource],
    limits: Sequence[Limit],
    points: int,
    record: bool,
) -> tuple[Tables, Layout]:
    """Lay the streams of one phase out as flat arrays, cut to `limits`; `record` makes room for every execution."""
    layout = _layout(streams, resources, points)
    table, instances, classes = _streams(streams, limits)
    lanes = _lanes(streams)
    actors, servers = _actors(streams, lanes, layout)
    steps, edges = _edges(streams)
    cells = int((np.minimum([each.lanes for each in streams], table["instances"]) * table["cells"]).sum())
    owner = np.repeat(np.arange(len(streams)), table["instances"])
    step_counts = np.array([len(each.stream.steps) for each in streams], dtype=np.int64)
    runs = int((instances["tiles"] * step_counts[owner]).sum()) if record else 0
    size = np.zeros(SIZES, dtype=np.int64)
    size[[DIRTY, ENDED]] = NONE
    tables = Tables(
        streams=table,
        lanes=lanes,
        actors=actors,
        servers=servers,
        instances=instances,
        steps=steps,
        edges=edges,
        times=_times(streams),
        classes=classes,
        by_rank=np.argsort(actors["rank"]),
        waits=np.zeros(cells, dtype=np.int32),
        ready=np.zeros(actors.size, dtype=np.int64),
        free=np.arange(lanes.size),
        unit_load=np.zeros(int(lanes["unit"].max(initial=NONE)) + 1, dtype=np.int64),
        # Each busy server has one event, and each cell at most one more: that of its latency.
        events=np.empty(servers.size + cells + 1, dtype=EVENT),
        size=size,
        record=np.full(1, record),
        tile_end=np.zeros(int(instances["tiles"].sum())),
        runs=np.empty(runs, dtype=RUN),
    )
    return tables, layout


def _streams(streams: Sequence[PointStream], limits: Sequence[Limit]) -> tuple[Records, Records, Int32]:
    """Streams, instances, and the tile classes; instances with the same sequence share one copy of it."""
    table, instances = _zeros(STREAM, len(streams)), _zeros(INSTANCE, sum(limit.instances for limit in limits))
    table["instances"] = [limit.instances for limit in limits]
    table["instance0"] = _starts(table["instances"])[:-1]
    table["free"] = [each.lanes for each in streams]
    table["lane0"] = _starts(table["free"])[:-1]
    known: dict[bytes, int] = {}
    pieces: list[Int32] = [np.zeros(0, dtype=np.int32)]
    total = 0
    for row, each, limit in zip(table, streams, limits, strict=True):
        for instance in range(limit.instances):
            sequence = each.sequence(instance, limit.tiles)
            start = known.setdefault(sequence.tobytes(), total)
            if start == total:
                pieces.append(sequence)
                total += sequence.size
            instances[row["instance0"] + instance]["class0"] = start
            instances[row["instance0"] + instance]["tiles"] = sequence.size
        mine = instances["tiles"][row["instance0"] : row["instance0"] + row["instances"]]
        row["cells"] = mine.max(initial=0) * len(each.stream.steps)
    instances["tile0"] = _starts(instances["tiles"])[:-1]
    return table, instances, np.concatenate(pieces)


def _lanes(streams: Sequence[PointStream]) -> Records:
    """Lanes of a stream go round the units first, then to the next slot: the order in which instances are dealt out.

    Streams with equally many units run on the same ones and count their load together.
    """
    unit0: dict[int, int] = {}
    for each in streams:
        unit0.setdefault(each.units, sum(unit0))
    lanes = _zeros(LANE, sum(each.lanes for each in streams))
    for name, column in {
        "stream": [np.full(each.lanes, index) for index, each in enumerate(streams)],
        "copy": [np.tile(np.arange(each.units), each.slots) for each in streams],
        "unit": [np.tile(np.arange(each.units) + unit0[each.units], each.slots) for each in streams],
        "pace": [np.full(each.lanes, PROGRESS / max(each.tiles_per_lane, 1.0)) for each in streams],
        "steps": [np.full(each.lanes, len(each.stream.steps)) for each in streams],
    }.items():
        lanes[name] = np.concatenate([np.zeros(0), *column])
    lanes["actor0"] = _starts(lanes["steps"])[:-1]
    lanes["cell0"] = NONE
    return lanes


def _actors(streams: Sequence[PointStream], lanes: Records, layout: Layout) -> tuple[Records, Records]:
    """One actor per lane and step. A step without a resource gets a server of its own in every lane."""
    actors = _zeros(ACTOR, int(lanes["steps"].sum()))
    lane = actors["lane"] = np.repeat(np.arange(lanes.size), lanes["steps"])
    stream = lanes["stream"][lane]
    position = np.arange(actors.size) - lanes["actor0"][lane]
    actors["step"] = position + _starts([len(each.stream.steps) for each in streams])[stream]
    server = np.full(actors.size, NONE, dtype=np.int64)
    place = {name: index for index, name in enumerate(layout.resources)}
    for index, each in enumerate(streams):
        for number, step in enumerate(each.stream.steps):
            if step.resource is not None:
                first, end = layout.server0[place[step.resource]], layout.server0[place[step.resource] + 1]
                mine = (stream == index) & (position == number)
                server[mine] = first + lanes["copy"][lane[mine]] % (end - first)
    own = np.flatnonzero(server == NONE)
    server[own] = layout.server0[-1] + np.arange(own.size)
    actors["server"] = server
    pipelines = [each.pipeline for each in streams]
    for name in ("stage", "place"):
        by_step = np.concatenate([np.zeros(0, dtype=np.int64), *(getattr(each, name) for each in pipelines)])
        actors[name] = by_step[actors["step"]]
    actors["rank"][np.lexsort((lane, stream, actors["place"]))] = np.arange(actors.size)
    actors["next_same"] = _rings(lane, server)
    servers = _zeros(SERVER, layout.server0[-1] + own.size)
    servers["ready0"] = _starts(np.bincount(server, minlength=servers.size))[:-1]
    return actors, servers


def _rings(lane: Int64, server: Int64) -> Int64:
    """For each actor the next one with the same lane and server; the last one is followed by the first."""
    order = np.lexsort((lane, server))
    starts = np.flatnonzero(np.diff(lane[order], prepend=NONE) | np.diff(server[order], prepend=NONE))
    following = np.arange(1, order.size + 1)
    following[np.append(starts[1:], order.size)[: starts.size] - 1] = starts
    rings = np.empty(order.size, dtype=np.int64)
    rings[order] = order[following]
    return rings


def _edges(streams: Sequence[PointStream]) -> tuple[Records, Records]:
    """The steps of all streams and their dependences, once seen from each side."""
    steps = _zeros(STEP, sum(len(each.stream.steps) for each in streams))
    edges: list[tuple[int, int]] = []
    index = 0
    for each in streams:
        for number in range(len(each.stream.steps)):
            waits_for = [(first, distance) for first, then, distance in each.edges if then == number]
            dependents = [(then, distance) for first, then, distance in each.edges if first == number]
            middle = len(edges) + len(waits_for)
            steps[index] = (len(edges), middle, middle, middle + len(dependents), each.pipeline.slack_s[number])
            edges += waits_for + dependents
            index += 1
    return steps, np.array(edges, dtype=EDGE)


def _times(streams: Sequence[PointStream]) -> Array:
    classes = max((each.counts.size for each in streams), default=0)
    times = np.zeros((sum(len(each.stream.steps) for each in streams), classes, 2))
    first = 0
    for each in streams:
        block = times[first : first + len(each.stream.steps), : each.counts.size]
        block[..., 0], block[..., 1] = each.busy_s, each.latency_s
        first += len(each.stream.steps)
    return times


def _zeros(record: np.dtype[np.void], count: int) -> Records:
    return np.zeros(count, dtype=record)


def _starts(sizes: Sequence[int] | Int64) -> Int64:
    """Where each of several consecutive blocks starts, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(np.asarray(sizes, dtype=np.int64))]).astype(np.int64)


def _layout(streams: Sequence[PointStream], resources: Mapping[str, Resource], points: int) -> Layout:
    copies = {
        name: copies_of(resources, each.stream, name, points, each.point)
        for each in streams
        for name in resource_names(each.stream)
    }
    for each in streams:
        for name in resource_names(each.stream):
            if each.units % copies[name]:
                message = (
                    f"stream '{each.stream.name}' runs on {each.units} copies, "
                    f"which {copies[name]} copies of resource '{name}' cannot share evenly"
                )
                raise EinsightError(message)
    return Layout(tuple(copies), tuple(int(start) for start in _starts(list(copies.values()))))
