"""What one step moves and does, gathered while it is lowered: bytes per memory and tensor, actions, operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from architectures import EvaluatedArchitecture
from mappings.movement import column
from mappings.nest import Hold
from mappings.program import Array, Dependence, Step, Traffic

K = TypeVar("K")


@dataclass
class Account:
    """Totals of one execution of a step; every value is (points, classes)."""

    read_bytes: dict[tuple[str, str], Array] = field(default_factory=dict)
    write_bytes: dict[tuple[str, str], Array] = field(default_factory=dict)
    actions: dict[tuple[str, str], Array] = field(default_factory=dict)
    work: dict[str, Array] = field(default_factory=dict)

    def act(self, component: str, action: str, count: Array) -> None:
        """Count energy actions."""
        self.actions[component, action] = self.actions.get((component, action), 0.0) + count

    def traffic(self) -> dict[tuple[str, str], Traffic]:
        """Bytes by (memory, tensor)."""
        keys = dict.fromkeys([*self.read_bytes, *self.write_bytes])
        return {key: Traffic(self.read_bytes.get(key, 0.0), self.write_bytes.get(key, 0.0)) for key in keys}

    def changed(self, change: Callable[[Array], Array]) -> Account:
        """The same account with every value changed, such as summed over parts of a tile."""

        def applied(book: dict[K, Array]) -> dict[K, Array]:
            return {key: change(value) for key, value in book.items()}

        return Account(applied(self.read_bytes), applied(self.write_bytes), applied(self.actions), applied(self.work))

    def level_bytes(self, level: str) -> tuple[Array | float, Array | float]:
        """(read, written) bytes at one memory, over all tensors."""
        reads = sum((value for (name, _), value in self.read_bytes.items() if name == level), 0.0)
        writes = sum((value for (name, _), value in self.write_bytes.items() if name == level), 0.0)
        return reads, writes


class Ledger:
    """Books accesses on accounts: bytes, access actions, and what an overflowing hold passes on to its parent."""

    def __init__(
        self, machine: EvaluatedArchitecture, tensor_bytes: Mapping[str, Array], spilled: Mapping[Hold, Array]
    ) -> None:
        """`tensor_bytes`: bytes of one word of each tensor; `spilled`: the part of a hold that does not fit."""
        self.machine = machine
        self.tensor_bytes = tensor_bytes
        self.spilled = spilled

    def access(
        self, account: Account, chain: tuple[Hold, ...], tensor: str, reads: Array | float, writes: Array | float
    ) -> None:
        """Book `reads` and `writes` words on the last hold of a chain (outermost first)."""
        hold = chain[-1]
        self._book(account, hold.level, tensor, reads, writes)
        if hold not in self.spilled:
            return
        share = self.spilled[hold]
        if len(chain) > 1:
            self.access(account, chain[:-1], tensor, reads * share, writes * share)
        else:
            self._book(account, self.machine.backing_store.name, tensor, reads * share, writes * share)

    def access_own(
        self, account: Account, hold: Hold, tensor: str, reads: Array | float, writes: Array | float
    ) -> None:
        """Book accesses on a hold that its parent does not see: its own side of a load or a store."""
        self._book(account, hold.level, tensor, reads, writes)

    def kept(self, hold: Hold) -> Array | float:
        """The part of a hold's tensors that fits."""
        return 1.0 - self.spilled[hold] if hold in self.spilled else 1.0

    def _book(self, account: Account, level: str, tensor: str, reads: Array | float, writes: Array | float) -> None:
        word = self.tensor_bytes[tensor]
        if level in self.machine.units:
            self._book_registers(account, level, reads, writes, word)
            return
        memory = self.machine.memories[level]
        unit = column(memory.access_bits) / 8
        for action, words, book in (("read", reads, account.read_bytes), ("write", writes, account.write_bytes)):
            moved = words * word
            if moved.any():
                book[level, tensor] = book.get((level, tensor), 0.0) + moved
                account.act(level, action, moved / unit)

    def _book_registers(
        self, account: Account, level: str, reads: Array | float, writes: Array | float, word: Array
    ) -> None:
        registers = self.machine.units[level].registers
        if registers is None:
            return
        unit = column(registers.access_bits) / 8
        for action, words in (("read", reads), ("write", writes)):
            moved = words * word
            if moved.any():
                account.act(f"{level}.registers", action, moved / unit)


def memory_steps(
    name: str, account: Account, machine: EvaluatedArchitecture, after: tuple[Dependence, ...]
) -> list[Step]:
    """One step for each limited port that an account uses: the time that the bytes occupy it."""
    steps = []
    for level, memory in machine.memories.items():
        reads, writes = account.level_bytes(level)
        ports = (
            (level, memory.bandwidth_bytes_per_s, reads + writes),
            (f"{level}.read", memory.read_bandwidth_bytes_per_s, reads),
            (f"{level}.write", memory.write_bandwidth_bytes_per_s, writes),
        )
        for port, bandwidth, moved in ports:
            rate = column(bandwidth)
            if np.isfinite(rate).any() and np.any(moved):
                steps.append(Step(f"{name} @{port}", port, moved / rate, column(memory.latency_s), after))
    return steps
