"""Phases that differ only in their numbers, put together as design points of one phase.

A traced run has hundreds of phases with the same steps. The analytic evaluator works on all design points at once, so
n such phases at p points are one phase at n x p points, and cost hardly more than one.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.symbols import as_floats, as_index
from mappings.program import Dependence, Phase, Step, Stream, TileProgram


def alike(program: TileProgram) -> Iterator[tuple[list[int], Phase, TileProgram]]:
    """(places in the program, the phases there as one, the program with as many points) for each kind of phase.

    The points of the first phase come first, then those of the second. Steps keep their times and dependences only.
    """
    kinds: dict[Hashable, list[int]] = {}
    for place, phase in enumerate(program.phases):
        kinds.setdefault(_kind(phase, program) or place, []).append(place)
    for places in kinds.values():
        phases = [program.phases[place] for place in places]
        if len(phases) == 1:
            yield places, phases[0], program
        else:
            yield places, _as_one(phases, program.points), replace(program, points=program.points * len(phases))


def _kind(phase: Phase, program: TileProgram) -> Hashable:
    """What phases must agree in to be put together; None if this one goes alone."""
    if len(phase.streams) != 1 or phase.streams[0].residency is not None:
        return None
    stream = phase.streams[0]
    used = {step.resource for step in stream.steps if step.resource is not None}
    if any(np.any(np.not_equal(program.resources[name].copies, 1)) for name in used):
        return None
    steps = tuple((step.name, step.resource, tuple(wait.step for wait in step.after)) for step in stream.steps)
    return steps, stream.counts.shape[1], stream.hidden_fill


def _as_one(phases: Sequence[Phase], points: int) -> Phase:
    streams = [phase.streams[0] for phase in phases]
    classes = streams[0].counts.shape[1]

    def table(values: Sequence[Any]) -> NDArray[np.float64]:
        return np.concatenate([np.broadcast_to(as_floats(each), (points, classes)) for each in values])

    def column(values: Sequence[Any]) -> NDArray[np.float64]:
        return np.concatenate([np.broadcast_to(as_floats(each).reshape(-1), (points,)) for each in values])

    def step(same: Sequence[Step]) -> Step:
        waits = [
            Dependence(each[0].step, column([wait.distance for wait in each]))
            for each in zip(*(one.after for one in same), strict=True)
        ]
        busy, latency = table([one.busy_s for one in same]), table([one.latency_s for one in same])
        return Step(same[0].name, same[0].resource, busy, latency, tuple(waits))

    whole = Stream(
        streams[0].name,
        tuple(step(same) for same in zip(*(stream.steps for stream in streams), strict=True)),
        table([stream.counts for stream in streams]),
        streams[0].order,
        column([stream.instances for stream in streams]),
        column([stream.slots for stream in streams]),
        streams[0].hidden_fill,
        as_index(column([stream.first for stream in streams])),
        as_index(column([stream.last for stream in streams])),
    )
    return Phase(phases[0].name, (whole,), column([phase.repeat for phase in phases]))
