"""Lowering: a bound mapping becomes a tile program.

For each phase the tile loops are the loops around all that it computes; loops further in are folded into the steps of a
tile. A leaf becomes a compute step on its unit with the accesses it makes; a hold becomes fill steps (and drain steps
for what is produced in it); each memory with a limited bandwidth gets a step for the bytes that pass it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from architectures import EvaluatedArchitecture
from einsum.cascade import Cascade
from einsum.errors import SpecError
from mappings.capacity import check_registers, spilled_shares
from mappings.mask import Mask
from mappings.masked import MaskedTileSpace, Space
from mappings.movement import Ranks, column
from mappings.nest import Binder, Hold, Leaf, PhaseNest, as_points
from mappings.operands import Homes
from mappings.program import Array, Phase, Resource, Stream, TileProgram
from mappings.schema import Node
from mappings.streams import StreamLowering
from mappings.tiles import Loop, Positions, PositionsNeeded, TileSpace


def lower(
    cascade: Cascade,
    machine: EvaluatedArchitecture,
    nest: tuple[Node, ...],
    env: Mapping[str, Any],
    points: int,
    *,
    hidden_fill: bool = False,
) -> TileProgram:
    """The tile program of a nest over a cascade on an evaluated architecture, at `points` design points at once.

    `env` has a value (a number or an array of `points`) for every name. A cascade under a mask is lowered at one point
    at a time (`needs_single_points`). SpecError for a mapping that is not legal, with
    the first obstacle; `nest.StructureVaries` when a condition differs between the points.
    """
    homes = bound(cascade, machine, nest, env, points)
    phases, extents = homes.phases, base_extents(cascade, env, points)
    _check_no_gpu_form(phases, machine)
    tensor_bytes = word_bytes(cascade, machine, env, points)
    mask = Mask.of(cascade, env) if points == 1 else None
    lowered = []
    for phase in phases:
        check_registers(phase, homes, machine, extents, tensor_bytes)
        spilled = spilled_shares(phase, homes, machine, extents, tensor_bytes)
        stream = _lower_phase(phase, homes, machine, extents, tensor_bytes, spilled, mask, hidden_fill)
        lowered.append(Phase(phase.name, (stream,)))
    used = {step.resource for phase in lowered for stream in phase.streams for step in stream.steps}
    return TileProgram(
        phases=tuple(lowered),
        resources={name: Resource(name, _copies(name, machine)) for name in used if name is not None},
        points=points,
        energy_j={key: column(value) for key, value in machine.action_energies_j().items()},
        peak_per_s={name: column(unit.elements * unit.clock_hz * unit.copies) for name, unit in machine.units.items()},
        clock_hz=column(machine.clock_hz),
        area_m2=None if machine.area_m2 is None else column(machine.area_m2),
        assumptions=_assumptions(lowered, hidden_fill),
    )


def bound(
    cascade: Cascade,
    machine: EvaluatedArchitecture,
    nest: tuple[Node, ...],
    env: Mapping[str, Any],
    points: int,
    further: tuple[str, ...] = (),
) -> Homes:
    """A nest bound to numbers and checked: its phases, where every tensor lives. Arguments and errors as `lower`;
    `further` are names of levels besides memories and units."""
    levels = {**dict.fromkeys((*machine.memories, *further), True), **dict.fromkeys(machine.units, False)}
    binder = Binder(cascade, env, points, levels)
    ranks = Ranks(cascade, {base: binder.partition_size(base) for base in cascade.partitions}, env)
    phases = binder.phases(nest, "nest")
    store = next(iter(machine.memories))
    outside = tuple(name for name, tensor in cascade.tensors.items() if tensor.kind != "intermediate")
    root = Hold(store, store, outside, np.ones((points, 1)), False, False, False, (), "the outermost memory")
    extents = base_extents(cascade, env, points)
    homes = Homes(cascade, ranks, phases, root, _single_loops(phases, extents))
    _check_iterations(homes)
    _check_complete(cascade, phases)
    homes.check()
    _check_values_last(homes, extents)
    return homes


def _check_no_gpu_form(phases: tuple[PhaseNest, ...], machine: EvaluatedArchitecture) -> None:
    """SpecError for thread blocks on a machine that is no GPU."""
    for phase in phases:
        if phase.form.warps is not None or phase.form.specialized is not None:
            raise SpecError(f"'{machine.name}' is no GPU: a grid on it has no warps", key="nest")


def needs_single_points(cascade: Cascade) -> bool:
    """Whether the cascade can be lowered at one design point at a time only: its tiles differ under a mask."""
    return any(einsum.conditions for einsum in cascade.einsums)


def base_extents(cascade: Cascade, env: Mapping[str, Any], points: int) -> dict[str, Array]:
    """Extent of every base rank, (points, 1); SpecError below 1."""
    parts = {name for part in cascade.partitions.values() for name in (part.outer, part.inner)}
    extents = {}
    for name, rank in cascade.ranks.items():
        if name not in parts:
            key = f"ranks.{name}"
            try:
                value = rank.extent.evaluate(env)
            except SpecError as error:
                raise error.located(key=key) from None
            extents[name] = as_points(value, points, key, 1, str(rank.extent))
    return extents


def word_bytes(
    cascade: Cascade, machine: EvaluatedArchitecture, env: Mapping[str, Any], points: int
) -> dict[str, Array]:
    """Bytes of one word of each tensor: its own bits, or the architecture's word."""
    return {
        name: column(machine.word_bytes)
        if tensor.bits is None
        else as_points(tensor.bits.evaluate(env), points, f"tensors.{name}.bits", 1, str(tensor.bits)) / 8
        for name, tensor in cascade.tensors.items()
    }


