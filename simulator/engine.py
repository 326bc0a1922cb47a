"""The compiled inner loop of the event evaluator (see `simulator.event` for what it computes).

Time advances from event to event. At each time all ends are handled first (servers become free, dependents become
ready, instances that have ended give their lane to the next one), then every free server starts the first of its
ready tile steps that is not held back. So the result does not depend on the order in which simultaneous events are
handled.

It brings in numba; import it where it is used. The functions that run for every tile step take the arrays
that they need one by one: handing over the whole tuple would count references of all its arrays on each call.
"""

from __future__ import annotations

from einsum.compiling import compiled
from mappings.program import Array
from simulator.event_tables import (
    CELLS,
    DIRTY,
    ENDED,
    EVENTS,
    NONE,
    RUNS,
    Flags,
    Int32,
    Int64,
    Records,
    Tables,
)

# An event's code: which actor, which tile, and what happens (bits of the kind).
RELEASE, DONE = 1, 2
KIND_BITS, TILE_BITS = 2, 32


def simulate(tables: Tables) -> None:
    """Run the tables to the end; what was found is in their last fields."""
    _run(tables)


@compiled
def _run(tables: Tables) -> None:
    lanes, actors, servers, steps, edges = tables.lanes, tables.actors, tables.servers, tables.steps, tables.edges
    times, classes, waits, ready = tables.times, tables.classes, tables.waits, tables.ready
    events, tile_end, size = tables.events, tables.tile_end, tables.size
    by_rank, runs, record = tables.by_rank, tables.runs, tables.record
    time = 0.0
    _deal_out(tables, time)
    while True:
        while True:
            while size[EVENTS] > 0 and events[0]["time"] == time:
                code = _pop_event(events, size)
                actor = code >> (KIND_BITS + TILE_BITS)
                tile = (code >> KIND_BITS) & ((1 << TILE_BITS) - 1)
                if code & RELEASE:
                    _release(lanes, actors, servers, times, classes, waits, ready, size, actor)
                if code & DONE:
                    _complete(
                        lanes, actors, servers, steps, edges, times, classes, waits, ready, events, tile_end, size,
                        time, actor, tile,
                    )  # fmt: skip
            if size[ENDED] == NONE:
                break
            _turn_over(tables, time)
        while size[DIRTY] != NONE:
            server = size[DIRTY]
            size[DIRTY] = servers[server]["next_dirty"]
            servers[server]["is_dirty"] = 0
            while servers[server]["is_busy"] == 0 and servers[server]["queued"] > 0:
                actor = by_rank[_pop_ready(servers, ready, server) % actors.size]
                actors[actor]["is_queued"] = 0
                if not _is_held_back(lanes, actors, steps, times, classes, actor):
                    _start(lanes, actors, servers, times, classes, events, size, time, actor, runs, record)
        if size[EVENTS] == 0:
            break
        time = events[0]["time"]


@compiled
def _start(
    lanes: Records, actors: Records, servers: Records, times: Array, classes: Int32, events: Records, size: Int64,
    time: float, actor: int, runs: Records, record: Flags,
) -> None:  # fmt: skip
    """Let the actor occupy its server."""
    server, tile, step = actors[actor]["server"], actors[actor]["tile"], actors[actor]["step"]
    lane = actors[actor]["lane"]
    kind = classes[lanes[lane]["class0"] + tile]
    busy, latency = times[step, kind, 0], times[step, kind, 1]
    servers[server]["is_busy"] = 1
    servers[server]["busy_s"] += busy
    code = ((actor << TILE_BITS) | tile) << KIND_BITS
    if latency > 0:
        _push_event(events, size, time + busy, code | RELEASE)
        _push_event(events, size, time + busy + latency, code | DONE)
    else:
        _push_event(events, size, time + busy, code | RELEASE | DONE)
    if record[0]:
        run = size[RUNS]
        size[RUNS] = run + 1
        runs[run]["server"] = server
        runs[run]["actor"] = actor
        runs[run]["instance"] = lanes[lane]["instance"]
        runs[run]["tile"] = tile
        runs[run]["start_s"] = time
        runs[run]["end_s"] = time + busy


@compiled
def _release(
    lanes: Records, actors: Records, servers: Records, times: Array, classes: Int32, waits: Int32, ready: Int64,
    size: Int64, actor: int,
) -> None:  # fmt: skip
    """The actor's server is free again; the actor goes on to its next tile that runs the step."""
    server, lane = actors[actor]["server"], actors[actor]["lane"]
    servers[server]["is_busy"] = 0
    if servers[server]["queued"] > 0:
        _mark(servers, size, server)
    actors[actor]["tile"] = _next_run(lanes, times, classes, lane, actors[actor]["step"], actors[actor]["tile"] + 1)
    other = actor
    while True:  # the actor's next tile, and what was held back for this one
        tile = actors[other]["tile"]
        if tile < lanes[lane]["tiles"] and actors[other]["is_queued"] == 0:
            cell = lanes[lane]["cell0"] + tile * lanes[lane]["steps"] + other - lanes[lane]["actor0"]
            if waits[cell] == 0:
                _enqueue(lanes, actors, servers, ready, size, other)
        other = actors[other]["next_same"]
        if other == actor:
            break


