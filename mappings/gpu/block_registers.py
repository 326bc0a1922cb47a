"""Registers of a thread of a block: the values that live at the same time, and what is on its way.

A value that a loop carries, or that several parts of a block use, is there all the time; others from the Einsum that
makes them to the last one that reads them. Vector Einsums write over what they read last; products do not. How much
more than its values a thread takes was counted from compiled kernels (the architecture says how).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from einsum.errors import SpecError
from mappings.gpu.block_moves import BlockMoves
from mappings.gpu.block_parts import BlockPart
from mappings.gpu.block_steps import BlockSteps
from mappings.nest import Hold
from mappings.operands import is_previous
from mappings.program import Array
from mappings.tiles import Loop

Tile = Callable[[Sequence[Loop]], dict[str, Array]]


class BlockRegisters:
    """Registers of the blocks of one launch; `holds` are those of its registers. SpecError for holds of more than there
    are, unless one may spill."""

    def __init__(self, steps: BlockSteps, moves: BlockMoves, holds: Sequence[Hold], tile: Tile) -> None:
        self.steps, self.moves, self.parts = steps, moves, steps.parts
        held: dict[Hold, float] = {}
        self.values: dict[str, float] = {}
        self.hold_of: dict[str, Hold] = {}
        for hold in holds:
            sizes = {name: steps.registers(name, tile(hold.loops), hold) for name in hold.tensors}
            held[hold] = max(sizes.values())
            self.values |= sizes
            self.hold_of |= dict.fromkeys(hold.tensors, hold)
        total, most = self._variable("thread_registers") + sum(held.values()), steps.gpu.max_registers
        if total > most and not any(hold.spills for hold in held):
            largest = max(held, key=lambda hold: held[hold])
            raise SpecError(
                f"a thread would hold {total:,.0f} registers of {most:,.0f}, the largest part is '{largest.name}' with "
                f"{held[largest]:,.0f}; use smaller tiles or more warps",
                key=largest.key,
            )

    def taken(self) -> float:
        """Registers of a thread."""
        values = self._variable("thread_registers") + self.live()
        if self.steps.products.sizes:
            values = self._variable("block_registers") + self._variable("held_registers") * self.live()
        return min(values + self._moving(), self.steps.gpu.max_registers)

    def lacking(self) -> float:
        """Registers that a thread lacks in a loop whose tiles it moves number by number, with an address of each."""
        numbers = max((self._numbers(part) for part in self.parts.parts if part.path), default=0.0)
        taken = self._variable("number_registers") * numbers + self.live()
        return max(0.0, taken - self.steps.gpu.max_registers) if numbers else 0.0

    def _variable(self, name: str) -> float:
        return self.steps.threads.variable(name)

    def _numbers(self, part: BlockPart) -> float:
        """Numbers that a thread brings to the shared memory one by one in a trip."""
        alone = [each for each in part.loads if self._shared(each.hold) and self.moves.alone(each)]
        return self.moves.per_trip(part, alone) / self.steps.threads.count

    def _shared(self, hold: Hold | None) -> bool:
        return hold is not None and hold.level == "shared"

    def _moving(self) -> float:
        """What is on its way: copies to the shared memory, operands of single warps' products, numbers alone."""
        copied = numbers = alone = 0.0
        for part in self.parts.parts:
            shared = [each for each in part.loads if self._shared(each.hold) and not self.moves.alone(each)]
            copied = max(copied, self.moves.per_trip(part, shared)) if part.path else copied  # else before any result
            numbers = max(numbers, self._numbers(part))
            others = [each for each in part.loads if not self._shared(each.hold)] + part.stores
            single = [self.moves.per_trip(part, [each]) for each in others if self.moves.alone(each)]
            alone = max([alone, *single])
        kept, other = self.steps.products.operand_registers()
        moved = self._variable("copy_registers") * copied + self._variable("address_registers") * alone
        operands = kept + self._variable("operand_registers") * other
        return moved / self.steps.threads.count + operands + self._variable("number_registers") * numbers

    def live(self) -> float:
        """Registers of the values that live at the same time."""
        carried = {name for name in self.values if self._carried(name)}
        most = max((self._pressure(part, carried) for part in self.parts.parts), default=self._sum(carried))
        products, count = self.steps.products, self.steps.threads.count
        return most + sum(products.handed_over(name) for name in products.sizes) / count

    def _sum(self, names: set[str]) -> float:
        """Registers of some values; those of one hold take each other's place."""
        largest: dict[int, float] = {}
        for name in names:
            hold = id(self.hold_of[name])
            largest[hold] = max(largest.get(hold, 0.0), self.values[name])
        return sum(largest.values())

    def _carried(self, name: str) -> bool:
        """Whether a value is there for all of a block: kept over a loop's trips, or used by several parts."""
        makers = self.parts.makers(name)
        users = {*makers, *self.steps.products.readers(name)}
        parts = {id(self.parts.of_leaf[leaf]) for leaf in users}
        again = any(
            access.tensor == name and is_previous(self.steps.ranks, access)
            for leaf in self.parts.phase.leaves for einsum in self.steps.products.einsums(leaf)
            for access in einsum.inputs
        )  # fmt: skip
        around = [loop for leaf in users for loop in self.parts.path(leaf) if loop not in self.hold_of[name].loops]
        return len(parts) > 1 or again or bool(around)

    def _pressure(self, part: BlockPart, carried: set[str]) -> float:
        """The most registers that values take at a time in a part."""
        spans: dict[str, tuple[int, int]] = {}
        for name in self.values.keys() - carried:
            makers = [k for k, leaf in enumerate(part.leaves) if leaf in self.parts.makers(name)]
            readers = [k for k, leaf in enumerate(part.leaves) if leaf in self.steps.products.readers(name)]
            if makers or readers:
                spans[name] = min(makers, default=-1), max([*makers, *readers])
        most = self._sum(carried)
        for place, leaf in enumerate(part.leaves):
            before = {name for name, (made, last) in spans.items() if made < place <= last}
            after = {name for name, (made, last) in spans.items() if made <= place < last or made == place}
            sets = [before | after] if leaf.unit == "tensor" else [before, after]
            most = max(most, *(self._sum(names | carried) for names in sets))
        return most