def _lower_phase(
    phase: PhaseNest,
    homes: Homes,
    machine: EvaluatedArchitecture,
    extents: Mapping[str, Array],
    tensor_bytes: Mapping[str, Array],
    spilled: Mapping[Hold, Array],
    mask: Mask | None,
    hidden_fill: bool,
) -> Stream:
    """The stream of a phase. Loops are told apart into first, middle and last iterations only where that matters."""
    points = next(iter(extents.values())).shape[0]
    positions: Positions = frozenset()
    while True:
        space: Space = (
            TileSpace.build(phase.tile_loops, extents, positions, points)
            if mask is None
            else MaskedTileSpace.build(phase.tile_loops, extents, mask)
        )
        lowering = StreamLowering(phase, homes, machine, space, tensor_bytes, spilled)
        try:
            steps = lowering.steps()
        except PositionsNeeded as needed:
            positions |= needed.positions
            continue
        instances = space.instances()
        counts = space.counts / instances[:, None]
        first, last = space.ends()
        return Stream(phase.name, steps, counts, space.order, instances, phase.slots[:, 0], hidden_fill, first, last)


def _copies(resource: str, machine: EvaluatedArchitecture) -> Array:
    """Copies of a unit, or of a memory that has the port."""
    name = resource.split(".")[0]
    return column(machine.units[name].copies if name in machine.units else machine.memories[name].copies)[:, 0]


def _single_loops(phases: tuple[PhaseNest, ...], extents: Mapping[str, Array]) -> frozenset[Loop]:
    """Loops that have one iteration at every design point."""
    found: set[Loop] = set()
    for leaf in (leaf for phase in phases for leaf in phase.leaves):
        sizes = dict(extents)
        for loop in leaf.loops:
            if (sizes[loop.rank] <= loop.chunk).all():
                found.add(loop)
            sizes[loop.rank] = np.minimum(sizes[loop.rank], loop.chunk)
    return frozenset(found)


