"""The event evaluator: a tile program simulated tile step by tile step, at one design point.

It defines what a tile program means where contention, finite buffers, waves and uneven tiles matter. A step instance
(s, i) is step s of tile i of one stream instance.

* Start. (s, i) is ready when, for each dependence (d, distance) of s, (d, i - distance) has ended (there is nothing to
  wait for before the first tile), and the step's earlier tiles have started and released the resource.
* End. It occupies its resource for `busy_s`, then releases it, and ends `latency_s` later. An instance on a resource
  with a busy time of 0 is not run: it ends as soon as its dependences have ended, whatever its latency says, and
  waits neither for the resource nor for earlier tiles.
* Without a resource, `busy_s` occupies a unit that the step has for itself in its stream instance; `latency_s` is a
  pure delay that any number of tiles can spend at the same time. A busy time of 0 leaves the delay.
* Choice. Each stream has a software pipeline, planned before the run (`simulator.software_pipeline`): an order of the
  tile steps of an instance. Where the plan accounts for all the work of the stream's resources (one class of tiles,
  one instance at a time, alone in its phase), a resource serves its steps in exactly that order. Elsewhere a ready
  step overtakes those that are planned before it and not ready, unless one of them has less slack in its recurrences
  than the step takes. Among the steps so admitted a free resource takes at once the one whose slot is furthest behind,
  then the one planned first within a tile, then the earlier stream of the phase, then the earlier slot; it is never
  interrupted. A slot's progress is the number of the tile (plus the step's stage in the plan; the tiles of instances
  that follow each other in a slot are numbered on) over the mean number of tiles that the stream's slots run in all. So
  streams that share a resource advance by equal shares, and a new instance neither overtakes nor starves those beside.
* Copies. A resource with one copy is shared by all streams of the phase. Those with more are private: an instance of a
  stream runs on one unit, one of as many as its most numerous resource has copies; a resource with fewer copies serves
  unit u with copy u modulo copies. Each stream puts up to `slots` instances on a unit; without private resources there
  is one unit. Instances are dealt out in index order, each to the unit that holds the fewest instances (of all streams
  with as many units; the lowest index among equals). When one ends, the next one starts in its slot at once. All ends
  at a time are handled before the starts, so simultaneous events have no order that a result could depend on.
* Grids of thread blocks (streams with a `residency`) are spelled out first; see `simulator.grid_events`.
* Phases. A phase ends when all of its streams have ended. `repeat` multiplies its latency and busy times.
* hidden_fill. The latency of such a stream leaves out the fill of the first tile and the drain of the last one: it is
  the time from the end of the first tile to that of the last one, plus the first tile's share, which is the mean time
  by which later tiles of its class moved the end of the stream. For n equal tiles this is n / (n - 1) times the time
  between the first end and the last. If no later tile is of that class, the share is what its longest recurrence and
  its most loaded resource need for one tile. With several slots, the slot that takes longest counts.

Programs with more than `max_tile_steps` are simulated in part; see `simulator.extrapolation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from einsum.errors import EinsightError
from mappings.program import Array, Phase, TileProgram
from simulator.analytic import PhaseTime, assemble
from simulator.event_run import Run
from simulator.event_tables import Limit
from simulator.extrapolation import extrapolate_phase
from simulator.grid_events import ramps_s, with_explicit_grids
from simulator.point_stream import PointStream, at_point
from simulator.result import Result

MAX_TILE_STEPS = 4_000_000

# A phase is bound by a resource that is busy for at least this share of it; fill, drain and tails take the rest.
BOUND_SHARE = 0.9


@dataclass(frozen=True)
class Timeline:
    """Every execution of a step in one repetition of a phase, in order of start: parallel arrays.

    resource   index into `PhaseTiming.resources`, or -1 for a step without a resource
    copy       copy of the resource, or the slot of the stream for a step without a resource
    stream, step, instance, tile, tile_class   indices
    start_s, end_s   from the start of the phase; the end is that of the busy time
    """

    resource: NDArray[np.int32]
    copy: NDArray[np.int32]
    stream: NDArray[np.int32]
    step: NDArray[np.int32]
    instance: NDArray[np.int32]
    tile: NDArray[np.int32]
    tile_class: NDArray[np.int32]
    start_s: Array
    end_s: Array


@dataclass(frozen=True)
class PhaseTiming:
    """One phase, once (`repeat` of these run in a row).

    latency_s         what the phase adds to the program's latency, without hidden fill
    stream_latency_s  the same for each stream, in the phase's order
    busy_s            resource -> busy seconds, summed over its copies
    tile_steps        tile steps of the phase; simulated_tile_steps of them were simulated
    """

    name: str
    latency_s: float
    repeat: float
    stream_latency_s: tuple[float, ...]
    busy_s: Mapping[str, float]
    tile_steps: int
    simulated_tile_steps: int
    extrapolated: bool
    resources: tuple[str, ...]
    timeline: Timeline | None = None


@dataclass(frozen=True)
class EventResult:
    """What the event evaluator found for one design point; busy_s is summed over copies and repetitions."""

    latency_s: float
    busy_s: Mapping[str, float]
    phases: tuple[PhaseTiming, ...]
    simulated_tile_steps: int
    extrapolated: bool
    assumptions: tuple[str, ...]


def simulate_events(
    program: TileProgram, point: int = 0, *, max_tile_steps: int = MAX_TILE_STEPS, record: bool = False
) -> EventResult:
    """Simulate design point `point` of the program as the module's text defines.

    max_tile_steps   longer programs are simulated in part and extrapolated (the result says so)
    record           keep a timeline of every phase (of the simulated part)

    Raises EinsightError for a point outside the program, unknown steps or resources, times or counts that are
    negative or not finite, and steps that wait for each other within one tile.
    """
    if not 0 <= point < program.points:
        raise EinsightError(f"design point {point} does not exist; the program has {program.points}")
    if max_tile_steps < 1:
        raise EinsightError(f"max_tile_steps is {max_tile_steps}; it must be at least 1")
    explicit = with_explicit_grids(program, max_tile_steps)
    streams = [
        [PointStream.build(each, explicit, point, len(phase.streams) == 1) for each in phase.streams]
        for phase in explicit.phases
    ]
    sizes = [sum(each.tile_steps for each in phase) for phase in streams]
    budgets = _share_out(max_tile_steps, sizes)
    timings, assumptions = [], []
    for phase, built, budget in zip(program.phases, streams, budgets, strict=True):
        timing, remarks = _simulate_phase(phase, built, explicit, point, budget, record)
        timings.append(timing)
        assumptions += remarks
    busy: dict[str, float] = {}
    for timing in timings:
        for name, seconds in timing.busy_s.items():
            busy[name] = busy.get(name, 0.0) + timing.repeat * seconds
    return EventResult(
        latency_s=float(sum(timing.repeat * timing.latency_s for timing in timings)),
        busy_s=busy,
        phases=tuple(timings),
        simulated_tile_steps=sum(timing.simulated_tile_steps for timing in timings),
        extrapolated=any(timing.extrapolated for timing in timings),
        assumptions=tuple(assumptions),
    )


def evaluate_events(program: TileProgram, *, trace: str | Path | None = None) -> Result:
    """Cost of a tile program at every design point, one after another; `trace` is a file for the first one's timeline.

    Traffic, energy and work are those of the analytic evaluator; the times come from `simulate_events`.
    """
    explicit = with_explicit_grids(program, MAX_TILE_STEPS)
    found = [
        simulate_events(program, point, record=trace is not None and point == 0) for point in range(program.points)
    ]
    if trace is not None:
        from simulator.trace import write_trace

        write_trace(trace, found[0], explicit)
    times = [
        PhaseTime(
            np.array([result.phases[index].latency_s * result.phases[index].repeat for result in found]),
            np.array([_bound_by(explicit, point, result.phases[index]) for point, result in enumerate(found)]),
        )
        for index in range(len(program.phases))
    ]
    notes = dict.fromkeys(note for result in found for note in result.assumptions)
    return assemble(program, times, "event", tuple(notes))


def _bound_by(program: TileProgram, point: int, timing: PhaseTiming) -> str:
    """The resource that was busiest, if it hardly ever idled; otherwise what kept all of them waiting: dependences."""
    loads = {
        name: seconds / at_point(program.resources[name].copies, program.points, point)
        for name, seconds in timing.busy_s.items()
    }
    busiest = max(loads, key=lambda name: loads[name], default=None)
    if busiest is not None and loads[busiest] >= BOUND_SHARE * timing.latency_s:
        return busiest
    return "dependences"


def _simulate_phase(
    phase: Phase, streams: Sequence[PointStream], program: TileProgram, point: int, budget: int, record: bool
) -> tuple[PhaseTiming, list[str]]:
    tile_steps = sum(each.tile_steps for each in streams)
    remarks: list[str] = []
    if tile_steps <= budget:
        run = Run.of(streams, program, [Limit(each.instances) for each in streams], record)
        latencies = [run.stream_latency_s(index) for index in range(len(streams))]
        busy = run.busy_s()
        tile_steps = simulated = run.tile_steps
    else:
        found = extrapolate_phase(streams, program, budget, record)
        run, latencies, simulated = found.run, list(found.stream_latency_s), found.simulated_tile_steps
        busy = _whole_busy_s(streams, run.layout.resources)
        remarks.append(f"event evaluator, phase '{phase.name}': {found.remark}")
    latency_s = max(latencies, default=0.0)
    remarks += [remark for remark in map(_pipeline_remark, streams) if remark]
    timing = PhaseTiming(
        name=phase.name,
        latency_s=latency_s + ramps_s(phase, latency_s, busy),
        repeat=at_point(phase.repeat, program.points, point),
        stream_latency_s=tuple(latencies),
        busy_s=busy,
        tile_steps=tile_steps,
        simulated_tile_steps=simulated,
        extrapolated=simulated < tile_steps,
        resources=run.layout.resources,
        timeline=_timeline(run) if record else None,
    )
    return timing, remarks


def _pipeline_remark(each: PointStream) -> str:
    """A sentence for the Result where the analytic interval is out of reach."""
    plan = each.pipeline
    if not plan.complete or plan.interval_s <= 1.01 * plan.bound_s:
        return ""
    return (
        f"event evaluator, stream '{each.stream.name}': no order of its steps was found that starts a tile every "
        f"{plan.bound_s:.3g} s, as loads and recurrences alone would allow; the best takes {plan.interval_s:.3g} s"
    )


def _share_out(budget: int, sizes: Sequence[int]) -> list[int]:
    """Divide a budget of tile steps among phases: equally, except that no phase gets more than it needs."""
    shares = [0] * len(sizes)
    left = budget
    for done, index in enumerate(sorted(range(len(sizes)), key=sizes.__getitem__)):
        shares[index] = min(sizes[index], left // (len(sizes) - done))
        left -= shares[index]
    return shares


def _whole_busy_s(streams: Sequence[PointStream], resources: Sequence[str]) -> dict[str, float]:
    """Busy seconds per resource of all tiles, from their counts."""
    busy = dict.fromkeys(resources, 0.0)
    for each in streams:
        for step, seconds in zip(each.stream.steps, each.busy_s, strict=True):
            if step.resource is not None:
                busy[step.resource] += each.instances * float(seconds @ each.counts)
    return busy


def _timeline(run: Run) -> Timeline:
    tables, layout, done = run.tables, run.layout, run.executions
    owner = np.searchsorted(layout.server0[1:], done["server"], side="right")
    on_resource = owner < len(layout.resources)
    copy = done["server"] - np.array(layout.server0)[owner]
    lane = tables.actors["lane"][done["actor"]]
    stream = tables.lanes["stream"][lane]

    def indices(values: NDArray[np.int64]) -> NDArray[np.int32]:
        return values.astype(np.int32)

    return Timeline(
        resource=indices(np.where(on_resource, owner, -1)),
        copy=indices(np.where(on_resource, copy, lane - tables.streams["lane0"][stream])),
        stream=indices(stream),
        step=indices(done["actor"] - tables.lanes["actor0"][lane]),
        instance=indices(done["instance"] - tables.streams["instance0"][stream]),
        tile=indices(done["tile"]),
        tile_class=tables.classes[tables.instances["class0"][done["instance"]] + done["tile"]],
        start_s=done["start_s"].copy(),
        end_s=done["end_s"].copy(),
    )
