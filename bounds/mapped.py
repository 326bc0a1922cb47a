"""Schedules that the mapper finds: the least traffic of its two-level search, at some sizes of the fast memory.

The mapper keeps tiles in a buffer and the values of one point of the loops in the unit that computes it; here both are
fast memory, so that as many words are kept free as the cascade has Einsums, with one more for an operand. A cascade
under conditions is mapped with them and without: a schedule that computes all scores and masks them is one for the
masked cascade too, and the only one where no nest of loops can be costed under the conditions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from architectures import Architecture
from bounds.staircase import Staircase
from bounds.tiles import thinned
from einsum.cascade import Cascade
from einsum.errors import SpecError
from mappings import Mapping as Plan
from mappings.lowering import lower
from mappings.search import Cost, Found, environment, find

Floats = NDArray[np.float64]
MOST_SEARCHES = 16
MOST_MASKED = 4
"""Sizes at which the mapper also searches under the conditions; it lowers its candidates there, which takes seconds."""


def mapper_schedules(
    cascade: Cascade, env: Mapping[str, Any], memory: Floats, word_bytes: float, where: Sequence[str] = ()
) -> Staircase:
    """The mapper's best schedule for up to MOST_SEARCHES of the sizes (words); each also serves the larger ones.

    `where`: further conditions on the cascade, those of a mask that is given by name.

    SpecError where the mapper covers no such cascade, or where nothing fits in the largest memory.
    """
    plain, masked = cascade.without_conditions(), cascade.with_condition(*where) if where else cascade
    known = {*plain.parameters, *plain.variables}
    sizes = {name: value for name, value in env.items() if name in known}
    found: dict[int, Found] = {}
    refusal: SpecError | None = None
    every = np.unique(np.floor(memory)).astype(np.int64)
    masked_at = thinned(every, MOST_MASKED).tolist() if masked != plain else []
    for words in sorted({*thinned(every, MOST_SEARCHES).tolist(), *masked_at}):
        capacity = floor((words - len(plain.einsums) - 1) * word_bytes)
        try:
            machine = _two_levels(plain, capacity, word_bytes)
            found[words] = _found(plain, masked if words in masked_at else plain, machine, sizes)
        except SpecError as error:
            refusal = error
    if not found:
        assert refusal is not None
        raise SpecError(f"the mapper finds no schedule: {refusal.message}")
    names = [_named(one) for one in found.values()]
    moved = [one.dram_bytes / word_bytes for one in found.values()]
    return Staircase.of(list(found), moved, lambda k: names[k])


def _found(plain: Cascade, masked: Cascade, machine: Architecture, sizes: Mapping[str, Any]) -> Found:
    """The mapping with the least traffic: found under the mask, or found without and run under it, or without it."""
    cost = partial(_cost, plain, machine, sizes) if any(einsum.conditions for einsum in plain.einsums) else None
    dense = find(plain, machine, None, "dram", sizes, evaluate=cost)
    if masked == plain:
        return dense
    cost, found = partial(_cost, masked, machine, sizes), [dense]
    with suppress(SpecError):  # too many tiles to list
        found.append(replace(dense, dram_bytes=cost(dense.mapping).dram_bytes))
    with suppress(SpecError):  # nothing fits
        found.append(find(masked, machine, None, "dram", sizes, evaluate=cost))
    return min(found, key=lambda one: one.dram_bytes)


def _cost(cascade: Cascade, machine: Architecture, sizes: Mapping[str, Any], plan: Plan) -> Cost:
    """The traffic at the outermost memory of a mapping, as it is lowered; time and energy are not asked for."""
    evaluated = machine.evaluate({})
    chosen = {name: value.evaluate(sizes) for name, value in plan.header.variables.items()}
    env = environment(cascade, evaluated, None, {**sizes, **chosen})
    program = lower(cascade, evaluated, plan.nest, env, 1)
    moved = sum(
        float(np.sum((traffic.read_bytes + traffic.write_bytes) * stream.counts * stream.instances))
        for phase in program.phases
        for stream in phase.streams
        for step in stream.steps
        for (level, _), traffic in step.traffic.items()
        if level == evaluated.backing_store.name
    )
    return Cost(0.0, 0.0, moved)


def _named(found: Found) -> str:
    """Which Einsums run together, in order."""
    return "mapper: " + found.mapping.header.description.removeprefix("Found by the mapper: ").partition("; tiles")[0]


def _two_levels(cascade: Cascade, capacity_bytes: int, word_bytes: float) -> Architecture:
    """A buffer below an unlimited memory, and one processing element that can do everything the cascade does."""
    if capacity_bytes < 1:
        raise SpecError("no memory is left beside the operands of one point")
    kinds = dict.fromkeys(kind for einsum in cascade.einsums for kind in einsum.ops)
    memory = {"access_bits": 8, "read_energy": "1 pJ", "write_energy": "1 pJ"}
    return Architecture.parse(
        {
            "architecture": "two-levels",
            "clock": "1 GHz",
            "word_bits": 8 * word_bytes,
            "memories": {"DRAM": {"bandwidth": "1 GB/s", **memory}, "fast": {"capacity": capacity_bytes, **memory}},
            "units": {
                "element": {"dims": {"lanes": 1}, "ops": {kind: {"cycles": 1, "energy": "1 pJ"} for kind in kinds}}
            },
        }
    )
