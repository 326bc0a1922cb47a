"""What the held tiles take at each level, against what the level has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from architectures import EvaluatedArchitecture
from einsum.errors import SpecError
from einsum.symbols import as_array
from mappings.movement import column
from mappings.nest import Hold, PhaseNest
from mappings.operands import Homes
from mappings.program import Array
from mappings.tiles import Loop


def spilled_shares(
    phase: PhaseNest,
    homes: Homes,
    machine: EvaluatedArchitecture,
    extents: Mapping[str, Array],
    tensor_bytes: Mapping[str, Array],
) -> dict[Hold, Array]:
    """Of each hold that may spill: the part, 0 to 1, that its overfull level cannot keep, (points, 1).

    All spilling holds of a level spill the same part, footprint minus capacity over footprint. SpecError when a level
    overflows and no hold of it may spill: the largest tensor, and by how many bytes.
    """
    shares: dict[Hold, Array] = {}
    for level, memory in machine.memories.items():
        holds = [hold for hold in phase.holds if hold.level == level]
        if not holds or memory.unbounded:
            continue
        sizes = {hold: footprint_bytes(hold, homes, extents, tensor_bytes) for hold in holds}
        total = sum(sizes.values(), np.zeros((1, 1)))
        capacity = column(memory.capacity_bytes)
        over = total - capacity
        if not (over > 0).any():
            continue
        spilling = [hold for hold in holds if hold.spills]
        if not spilling:
            point = int(np.argmax(over))
            largest = max(holds, key=lambda hold: _at(sizes[hold], point))
            raise SpecError(
                f"{level} overflows by {_at(over, point):,.0f} bytes: it holds {_at(total, point):,.0f} of "
                f"{_at(capacity, point):,.0f}, the largest part is '{largest.name}' with "
                f"{_at(sizes[largest], point):,.0f}",
                key=largest.key,
            )
        for hold in spilling:
            shares[hold] = np.maximum(over, 0.0) / total
    return shares


def footprint_bytes(hold: Hold, homes: Homes, extents: Mapping[str, Array], tensor_bytes: Mapping[str, Array]) -> Array:
    """Bytes that a hold takes: its largest tensor's full tile, times its buffers, (points, 1)."""
    sizes = tile_sizes(hold.loops, extents)
    tiles = [tensor_words(homes, name, sizes) * tensor_bytes[name] for name in hold.tensors]
    return as_array(reduce(np.maximum, tiles) * hold.buffers)


def tile_sizes(loops: Sequence[Loop], extents: Mapping[str, Array]) -> dict[str, Array]:
    """Coordinates of every base rank in one full iteration of some loops."""
    sizes = dict(extents)
    for loop in loops:
        sizes[loop.rank] = np.minimum(sizes[loop.rank], loop.chunk)
    return sizes


def tensor_words(homes: Homes, tensor: str, sizes: Mapping[str, Array]) -> Array:
    """Words of a tensor's tile: the largest that any access to it cuts."""
    cascade = homes.cascade
    accesses = [
        access for einsum in cascade.einsums for access in (einsum.output, *einsum.inputs) if access.tensor == tensor
    ]
    words = [homes.ranks.words(homes.ranks.shape(access), sizes) for access in accesses]
    return as_array(reduce(np.maximum, words))


def _at(values: Array, point: int) -> Any:
    return values[min(point, values.shape[0] - 1), 0]