@compiled
def _is_held_back(
    lanes: Records, actors: Records, steps: Records, times: Array, classes: Int32, actor: int,
) -> bool:  # fmt: skip
    """Whether the actor would overtake a tile step of its lane that has less slack than the actor takes."""
    lane, tile = actors[actor]["lane"], actors[actor]["tile"]
    tiles = lanes[lane]["tiles"]
    turn, place = tile + actors[actor]["stage"], actors[actor]["place"]
    busy = times[actors[actor]["step"], classes[lanes[lane]["class0"] + tile], 0]
    other = actors[actor]["next_same"]
    while other != actor:
        if actors[other]["tile"] < tiles and steps[actors[other]["step"]]["slack_s"] < busy:
            before = actors[other]["tile"] + actors[other]["stage"]
            if before < turn or (before == turn and actors[other]["place"] < place):
                return True
        other = actors[other]["next_same"]
    return False


@compiled
def _complete(
    lanes: Records, actors: Records, servers: Records, steps: Records, edges: Records, times: Array, classes: Int32,
    waits: Int32, ready: Int64, events: Records, tile_end: Array, size: Int64, time: float, actor: int, tile: int,
) -> None:  # fmt: skip
    """A tile step has ended: tell those that wait for it."""
    lane, step = actors[actor]["lane"], actors[actor]["step"]
    tiles, actor0 = lanes[lane]["tiles"], lanes[lane]["actor0"]
    tile_end[lanes[lane]["tile0"] + tile] = time
    for edge in range(steps[step]["out0"], steps[step]["out1"]):
        waiting = tile + edges[edge]["distance"]
        if waiting < tiles:
            cell = lanes[lane]["cell0"] + waiting * lanes[lane]["steps"] + edges[edge]["step"]
            waits[cell] -= 1
            if waits[cell] == 0:
                other = actor0 + edges[edge]["step"]
                _make_ready(lanes, actors, servers, times, classes, ready, events, size, time, other, waiting)
    lanes[lane]["left"] -= 1
    if lanes[lane]["left"] == 0:
        lanes[lane]["next_ended"] = size[ENDED]
        size[ENDED] = lane


@compiled
def _make_ready(
    lanes: Records, actors: Records, servers: Records, times: Array, classes: Int32, ready: Int64, events: Records,
    size: Int64, time: float, actor: int, tile: int,
) -> None:  # fmt: skip
    """All that a tile step waits for has ended: queue it if it runs, pass through it if it does not."""
    step = actors[actor]["step"]
    kind = classes[lanes[actors[actor]["lane"]]["class0"] + tile]
    if times[step, kind, 0] > 0:
        if actors[actor]["tile"] == tile:
            _enqueue(lanes, actors, servers, ready, size, actor)
    else:
        code = ((actor << TILE_BITS) | tile) << KIND_BITS
        _push_event(events, size, time + times[step, kind, 1], code | DONE)


@compiled
def _next_run(lanes: Records, times: Array, classes: Int32, lane: int, step: int, tile: int) -> int:
    """The first tile from `tile` on that runs the step; the number of tiles when there is none."""
    class0, tiles = lanes[lane]["class0"], lanes[lane]["tiles"]
    while tile < tiles and times[step, classes[class0 + tile], 0] == 0:
        tile += 1
    return tile


@compiled
def _enqueue(lanes: Records, actors: Records, servers: Records, ready: Int64, size: Int64, actor: int) -> None:
    """Put the actor into its server's queue: the lane that is furthest behind first, then by the actor's rank."""
    server = actors[actor]["server"]
    actors[actor]["is_queued"] = 1
    age = lanes[actors[actor]["lane"]]["age0"] + actors[actor]["tile"] + actors[actor]["stage"]
    progress = int(age * lanes[actors[actor]["lane"]]["pace"])
    key = progress * actors.size + actors[actor]["rank"]
    first, index = servers[server]["ready0"], servers[server]["queued"]
    servers[server]["queued"] = index + 1
    while index > 0:
        parent = (index - 1) >> 1
        if ready[first + parent] <= key:
            break
        ready[first + index] = ready[first + parent]
        index = parent
    ready[first + index] = key
    if servers[server]["is_busy"] == 0:
        _mark(servers, size, server)


@compiled
def _mark(servers: Records, size: Int64, server: int) -> None:
    """Remember that the server may be able to start something."""
    if servers[server]["is_dirty"] == 0:
        servers[server]["is_dirty"] = 1
        servers[server]["next_dirty"] = size[DIRTY]
        size[DIRTY] = server


