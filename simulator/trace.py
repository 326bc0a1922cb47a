"""A timeline of the event evaluator as Chrome trace JSON, which opens in Perfetto (https://ui.perfetto.dev).

Format: "Trace Event Format" (Google, 2016). A phase is a process; one copy of a resource is a thread of it, and so is a
step without a resource in one slot of its stream; every execution of a step is a complete event ("X"), times in
microseconds. Phases follow one another; of a repeated phase one repetition is drawn.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from einsum.errors import EinsightError
from einsum.files import whole_file
from mappings.program import Phase, TileProgram
from simulator.event import EventResult, PhaseTiming, Timeline

MAX_SLICES = 200_000
MICROSECONDS = 1e6


def write_trace(path: str | Path, result: EventResult, program: TileProgram, limit: int = MAX_SLICES) -> None:
    """Write the recorded timeline of `result` to `path`: its first `limit` slices, phase by phase.

    The file appears whole or not at all. Raises EinsightError when the result was not recorded or the file cannot be
    written.
    """
    if any(timing.timeline is None for timing in result.phases):
        raise EinsightError("the simulation kept no timeline; simulate with record=True")
    with whole_file(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.writelines(_document(result, program, limit))


def trace_events(result: EventResult, program: TileProgram, limit: int = MAX_SLICES) -> Iterator[dict[str, Any]]:
    """The events of the trace: names of processes and threads, then slices in order of start."""
    offset_s, left = 0.0, limit
    for number, (phase, timing) in enumerate(zip(program.phases, result.phases, strict=True)):
        timeline = timing.timeline
        if timeline is None:
            continue
        shown = min(left, timeline.start_s.size)
        left -= shown
        repeat = f" (1 of {timing.repeat:,.0f})" if timing.repeat != 1 else ""
        yield _named("process_name", number, 0, phase.name + repeat)
        yield {"ph": "M", "name": "process_sort_index", "pid": number, "tid": 0, "args": {"sort_index": number}}
        threads = _threads(phase, timing, timeline)
        for tid, name in sorted(set(threads.values())):
            yield _named("thread_name", number, tid, name)
        for place in range(shown):
            tid, _ = threads[_track(timeline, place)]
            yield _slice(phase, timeline, place, number, tid, offset_s)
        offset_s += float(max(timing.latency_s, timeline.end_s.max(initial=0.0)))


def _slice(phase: Phase, timeline: Timeline, place: int, pid: int, tid: int, offset_s: float) -> dict[str, Any]:
    stream = phase.streams[timeline.stream[place]]
    start_us, end_us = (
        (offset_s + float(seconds[place])) * MICROSECONDS for seconds in (timeline.start_s, timeline.end_s)
    )
    return {
        "ph": "X",
        "name": stream.steps[timeline.step[place]].name,
        "cat": stream.name,
        "pid": pid,
        "tid": tid,
        "ts": start_us,
        "dur": _duration(start_us, end_us),
        "args": {
            "stream": stream.name,
            "instance": int(timeline.instance[place]),
            "tile": int(timeline.tile[place]),
            "class": int(timeline.tile_class[place]),
        },
    }


def _duration(start: float, end: float) -> float:
    """The longest duration whose sum with the start does not pass the end: slices of a track never overlap."""
    duration = max(end - start, 0.0)
    while start + duration > end:
        duration = math.nextafter(duration, 0.0)
    return duration


def _track(timeline: Timeline, place: int) -> tuple[int, int, int, int]:
    """What a slice occupies: (resource, copy), or (-1, slot, stream, step) without a resource."""
    resource, copy = int(timeline.resource[place]), int(timeline.copy[place])
    return (
        (resource, copy, -1, -1)
        if resource >= 0
        else (-1, copy, int(timeline.stream[place]), int(timeline.step[place]))
    )


def _threads(phase: Phase, timing: PhaseTiming, timeline: Timeline) -> dict[tuple[int, int, int, int], tuple[int, str]]:
    """Track -> (thread number, name): resources in order with their copies, then steps without a resource."""
    free = timeline.resource < 0
    columns = np.stack(
        [
            timeline.resource,
            timeline.copy,
            np.where(free, timeline.stream, -1),
            np.where(free, timeline.step, -1),
        ],
        axis=1,
    )
    tracks = [tuple(int(value) for value in row) for row in np.unique(columns, axis=0)]
    copies = {resource: sum(track[0] == resource for track in tracks) for resource, *_ in tracks}
    named: dict[tuple[int, int, int, int], tuple[int, str]] = {}
    for tid, (resource, copy, stream, step) in enumerate(
        sorted(tracks, key=lambda track: (track[0] < 0, track)), start=1
    ):
        if resource >= 0:
            name = timing.resources[resource] + (f" {copy}" if copies[resource] > 1 else "")
        else:
            name = f"{phase.streams[stream].name}: {phase.streams[stream].steps[step].name} {copy}"
        named[resource, copy, stream, step] = tid, name
    return named


def _named(kind: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": pid, "tid": tid, "args": {"name": name}}


def _document(result: EventResult, program: TileProgram, limit: int) -> Iterator[str]:
    """The JSON text, piece by piece."""
    recorded = sum(timing.timeline.start_s.size for timing in result.phases if timing.timeline is not None)
    about = {"slices": min(recorded, limit), "recorded_slices": recorded, "extrapolated": result.extrapolated}
    yield '{"displayTimeUnit": "ns", "otherData": ' + json.dumps(about) + ', "traceEvents": [\n'
    separator = ""
    for event in trace_events(result, program, limit):
        yield separator + json.dumps(event)
        separator = ",\n"
    yield "\n]}\n"
