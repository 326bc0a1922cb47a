"""What a thread block of a nest does, loop after loop: which Einsums and transfers belong to which loop.

The loops of a block follow one another: a GPU's block is straight code, a loop, straight code, perhaps another loop.
Einsums under the same loops make one of these parts. An Einsum that runs once for a loop around it (a quotient behind
the sum, say) is straight code before or behind that loop. A transfer belongs to the innermost loop that moves its tile
on, and to straight code where none does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from einsum.access import Access
from einsum.errors import SpecError
from mappings.movement import Shape
from mappings.nest import Hold, Leaf, PhaseNest
from mappings.operands import Homes
from mappings.tiles import Loop

BLOCK_LEVELS = ("shared", "registers")
"""What a thread block has for itself: its shared memory, and the registers of its threads."""


@dataclass(frozen=True, eq=False)
class Transfer:
    """A tensor's tile that a block reads from memory, or writes to it.

    path   loops around it, up to the innermost that moves the tile on
    again  loops of the path that do not: the same tile comes once more in each of their iterations
    hold   where it is kept in the block; None for a result that leaves as it is made
    """

    tensor: str
    access: Access
    shape: Shape
    path: tuple[Loop, ...]
    again: tuple[Loop, ...]
    hold: Hold | None


@dataclass(eq=False)
class BlockPart:
    """One loop of a block, or straight code (an empty path); `place` tells the order of the parts."""

    path: tuple[Loop, ...]
    place: float
    leaves: list[Leaf] = field(default_factory=list)
    loads: list[Transfer] = field(default_factory=list)
    stores: list[Transfer] = field(default_factory=list)


class BlockParts:
    """The parts of the blocks of one phase. `single`: loops that have one iteration."""

    def __init__(self, phase: PhaseNest, homes: Homes, outside: frozenset[str]) -> None:
        """`outside`: tensors that other launches make or read, and inputs and outputs."""
        self.phase, self.homes, self.outside = phase, homes, outside
        self.grid = tuple(loop for loop in phase.body.loops if loop.grid)
        self.of_leaf: dict[Leaf, BlockPart] = {}
        self.parts: list[BlockPart] = []
        for leaf in phase.leaves:
            self._check_grid(leaf)
        for leaf in phase.leaves:
            self._add_leaf(leaf)
        for leaf in phase.leaves:
            self._add_loads(leaf)
        for leaf in phase.leaves:
            self._add_stores(leaf)
        self.parts = _joined(sorted(self.parts, key=lambda part: part.place))

    def counted(self, loops: Sequence[Loop]) -> tuple[Loop, ...]:
        """The loops of a block among some loops: those that are no grid's and have more than one iteration. The loop
        over the chunks of a partitioned or iterative rank stays a loop however few chunks there are."""
        cascade = self.homes.cascade
        walked = {part.outer for part in cascade.partitions.values()} | cascade.iterative
        return tuple(loop for loop in loops if not loop.grid and (loop.name in walked or loop not in self.homes.single))

    def path(self, leaf: Leaf) -> tuple[Loop, ...]:
        """The loops that a leaf iterates."""
        gated = {gate.loop for gate in self.homes.gates(leaf)}
        return tuple(loop for loop in self.counted(leaf.loops) if loop not in gated)

    def held(self, leaf: Leaf, tensor: str) -> tuple[Hold, ...]:
        """Holds of a tensor inside the block, on the way to a leaf, outermost first."""
        return tuple(
            hold for hold in leaf.holds
            if tensor in hold.tensors and not hold.staged and all(loop in hold.loops for loop in self.grid)
        )  # fmt: skip

    def makers(self, tensor: str) -> tuple[Leaf, ...]:
        """Leaves of this launch that make a tensor."""
        return tuple(leaf for leaf in self.homes.producers(tensor) if leaf in self.phase.leaves)

    def _check_grid(self, leaf: Leaf) -> None:
        """SpecError for a sum that a grid's loop cuts: each block would have a part of it."""
        for loop in self.grid:
            if loop in self.homes.single:
                continue
            for einsum in map(self.homes.einsum, leaf.einsums):
                cut = [rank for rank in einsum.reduced if loop.name in self.homes.ranks.names_moving(rank)]
                if cut:
                    raise SpecError(
                        f"the grid's loop over '{loop.name}' cuts what {einsum.name} reduces, so that every thread "
                        "block would have a part; reduce inside the block, or partition the rank in the cascade",
                        key=leaf.key,
                    )

    def _add_leaf(self, leaf: Leaf) -> None:
        path, counted = self.path(leaf), self.counted(leaf.loops)
        place = float(self.phase.leaves.index(leaf))
        if path != counted:
            gates = {gate.loop: gate.side for gate in self.homes.gates(leaf)}
            first = next(loop for loop in counted if loop in gates)
            inside = [k for k, other in enumerate(self.phase.leaves) if first in other.loops]
            if path:  # once for some loops, in every iteration of others: part of the loop inside
                path = counted
            elif any(gates.get(loop) == "last" for loop in counted):
                place = max(inside) + 0.5
            else:
                place = min(inside) - 0.5
        part = next((part for part in self.parts if part.path == path and (path or part.place == place)), None)
        if part is None:
            part = BlockPart(path, place)
            self.parts.append(part)
        part.leaves.append(leaf)
        self.of_leaf[leaf] = part

    def _add_loads(self, leaf: Leaf) -> None:
        for einsum in map(self.homes.einsum, leaf.einsums):
            for access in einsum.inputs:
                tensor = access.tensor
                if self.makers(tensor):
                    self._check_inside(leaf, tensor)
                    continue
                holds = self.held(leaf, tensor)
                if not holds:
                    raise SpecError(
                        f"{leaf.name} reads '{tensor}', which no memory of the thread block holds; keep it in "
                        f"{' or '.join(BLOCK_LEVELS)} inside the grid",
                        key=leaf.key,
                    )
                self._check_level(holds[0])
                self._add_load(leaf, access, holds[0])

    def _check_inside(self, leaf: Leaf, tensor: str) -> None:
        """SpecError for a value that leaves the block and comes back in the same launch."""
        if self.homes.source(leaf, tensor) is None:
            return
        holds = self.held(leaf, tensor)
        if not holds:
            raise SpecError(
                f"'{tensor}' is made and read in one launch, but held outside the thread blocks; keep it in "
                f"{' or '.join(BLOCK_LEVELS)} inside the grid, or make it in a launch of its own",
                key=leaf.key,
            )
        self._check_level(holds[-1])

    def _check_level(self, hold: Hold) -> None:
        if hold.level not in BLOCK_LEVELS:
            raise SpecError(
                f"a thread block cannot hold '{hold.name}' in {hold.level}, which all blocks share; keep it in "
                f"{' or '.join(BLOCK_LEVELS)}",
                key=hold.key,
            )

    def _add_load(self, leaf: Leaf, access: Access, hold: Hold) -> None:
        shape = self.homes.ranks.shape(access)
        users = [other for other in self.phase.leaves if hold in other.holds and self._reads(other, access.tensor)]
        gated = set.intersection(*({gate.loop for gate in self.homes.gates(user)} for user in users))
        around = [loop for loop in self.counted(hold.loops) if loop not in gated]
        path, again = _moved(around, self._moved_by(access.tensor, shape))
        part = self._part_of(leaf, path, -0.25)
        known = [other for each in self.parts for other in each.loads]
        if not any(other.hold is hold and other.tensor == access.tensor and other.shape == shape for other in known):
            part.loads.append(Transfer(access.tensor, access, shape, path, again, hold))

    def _moved_by(self, tensor: str, shape: Shape) -> frozenset[str]:
        """Names of loops that move a tile on; along an iterative rank a running value stays where it is."""
        latest = self.homes.ranks.iterative(tensor)
        return shape.moved_by - {name for rank in latest for name in self.homes.ranks.names_moving(rank)}

    def _reads(self, leaf: Leaf, tensor: str) -> bool:
        return any(access.tensor == tensor for name in leaf.einsums for access in self.homes.einsum(name).inputs)

    def _add_stores(self, leaf: Leaf) -> None:
        for einsum in map(self.homes.einsum, leaf.einsums):
            tensor = einsum.output.tensor
            if tensor not in self.outside:
                continue
            shape = self.homes.ranks.shape(einsum.output)
            moved_by = self._moved_by(tensor, shape)
            path, _ = _moved(self.path(leaf), moved_by)
            around = [loop for loop in self.path(leaf) if loop.name not in moved_by]
            holds = self.held(leaf, tensor)
            hold = next((hold for hold in holds if not any(loop in hold.loops for loop in around)), None)
            if around and hold is None:
                raise SpecError(
                    f"'{tensor}' is complete only when the loop over '{around[0].name}' ends; keep it in "
                    f"{' or '.join(BLOCK_LEVELS)} outside that loop",
                    key=leaf.key,
                )
            if hold is not None:
                self._check_level(hold)
            part = self._part_of(leaf, path, 0.75)
            part.stores.append(Transfer(tensor, einsum.output, shape, path, (), hold))

    def _part_of(self, leaf: Leaf, path: tuple[Loop, ...], shift: float) -> BlockPart:
        """The part in which a transfer of a leaf happens: the leaf's own loop, or straight code beside it."""
        own = self.of_leaf[leaf]
        if path or not own.path:
            return own
        inside = [k for k, other in enumerate(self.phase.leaves) if own.path[0] in other.loops]
        place = (min(inside) if shift < 0 else max(inside)) + shift
        part = next((part for part in self.parts if not part.path and part.place == place), None)
        if part is None:
            part = BlockPart((), place)
            self.parts.append(part)
        return part


def _moved(around: Sequence[Loop], moved_by: frozenset[str]) -> tuple[tuple[Loop, ...], tuple[Loop, ...]]:
    """The loops up to the innermost that moves a tile on, and those among them that do not move it."""
    moving = [place for place, loop in enumerate(around) if loop.name in moved_by]
    path = tuple(around[: moving[-1] + 1]) if moving else ()
    return path, tuple(loop for loop in path if loop.name not in moved_by)


def _joined(parts: list[BlockPart]) -> list[BlockPart]:
    """Straight code that follows straight code is one part."""
    found: list[BlockPart] = []
    for part in parts:
        if found and not part.path and not found[-1].path:
            last = found[-1]
            found[-1] = BlockPart(
                (), last.place, last.leaves + part.leaves, last.loads + part.loads, last.stores + part.stores
            )
        else:
            found.append(part)
    return found
