"""Phases with too many tiles to simulate them all: a part is simulated, and the rest follows at its steady pace.

One stream. Of each instance the first tiles are simulated; the others take, class by class, the mean time by which
tiles of their class moved the end of the instance in the steady part of the simulation. A class that the simulated
tiles do not contain is simulated on its own, which is too slow where it would overlap with other classes. Of many
instances whole waves (one instance in every slot) are left out, so that the last, partly filled wave stays as it is;
each takes the mean period of the simulated ones.

Several streams. All run side by side, each at its pace, until one has done all its tiles; the others are then
simulated without it, and so on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mappings.program import Array, TileProgram
from simulator.event_run import Pace, Run
from simulator.event_tables import Limit
from simulator.point_stream import PointStream

# The steady part of an instance's simulated tiles, as fractions: later than the filling, earlier than the draining.
WINDOW = (0.4, 0.9)
EARLY, LATE = (0.4, 0.65), (0.65, 0.9)
MIN_TILES = 64
MAX_SOLO_TILES = 4096
MAX_WAVES = 8
MAX_SAMPLES = 256


@dataclass(frozen=True)
class Extrapolation:
    """The latency of each stream of a phase, the run that it rests on, and a sentence that says how."""

    stream_latency_s: tuple[float, ...]
    run: Run
    simulated_tile_steps: int
    remark: str


def extrapolate_phase(streams: Sequence[PointStream], program: TileProgram, budget: int, record: bool) -> Extrapolation:
    """Latencies of the streams of a phase with more than `budget` tile steps."""
    if len(streams) == 1:
        return _one_stream(streams[0], program, max(budget, 1), record)
    return _side_by_side(streams, program, max(budget, 1), record)


def _one_stream(stream: PointStream, program: TileProgram, allowed: int, record: bool) -> Extrapolation:
    limit = _limit(stream, allowed)
    run = Run.of([stream], program, [limit], record)
    paces = _Paces(stream, program, allowed)
    instances = run.instances(0)
    wave = min(stream.lanes, stream.instances)
    full = instances[: limit.instances // wave * wave]
    cut = limit.tiles is not None
    latency = _last_end_s(run, full, instances[len(full) :], wave, paces) if cut else run.end_s(0)
    left_out = (stream.instances - limit.instances) // wave
    if left_out:
        latency += left_out * _wave_period_s(run, full, wave, paces, cut)
    if stream.stream.hidden_fill:
        kind = int(run.classes(instances[0])[0])
        pace = run.pace(0, _sample(full), WINDOW)
        latency -= float(run.tile_ends_s(instances[0])[0]) - run.first_share_s(0, kind, pace)
    spread = _spread(stream, run, _sample(full), paces) if cut else 0.0
    simulated = run.tile_steps + paces.tile_steps
    return Extrapolation((latency,), run, simulated, _remark(simulated, stream.tile_steps, spread))


def _last_end_s(run: Run, full: Sequence[int], tail: Sequence[int], wave: int, paces: _Paces) -> float:
    """When the simulated waves would have ended had all their tiles been simulated.

    The slowest instance of the last wave counts, as nothing follows it; waves before that last longer on average,
    since a slot that is late in one is as likely early in the next.
    """
    ends = run.tables.instances["end_s"]
    before = (len(full) // wave - 1) * float(np.mean([paces.rest_s(run, instance) for instance in _sample(full)]))
    last = full[-wave:]
    candidates = [before + float(ends[instance]) + paces.rest_s(run, instance) for instance in last]
    if tail:
        before += float(np.mean([paces.rest_s(run, instance) for instance in _sample(last)]))
        candidates += [before + float(ends[instance]) + paces.rest_s(run, instance) for instance in tail]
    return max(candidates)


def _wave_period_s(run: Run, full: Sequence[int], wave: int, paces: _Paces, cut: bool) -> float:
    """Seconds from one wave to the next, for waves that were not simulated."""
    stream, starts = run.streams[0], run.tables.instances["start_s"]
    period = float(np.mean(starts[wave : len(full)] - starts[: len(full) - wave]))
    if cut:
        return period + float(np.mean([paces.rest_s(run, instance) for instance in _sample(full)]))
    instances = run.instances(0)
    seen = np.mean([np.bincount(run.classes(i), minlength=stream.counts.size) for i in _sample(instances)], axis=0)
    # Where instances differ, those left out are as much longer than the simulated ones as their tiles say.
    others = (stream.instances * stream.counts - len(instances) * seen) / (stream.instances - len(instances))
    per_tile = paces.complete(run.pace(0, _sample(full), WINDOW))
    simulated = _cost(seen, per_tile)
    return period * _cost(np.maximum(others, 0.0), per_tile) / simulated if simulated > 0 else period


def _limit(stream: PointStream, allowed: int) -> Limit:
    """Which part of a stream to simulate: whole waves and the last, partial one; then the first tiles of each."""
    wave = min(stream.lanes, stream.instances)
    tail = stream.instances % wave
    steps = len(stream.stream.steps)
    waves = min(max(allowed // max(stream.tiles * steps * wave, 1), 2), MAX_WAVES, stream.instances // wave)
    instances = tail + waves * wave
    tiles = max(allowed // (instances * steps), MIN_TILES)
    return Limit(instances, tiles if tiles < stream.tiles else None)


def _side_by_side(streams: Sequence[PointStream], program: TileProgram, allowed: int, record: bool) -> Extrapolation:
    remaining = [each.counts * each.instances for each in streams]
    latencies = [0.0] * len(streams)
    active = [index for index, each in enumerate(streams) if each.tile_steps]
    first_run: Run | None = None
    now, simulated, total = 0.0, 0, sum(each.tile_steps for each in streams)
    fills = [0.0] * len(streams)
    while active:
        share = max(allowed // len(active), 1)
        running = [streams[index] for index in active]
        limits = [replace(_limit(each, share), instances=min(each.lanes, each.instances)) for each in running]
        run = Run.of(running, program, limits, record and first_run is None)
        horizon = min(run.end_s(place) for place in range(len(active)))
        left = []
        for place, index in enumerate(active):
            paces = _Paces(streams[index], program, share)
            per_tile = paces.complete(_pace_until(run, place, horizon))
            left.append(_cost(remaining[index], per_tile) / limits[place].instances)
            simulated += paces.tile_steps
            if first_run is None:
                instance = run.instances(place)[0]
                fills[index] = float(run.tile_ends_s(instance)[0]) - per_tile[run.classes(instance)[0]]
        first_run = first_run or run
        simulated += run.tile_steps
        step = min(left)
        now += step
        for index, needed in zip(active, left, strict=True):
            remaining[index] = remaining[index] * (1 - step / needed) if needed > step else 0 * remaining[index]
            latencies[index] = now
        active = [index for index, needed in zip(active, left, strict=True) if needed > step]
    if first_run is None:
        first_run = Run.of(streams, program, [Limit(0) for _ in streams], record)
    for index, each in enumerate(streams):
        latencies[index] += 0.0 if each.stream.hidden_fill else max(fills[index], 0.0)
    return Extrapolation(tuple(latencies), first_run, simulated, _remark(simulated, total, 0.0))


def _pace_until(run: Run, stream: int, horizon: float) -> Pace:
    """How fast a stream advanced in the steady part of the time up to `horizon`, while all streams were under way.

    A stream that ended fewer than two tiles in that time is measured from the start to its second tile.
    """
    classes = run.streams[stream].counts.size
    seconds, tiles = np.zeros(classes), np.zeros(classes)
    for instance in _sample(run.instances(stream)):
        ends, kinds = run.tile_ends_s(instance), run.classes(instance)
        first, last = (int(np.searchsorted(ends, fraction * horizon, side="right")) - 1 for fraction in WINDOW)
        if last - first < 2:
            first, last = -1, min(max(last, 1), ends.size - 1)
        steps = np.diff(ends[max(first, 0) : last + 1], prepend=ends[:0] if first >= 0 else [0.0])
        seconds += np.bincount(kinds[first + 1 : last + 1], steps, minlength=classes)
        tiles += np.bincount(kinds[first + 1 : last + 1], minlength=classes)
    return Pace(seconds, tiles)


class _Paces:
    """Seconds per tile of a stream's classes; those that a run did not show are simulated on their own, once."""

    def __init__(self, stream: PointStream, program: TileProgram, allowed: int) -> None:
        self.tile_steps = 0
        self._stream, self._program = stream, program
        self._instances = min(stream.lanes, stream.instances)
        steps = len(stream.stream.steps)
        self._tiles = min(max(allowed // (self._instances * steps), MIN_TILES), MAX_SOLO_TILES)
        self._known: dict[int, float] = {}

    def complete(self, pace: Pace) -> Array:
        """Seconds per tile of every class that the stream has."""
        per_tile = pace.per_tile_s()
        for kind in np.flatnonzero(np.isnan(per_tile)):
            per_tile[kind] = self._alone(int(kind)) if self._stream.counts[kind] else 0.0
        return per_tile

    def rest_s(self, run: Run, instance: int) -> float:
        """Seconds that an instance of a run of this stream alone needs for the tiles that were cut off."""
        seen = np.bincount(run.classes(instance), minlength=self._stream.counts.size)
        return _cost(np.maximum(self._stream.counts - seen, 0.0), self.complete(run.pace(0, [instance], WINDOW)))

    def _alone(self, kind: int) -> float:
        if kind not in self._known:
            uniform = replace(self._stream, only_class=kind)
            run = Run.of([uniform], self._program, [Limit(self._instances, self._tiles)], False)
            self.tile_steps += run.tile_steps
            self._known[kind] = float(run.pace(0, _sample(run.instances(0)), WINDOW).per_tile_s()[kind])
        return self._known[kind]


def _spread(stream: PointStream, run: Run, instances: Sequence[int], paces: _Paces) -> float:
    """By how much the time of all tiles differs between the early and the late half of the steady part."""
    early, late = (_cost(stream.counts, paces.complete(run.pace(0, instances, half))) for half in (EARLY, LATE))
    return abs(late - early) / max(late, early, np.finfo(float).tiny)


def _remark(simulated: int, total: int, spread: float) -> str:
    unsettled = f"; the pace still changed by {spread:.1%} within the simulated part" if spread > 0.01 else ""
    return f"simulated {simulated:,} of {total:,} tile steps and extrapolated at their steady pace{unsettled}"


def _cost(counts: Array, per_tile_s: Array) -> float:
    return float(counts @ per_tile_s)


def _sample(instances: Sequence[int]) -> Sequence[int]:
    """At most MAX_SAMPLES instances, evenly spread."""
    return instances[:: -(-len(instances) // MAX_SAMPLES)] if len(instances) else instances
