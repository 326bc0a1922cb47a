"""An architecture with its numbers: what lowering and the reports read.

All values are SI. Each is a float, or an array with one value per design point. A capacity or bandwidth that the
description leaves out is infinite: it never limits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import mul
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from architectures.quantity import Number
from architectures.topk import ALGORITHMS, Algorithm, Work, expected_on_softmax
from einsum.errors import SpecError, nearest
from einsum.evaluation import Value


@dataclass(frozen=True)
class EvaluatedMemory:
    """One memory. The numbers are those of one of its `copies`.

    bandwidth_bytes_per_s  shared by reads and writes; the other two limit one direction each
    access_bits            bits that one access moves; energies are per access
    latency_s              time from a request to its first data
    channels               independent channels that share the bandwidth
    transaction_bytes      bytes that a channel moves at least at a time; 0 for any number
    """

    name: str
    capacity_bytes: Number
    bandwidth_bytes_per_s: Number
    read_bandwidth_bytes_per_s: Number
    write_bandwidth_bytes_per_s: Number
    access_bits: Number
    read_energy_j: Number
    write_energy_j: Number
    latency_s: Number
    channels: Number
    transaction_bytes: Number
    copies: Number
    area_m2: Number | None

    @property
    def unbounded(self) -> bool:
        """Whether the description gives no capacity."""
        return isinstance(self.capacity_bytes, float) and math.isinf(self.capacity_bytes)

    @property
    def access_bytes(self) -> Number:
        """Bytes that one access moves."""
        return self.access_bits / 8

    def fetched_bytes(self, pieces: Any, piece_bytes: Any) -> NDArray[np.float64]:
        """Bytes that move when so many scattered pieces of a size are wanted: whole transactions.

        A piece takes as many transactions as it fills or begins (it starts at the boundary of one). A piece that is
        shared with others counts in part.
        """
        pieces, piece_bytes, unit = np.broadcast_arrays(*map(np.asarray, (pieces, piece_bytes, self.transaction_bytes)))
        whole = pieces * np.ceil(piece_bytes / np.where(unit > 0, unit, 1)) * unit
        return np.asarray(np.where(unit > 0, whole, pieces * piece_bytes), dtype=np.float64)

    def bus_bytes(self, fetched: Any) -> NDArray[np.float64]:
        """Bytes that the bus could have moved while it is busy with `fetched` bytes of whole transactions.

        The transactions are spread over the channels in turn, so the busiest channel has at most one more than the
        others; the bytes are those of the busiest one times the channels.
        """
        unit = np.asarray(self.transaction_bytes)
        row = np.where(unit > 0, unit, 1) * self.channels
        return np.asarray(np.where(unit > 0, np.ceil(fetched / row) * row, fetched), dtype=np.float64)


@dataclass(frozen=True)
class EvaluatedRegisters:
    """The register file of one processing element: its words, and the energy of one access."""

    words: Number
    access_bits: Number
    read_energy_j: Number
    write_energy_j: Number


@dataclass(frozen=True)
class EvaluatedOp:
    """What one operation costs one processing element: cycles during which it is busy, and energy."""

    cycles: Number
    energy_j: Number


@dataclass(frozen=True)
class EvaluatedInstruction:
    """What one operation of a thread takes: issue slots; those among them that run at half rate, special functions,
    additions and multiplications of 32 bits."""

    issue: Number
    half: Number
    sfu: Number
    fp32: Number


@dataclass(frozen=True)
class EvaluatedUnit:
    """An array of processing elements. `dims` gives its elements along each named spatial dimension, outermost first.

    The numbers are those of one of its `copies`; `depth` is the number of its pipeline's stages, in cycles.
    """

    name: str
    dims: Mapping[str, Number]
    clock_hz: Number
    ops: Mapping[str, EvaluatedOp]
    registers: EvaluatedRegisters | None
    depth: Number
    copies: Number
    area_m2: Number | None

    @property
    def elements(self) -> Number:
        """Processing elements of one copy: the product of the dimensions."""
        return reduce(mul, self.dims.values(), 1.0)

    def op(self, kind: str) -> EvaluatedOp:
        """The cost of an operation; SpecError names the operations that the unit can run when it lacks this one."""
        if kind not in self.ops:
            key = f"units.{self.name}.ops"
            raise SpecError(f"the unit '{self.name}' cannot run '{kind}' (it runs {', '.join(self.ops)})", key=key)
        return self.ops[kind]


@dataclass(frozen=True)
class EvaluatedSelector:
    """A top-k engine."""

    name: str
    algorithm: Algorithm
    parallelism: Number
    pass_cycles: Number
    score_deviation: Number | None
    value_bits: Number
    fifo_rows: Number
    clock_hz: Number
    compare_energy_j: Number
    area_m2: Number | None

    @property
    def capacity(self) -> Number:
        """Values that it can select from."""
        return self.fifo_rows * self.parallelism

    def work(self, n: ArrayLike, k: ArrayLike) -> Work:
        """Mean work to select the k largest of n values; the arguments broadcast with the engine's numbers."""
        if self.algorithm == "quick-select" and self.score_deviation is not None:
            return expected_on_softmax(n, k, self.parallelism, self.pass_cycles, self.score_deviation, self.value_bits)
        return ALGORITHMS[self.algorithm](n, k, self.parallelism, self.pass_cycles)