@compiled
def _pop_ready(servers: Records, ready: Int64, server: int) -> int:
    """Take the first key out of the server's queue."""
    first, last = servers[server]["ready0"], servers[server]["queued"] - 1
    servers[server]["queued"] = last
    top, key = ready[first], ready[first + last]
    index, child = 0, 1
    while child < last:
        if child + 1 < last and ready[first + child + 1] < ready[first + child]:
            child += 1
        if ready[first + child] >= key:
            break
        ready[first + index] = ready[first + child]
        index, child = child, 2 * child + 1
    ready[first + index] = key
    return int(top)


@compiled
def _push_event(events: Records, size: Int64, time: float, code: int) -> None:
    """Add an event to the heap of coming events."""
    index = size[EVENTS]
    size[EVENTS] = index + 1
    while index > 0:
        parent = (index - 1) >> 1
        if events[parent]["time"] <= time:
            break
        events[index]["time"] = events[parent]["time"]
        events[index]["code"] = events[parent]["code"]
        index = parent
    events[index]["time"] = time
    events[index]["code"] = code


@compiled
def _pop_event(events: Records, size: Int64) -> int:
    """Take the earliest event out of the heap; returns its code."""
    top, last = events[0]["code"], size[EVENTS] - 1
    size[EVENTS] = last
    time, code = events[last]["time"], events[last]["code"]
    index, child = 0, 1
    while child < last:
        if child + 1 < last and events[child + 1]["time"] < events[child]["time"]:
            child += 1
        if events[child]["time"] >= time:
            break
        events[index]["time"] = events[child]["time"]
        events[index]["code"] = events[child]["code"]
        index, child = child, 2 * child + 1
    events[index]["time"] = time
    events[index]["code"] = code
    return int(top)


@compiled
def _turn_over(tables: Tables, time: float) -> None:
    """Free the lanes whose instances have ended, and deal out those that wait."""
    lanes, streams, size = tables.lanes, tables.streams, tables.size
    while size[ENDED] != NONE:
        lane = size[ENDED]
        size[ENDED] = lanes[lane]["next_ended"]
        stream = lanes[lane]["stream"]
        tables.instances[lanes[lane]["instance"]]["end_s"] = time
        lanes[lane]["age0"] += lanes[lane]["tiles"]
        tables.unit_load[lanes[lane]["unit"]] -= 1
        tables.free[streams[stream]["lane0"] + streams[stream]["free"]] = lane
        streams[stream]["free"] += 1
    _deal_out(tables, time)


@compiled
def _deal_out(tables: Tables, time: float) -> None:
    """Give waiting instances to free lanes: least loaded unit first, then in index order."""
    lanes, streams, free, load = tables.lanes, tables.streams, tables.free, tables.unit_load
    for stream in range(streams.size):
        lane0 = streams[stream]["lane0"]
        while streams[stream]["next"] < streams[stream]["instances"] and streams[stream]["free"] > 0:
            best = lane0
            for place in range(lane0 + 1, lane0 + streams[stream]["free"]):
                unit, chosen = lanes[free[place]]["unit"], lanes[free[best]]["unit"]
                if (load[unit], unit, free[place]) < (load[chosen], chosen, free[best]):
                    best = place
            lane = free[best]
            streams[stream]["free"] -= 1
            free[best] = free[lane0 + streams[stream]["free"]]
            instance = streams[stream]["instance0"] + streams[stream]["next"]
            streams[stream]["next"] += 1
            load[lanes[lane]["unit"]] += 1
            _begin(tables, time, lane, instance)


@compiled
def _begin(tables: Tables, time: float, lane: int, instance: int) -> None:
    """Start an instance in a lane: count what every tile step waits for, and make ready those that wait for nothing."""
    own, started, size = tables.lanes[lane], tables.instances[instance], tables.size
    if own["cell0"] == NONE:
        own["cell0"] = size[CELLS]
        size[CELLS] += tables.streams[own["stream"]]["cells"]
    own["instance"] = instance
    own["tiles"], own["class0"], own["tile0"] = started["tiles"], started["class0"], started["tile0"]
    own["left"] = own["tiles"] * own["steps"]
    started["start_s"] = time
    started["lane"] = lane
    if own["left"] == 0:
        own["next_ended"] = size[ENDED]
        size[ENDED] = lane
        return
    step0 = tables.actors[own["actor0"]]["step"]
    for step in range(own["steps"]):
        first, last = tables.steps[step0 + step]["in0"], tables.steps[step0 + step]["in1"]
        for tile in range(own["tiles"]):
            waits = 0
            for edge in range(first, last):
                if tables.edges[edge]["distance"] <= tile:
                    waits += 1
            tables.waits[own["cell0"] + tile * own["steps"] + step] = waits
        actor = own["actor0"] + step
        tables.actors[actor]["tile"] = _next_run(tables.lanes, tables.times, tables.classes, lane, step0 + step, 0)
    for step in range(own["steps"]):
        for tile in range(own["tiles"]):
            if tables.waits[own["cell0"] + tile * own["steps"] + step] == 0:
                _make_ready(
                    tables.lanes, tables.actors, tables.servers, tables.times, tables.classes, tables.ready,
                    tables.events, size, time, own["actor0"] + step, tile,
                )  # fmt: skip
