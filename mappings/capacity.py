"""What the held tiles take at each level and in the registers of each unit, against what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np

from architectures import EvaluatedArchitecture, EvaluatedUnit
from einsum.errors import SpecError
from einsum.symbols import as_array
from mappings.movement import column
from mappings.nest import Hold, Leaf, PhaseNest
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


def check_registers(
    phase: PhaseNest,
    homes: Homes,
    machine: EvaluatedArchitecture,
    extents: Mapping[str, Array],
    tensor_bytes: Mapping[str, Array],
) -> None:
    """SpecError when an element of a unit holds more than its registers: the largest tensor, and how much there is.

    A rank that a leaf lays over the unit is shared out over the elements; of a tile that is `rolling` an element has
    one word at a time.
    """
    for name, unit in machine.units.items():
        holds = [hold for hold in phase.holds if hold.level == name]
        if not holds or unit.registers is None:
            continue
        users = [leaf for leaf in phase.leaves if leaf.unit == name]
        sizes = {hold: _element_bytes(hold, users, homes, unit, extents, tensor_bytes) for hold in holds}
        total = sum(sizes.values(), np.zeros((1, 1)))
        capacity = column(unit.registers.words) * column(unit.registers.access_bits) / 8
        if not (total > capacity).any():
            continue
        point = int(np.argmax(total - capacity))
        largest = max(holds, key=lambda hold: _at(sizes[hold], point))
        raise SpecError(
            f"the registers of {name} overflow: an element would hold {_at(total, point):,.0f} of "
            f"{_at(capacity, point):,.0f} bytes, the largest part is '{largest.name}' with "
            f"{_at(sizes[largest], point):,.0f}; hold it in a memory, or as 'rolling' where it passes word by word",
            key=largest.key,
        )


def _element_bytes(
    hold: Hold,
    users: Sequence[Leaf],
    homes: Homes,
    unit: EvaluatedUnit,
    extents: Mapping[str, Array],
    tensor_bytes: Mapping[str, Array],
) -> Array:
    """Bytes of a held tile that one element of a unit has."""
    if hold.rolling:
        return as_array(reduce(np.maximum, [tensor_bytes[name] for name in hold.tensors]))
    sizes = tile_sizes(hold.loops, extents)
    found = []
    for tensor in hold.tensors:
        laid = [leaf.spatial for leaf in users if hold in leaf.holds and _touches(leaf, tensor, homes)]
        ways = [tensor_words(homes, tensor, hold, _laid_out(sizes, spatial, homes, unit)) for spatial in laid]
        whole = tensor_words(homes, tensor, hold, sizes) / column(unit.elements)
        found.append((reduce(np.maximum, ways) if ways else whole) * tensor_bytes[tensor])
    return as_array(reduce(np.maximum, found) * hold.buffers)


def _touches(leaf: Leaf, tensor: str, homes: Homes) -> bool:
    return leaf in homes.producers(tensor) or leaf in homes.consumers(tensor)


def _laid_out(
    sizes: Mapping[str, Array], spatial: Mapping[str, str], homes: Homes, unit: EvaluatedUnit
) -> dict[str, Array]:
    """Coordinates of every base rank that one element sees."""
    seen = dict(sizes)
    for rank, dim in spatial.items():
        base = homes.ranks.base(rank)
        if dim in unit.dims and base in seen:
            seen[base] = np.ceil(seen[base] / column(unit.dims[dim]))
    return seen


def footprint_bytes(hold: Hold, homes: Homes, extents: Mapping[str, Array], tensor_bytes: Mapping[str, Array]) -> Array:
    """Bytes that a hold takes: its largest tensor's full tile, times its buffers, (points, 1)."""
    sizes = tile_sizes(hold.loops, extents)
    tiles = [tensor_words(homes, name, hold, sizes) * tensor_bytes[name] for name in hold.tensors]
    return as_array(reduce(np.maximum, tiles) * hold.buffers)


def tile_sizes(loops: Sequence[Loop], extents: Mapping[str, Array]) -> dict[str, Array]:
    """Coordinates of every base rank in one full iteration of some loops."""
    sizes = dict(extents)
    for loop in loops:
        sizes[loop.rank] = np.minimum(sizes[loop.rank], loop.chunk)
    return sizes


def tensor_words(homes: Homes, tensor: str, hold: Hold, sizes: Mapping[str, Array]) -> Array:
    """Words of a tensor's tiles in a hold: of each the largest that an access cuts."""
    users = [leaf for leaf in homes.leaves if hold in leaf.holds]
    words = [
        reduce(np.maximum, (homes.ranks.words(shape, sizes) for shape in shapes))
        for shapes in homes.tiles(tensor, users, hold.loops)
    ]
    return as_array(sum(words, np.zeros((1, 1))))


def _at(values: Array, point: int) -> Any:
    return values[min(point, values.shape[0] - 1), 0]
