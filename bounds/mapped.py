"""Schedules that the mapper finds: the least traffic of its two-level search, at some sizes of the fast memory.

The mapper keeps tiles in a buffer and the values of one point of the loops in the unit that computes it; here both are
fast memory, so that as many words are kept free as the cascade has Einsums, with one more for an operand. A cascade
under conditions is mapped without them: a schedule that computes all scores and masks them is one for the masked
cascade too.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from architectures import Architecture
from bounds.staircase import Staircase
from bounds.tiles import thinned
from einsum.cascade import Cascade
from einsum.errors import SpecError
from mappings.search import Found, find

Floats = NDArray[np.float64]
MOST_SEARCHES = 16


def mapper_schedules(cascade: Cascade, env: Mapping[str, Any], memory: Floats, word_bytes: float) -> Staircase:
    """The mapper's best schedule for up to MOST_SEARCHES of the sizes (words); each also serves the larger ones.

    SpecError where the mapper covers no such cascade, or where nothing fits in the largest memory.
    """
    plain = cascade.without_conditions()
    known = {*plain.parameters, *plain.variables}
    sizes = {name: value for name, value in env.items() if name in known}
    found: dict[int, Found] = {}
    refusal: SpecError | None = None
    for words in thinned(np.unique(np.floor(memory)).astype(np.int64), MOST_SEARCHES).tolist():
        capacity = floor((words - len(plain.einsums) - 1) * word_bytes)
        try:
            found[words] = find(plain, _two_levels(plain, capacity, word_bytes), None, "dram", sizes)
        except SpecError as error:
            refusal = error
    if not found:
        assert refusal is not None
        raise SpecError(f"the mapper finds no schedule: {refusal.message}")
    names = [_named(one) for one in found.values()]
    moved = [one.dram_bytes / word_bytes for one in found.values()]
    return Staircase.of(list(found), moved, lambda k: names[k])


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