class Device(Protocol):
    """A part with a cost model of its own, such as a flash drive or a link."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def copies(self) -> Number:
        """How many there are."""

    @property
    def bandwidth_bytes_per_s(self) -> Number:
        """Bytes per second of one copy at most."""

    def numbers(self) -> Iterator[tuple[str, Number]]:
        """Numbers that a mapping's expressions may use, by name."""

    def action_energies_j(self) -> Iterator[tuple[str, Number]]:
        """Energy of each of its actions."""


@dataclass(frozen=True)
class EvaluatedArchitecture:
    """An architecture whose expressions have values.

    variables  the description's variables
    memories   outermost first; the first is the backing store
    area_m2    None when the description does not give the area of every part
    devices    flash drives and links
    paths      path -> the links and memories that data pass, in order
    """

    name: str
    variables: Mapping[str, Value]
    clock_hz: Number
    word_bits: Number
    memories: Mapping[str, EvaluatedMemory]
    units: Mapping[str, EvaluatedUnit]
    area_m2: Number | None
    file: str | None = None
    selectors: Mapping[str, EvaluatedSelector] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    instructions: Mapping[str, EvaluatedInstruction] = field(default_factory=dict)

    @property
    def word_bytes(self) -> Number:
        """Bytes of one word."""
        return self.word_bits / 8

    @property
    def backing_store(self) -> EvaluatedMemory:
        """The outermost memory, which holds every tensor."""
        return next(iter(self.memories.values()))

    def memory(self, name: str) -> EvaluatedMemory:
        """The memory of that name; SpecError with the nearest name when there is none."""
        if name not in self.memories:
            raise SpecError(f"the architecture '{self.name}' has no memory '{name}'{nearest(name, self.memories)}")
        return self.memories[name]

    def unit(self, name: str) -> EvaluatedUnit:
        """The unit of that name; SpecError with the nearest name when there is none."""
        if name not in self.units:
            raise SpecError(f"the architecture '{self.name}' has no unit '{name}'{nearest(name, self.units)}")
        return self.units[name]

    def names(self) -> dict[str, Number]:
        """Dotted names that expressions of a mapping may use, such as `L3.capacity_bytes` and `array_2d.rows`."""
        return dict(self._names())

    def _names(self) -> Iterator[tuple[str, Number]]:
        yield "architecture.clock_hz", self.clock_hz
        yield "architecture.word_bits", self.word_bits
        yield "architecture.word_bytes", self.word_bytes
        for memory in self.memories.values():
            for number in ("capacity_bytes", "bandwidth_bytes_per_s", "read_bandwidth_bytes_per_s",
                          "write_bandwidth_bytes_per_s", "access_bits", "latency_s", "channels", "transaction_bytes",
                          "copies"):  # fmt: skip
                yield f"{memory.name}.{number}", getattr(memory, number)
        for unit in self.units.values():
            for dim, elements in unit.dims.items():
                yield f"{unit.name}.{dim}", elements
            yield f"{unit.name}.elements", unit.elements
            yield f"{unit.name}.clock_hz", unit.clock_hz
            yield f"{unit.name}.copies", unit.copies
            for kind, op in unit.ops.items():
                yield f"{unit.name}.ops.{kind}.cycles", op.cycles
            if unit.registers:
                yield f"{unit.name}.registers.words", unit.registers.words
        for selector in self.selectors.values():
            for number in ("parallelism", "pass_cycles", "capacity", "clock_hz"):
                yield f"{selector.name}.{number}", getattr(selector, number)
        for device in self.devices.values():
            for number, value in device.numbers():
                yield f"{device.name}.{number}", value

    def action_energies_j(self) -> dict[tuple[str, str], Number]:
        """Energy of one action of each component.

        They are (memory, read or write), (unit, op), (unit.registers, read or write), (top-k engine, compare).

        A memory's action is one access of `access_bits`; so is a register file's.
        """
        energies: dict[tuple[str, str], Number] = {}
        for memory in self.memories.values():
            energies[memory.name, "read"] = memory.read_energy_j
            energies[memory.name, "write"] = memory.write_energy_j
        for unit in self.units.values():
            energies.update({(unit.name, kind): op.energy_j for kind, op in unit.ops.items()})
            if unit.registers:
                energies[f"{unit.name}.registers", "read"] = unit.registers.read_energy_j
                energies[f"{unit.name}.registers", "write"] = unit.registers.write_energy_j
        for selector in self.selectors.values():
            energies[selector.name, "compare"] = selector.compare_energy_j
        for device in self.devices.values():
            energies.update({(device.name, action): energy for action, energy in device.action_energies_j()})
        return energies


UNIT_NAMES = frozenset({"elements", "clock_hz", "copies", "ops", "registers"})
"""Names behind a unit's dot that no spatial dimension may take."""