def _check_iterations(homes: Homes) -> None:
    """SpecError unless every running value is updated in a loop that takes its iterations one at a time."""
    for leaf in homes.leaves:
        for name in leaf.einsums:
            for rank in homes.ranks.iterative(homes.writes(name)):
                loops = [loop for loop in leaf.loops if loop.name == rank]
                step = homes.ranks.chunk[homes.ranks.base(rank)] if rank in homes.ranks.parts else np.ones((1, 1))
                if not loops or (loops[-1].chunk != step).any():
                    raise SpecError(
                        f"{name} updates its value along '{rank}': the mapping has to loop over it one iteration at a "
                        f"time, with {{for: {{{rank}: 1}}}} around {leaf.name}",
                        key=leaf.key,
                    )


def _check_values_last(homes: Homes, extents: Mapping[str, Array]) -> None:
    """SpecError for a value that is computed once and read again after its tile has been replaced.

    A producer gated to the first iteration of a loop computes its tiles there; a reader that runs in every iteration
    finds them only while no loop in between moves the hold on to other tiles.
    """
    for hold in dict.fromkeys(hold for phase in homes.phases for hold in phase.holds if not hold.staged):
        for tensor in hold.tensors:
            for made in homes.producers(tensor):
                for reader in homes.consumers(tensor):
                    if reader is made or hold not in made.holds or hold not in reader.holds:
                        continue
                    loop = _replaced_in(hold, tensor, made, reader, homes, extents)
                    if loop is not None:
                        raise SpecError(
                            f"'{tensor}' is computed in the first iteration of the loop over '{loop.name}' only, but "
                            f"its tile in {hold.level} is replaced before {reader.name} reads it in the next one; "
                            "hold it outside that loop",
                            key=hold.key,
                        )


def _replaced_in(
    hold: Hold, tensor: str, made: Leaf, reader: Leaf, homes: Homes, extents: Mapping[str, Array]
) -> Loop | None:
    """The loop that gates a producer but not its reader, while loops inside it replace the held tile."""
    once = {gate.loop for gate in homes.gates(made) if gate.side == "first"}
    again = once - {gate.loop for gate in homes.gates(reader)}
    output = next(homes.einsum(name).output for name in made.einsums if homes.writes(name) == tensor)
    moved_by = homes.ranks.shape(output).moved_by
    sizes = dict(extents)
    found: Loop | None = None
    for loop in hold.loops:
        several = bool((np.ceil(sizes[loop.rank] / loop.chunk) > 1).any())
        sizes[loop.rank] = np.minimum(sizes[loop.rank], loop.chunk)
        if loop in again and several:
            found = found or loop
        elif found is not None and several and loop.name in moved_by:
            return found
    return None


def _check_complete(cascade: Cascade, phases: tuple[PhaseNest, ...]) -> None:
    computed = [name for phase in phases for leaf in phase.leaves for name in leaf.einsums]
    for einsum in cascade.einsums:
        if einsum.name not in computed:
            raise SpecError(f"the mapping never computes {einsum.name} of cascade '{cascade.name}'", key="nest")
    twice = next((name for name in computed if computed.count(name) > 1), None)
    if twice:
        raise SpecError(f"the mapping computes {twice} more than once", key="nest")
    place = {name: index for index, phase in enumerate(phases) for leaf in phase.leaves for name in leaf.einsums}
    for einsum in cascade.einsums:
        for access in einsum.inputs:
            for made in cascade.einsums:
                if made.output.tensor == access.tensor and place[made.name] > place[einsum.name]:
                    raise SpecError(
                        f"{einsum.name} is computed in a phase before {made.name}, which it reads", key="nest"
                    )


def _assumptions(phases: list[Phase], hidden_fill: bool) -> tuple[str, ...]:
    notes = ["memory traffic overlaps with computation where buffers allow it; accesses are charged by their bytes"]
    if hidden_fill:
        notes.append("the pipeline's fill and drain overlap with work before and after the program")
    if len(phases) > 1:
        notes.append(f"{len(phases)} phases run one after another")
    return tuple(notes)
