"""The parts of an architecture as YAML describes them: memories, units and their operations, top-k engines.

Each part turns its expressions into numbers with `evaluate(env)`; an error there carries the key below the part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from architectures.evaluated import (
    EvaluatedInstruction,
    EvaluatedMemory,
    EvaluatedOp,
    EvaluatedRegisters,
    EvaluatedSelector,
    EvaluatedUnit,
)
from architectures.quantity import (
    AREA,
    BANDWIDTH,
    COUNT,
    CYCLES,
    DURATION,
    ENERGY,
    FREQUENCY,
    POSITIVE,
    SIZE,
    Area,
    Bandwidth,
    Count,
    Cycles,
    Duration,
    Energy,
    Frequency,
    Number,
    Positive,
    Quantity,
    Size,
)
from architectures.topk import Algorithm
from einsum.errors import EinsightError, join_key
from einsum.expressions import Expression

Env: TypeAlias = Mapping[str, Any]
"""Names with their values, numbers or arrays."""


@contextmanager
def located(*key: str) -> Iterator[None]:
    """Put key parts before the key path of an error that passes through."""
    try:
        yield
    except EinsightError as error:
        raise error.located(key=join_key(*key)) from None


class Part(BaseModel):
    """What all parts of an architecture share: they never change, and know every field that they may have."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class OpCost(Part):
    """What one operation costs the processing element that runs it."""

    cycles: Cycles = Expression.parse(1)
    """Cycles during which the element is busy with it."""
    energy: Energy = Expression.parse(0)
    """Energy of one operation."""

    def evaluate(self, env: Env) -> EvaluatedOp:
        """The costs with the variables in `env`."""
        return EvaluatedOp(CYCLES.evaluate(self.cycles, env, "cycles"), ENERGY.evaluate(self.energy, env, "energy"))


class Instruction(Part):
    """What one operation takes of the threads of a GPU that runs it; a number counts instructions, or parts of one."""

    issue: Cycles = Expression.parse(1)
    """Instructions that a thread issues for it."""
    half: Cycles = Expression.parse(0)
    """Those among them that run at half the rate."""
    sfu: Cycles = Expression.parse(0)
    """Those among them that the special-function unit runs."""
    fp32: Cycles = Expression.parse(0)
    """Additions, multiplications and multiply-adds of 32 bits among them."""

    def evaluate(self, env: Env) -> EvaluatedInstruction:
        """The numbers with the variables in `env`."""
        names = ("issue", "half", "sfu", "fp32")
        return EvaluatedInstruction(*(CYCLES.evaluate(getattr(self, name), env, name) for name in names))


class Registers(Part):
    """The register file of each processing element of a unit."""

    words: Count
    """Words that it holds."""
    access_bits: Count | None = None
    """Bits that one access moves; one word when omitted."""
    read_energy: Energy = Expression.parse(0)
    """Energy of one read access."""
    write_energy: Energy = Expression.parse(0)
    """Energy of one write access."""

    def evaluate(self, env: Env, word_bits: Number) -> EvaluatedRegisters:
        """The register file with the variables in `env`."""
        return EvaluatedRegisters(
            words=COUNT.evaluate(self.words, env, "words"),
            access_bits=_given(COUNT, self.access_bits, env, "access_bits", word_bits),
            read_energy_j=ENERGY.evaluate(self.read_energy, env, "read_energy"),
            write_energy_j=ENERGY.evaluate(self.write_energy, env, "write_energy"),
        )


class Memory(Part):
    """A memory that holds tiles of tensors. Every number is that of one copy."""

    capacity: Size | None = None
    """What it holds; unbounded when omitted."""
    bandwidth: Bandwidth | None = None
    """Bytes per second that reads and writes share; never a limit when omitted."""
    read_bandwidth: Bandwidth | None = None
    """Bytes per second of reads alone; never a limit when omitted."""
    write_bandwidth: Bandwidth | None = None
    """Bytes per second of writes alone; never a limit when omitted."""
    access_bits: Count | None = None
    """Bits that one access moves, to which the energies refer; one word when omitted."""
    read_energy: Energy = Expression.parse(0)
    """Energy of one read access."""
    write_energy: Energy = Expression.parse(0)
    """Energy of one write access."""
    latency: Duration = Expression.parse(0)
    """Time from a request to its first data."""
    channels: Count = Expression.parse(1)
    """Independent channels that share the bandwidth; scattered pieces are spread over them in transactions."""
    transaction: Size | None = None
    """Bytes that a channel moves at least at a time; pieces of any size move as they are when omitted."""
    copies: Count = Expression.parse(1)
    """How many there are, each private to one copy of the units that it feeds."""
    area: Area | None = None
    """Silicon area; 0 for a part that is off the chip."""

    def evaluate(self, name: str, env: Env, word_bits: Number) -> EvaluatedMemory:
        """The memory with the variables in `env`."""
        unlimited = float("inf")
        return EvaluatedMemory(
            name=name,
            capacity_bytes=_given(SIZE, self.capacity, env, "capacity", unlimited),
            bandwidth_bytes_per_s=_given(BANDWIDTH, self.bandwidth, env, "bandwidth", unlimited),
            read_bandwidth_bytes_per_s=_given(BANDWIDTH, self.read_bandwidth, env, "read_bandwidth", unlimited),
            write_bandwidth_bytes_per_s=_given(BANDWIDTH, self.write_bandwidth, env, "write_bandwidth", unlimited),
            access_bits=_given(COUNT, self.access_bits, env, "access_bits", word_bits),
            read_energy_j=ENERGY.evaluate(self.read_energy, env, "read_energy"),
            write_energy_j=ENERGY.evaluate(self.write_energy, env, "write_energy"),
            latency_s=DURATION.evaluate(self.latency, env, "latency"),
            channels=COUNT.evaluate(self.channels, env, "channels"),
            transaction_bytes=_given(SIZE, self.transaction, env, "transaction", 0.0),
            copies=COUNT.evaluate(self.copies, env, "copies"),
            area_m2=optional(AREA, self.area, env, "area"),
        )


class Unit(Part):
    """An array of processing elements that each run one operation at a time. Every number is that of one copy."""

    dims: dict[str, Count] = {}
    """Processing elements along each named spatial dimension; a single element when omitted."""
    clock: Frequency | None = None
    """Its own clock; the architecture's when omitted."""
    ops: dict[str, OpCost] = Field(min_length=1)
    """The operations that it runs, by kind, with their costs; one that is missing cannot run on it."""
    registers: Registers | None = None
    """The register file of each processing element."""
    depth: Cycles = Expression.parse(0)
    """Stages of its pipeline: cycles from the last operand of a stream of operations to its result."""
    copies: Count = Expression.parse(1)
    """How many there are."""
    area: Area | None = None
    """Silicon area."""

    def evaluate(self, name: str, env: Env, clock_hz: Number, word_bits: Number) -> EvaluatedUnit:
        """The unit with the variables in `env`."""
        ops = {}
        for kind, op in self.ops.items():
            with located("ops", kind):
                ops[kind] = op.evaluate(env)
        with located("registers"):
            registers = self.registers.evaluate(env, word_bits) if self.registers else None
        return EvaluatedUnit(
            name=name,
            dims={dim: COUNT.evaluate(size, env, f"dims.{dim}") for dim, size in self.dims.items()},
            clock_hz=_given(FREQUENCY, self.clock, env, "clock", clock_hz),
            ops=ops,
            registers=registers,
            depth=CYCLES.evaluate(self.depth, env, "depth"),
            copies=COUNT.evaluate(self.copies, env, "copies"),
            area_m2=optional(AREA, self.area, env, "area"),
        )


class Selector(Part):
    """An engine that finds the k largest of n values; `architectures.topk` says how long its algorithm takes."""

    algorithm: Algorithm = "quick-select"
    """How it selects: quick-select, or batcher, a full sort in an odd-even merge network."""
    parallelism: Count
    """Values that it compares in a cycle (for a sorter: compare-exchange elements)."""
    pass_cycles: Cycles = Expression.parse(0)
    """Cycles of each pass besides those of its values: the pipeline of comparators and zero eliminators drains."""
    score_deviation: Positive | None = None
    """The values are probabilities: the softmax of normal scores with this standard deviation. All values differ when
    omitted."""
    value_bits: Count = Expression.parse(12)
    """Bits of such a probability; equal ones leave quick-select together."""
    fifo_rows: Count | None = None
    """Rows of so many values as it compares at once that its FIFOs hold; unbounded when omitted."""
    clock: Frequency | None = None
    """Its own clock; the architecture's when omitted."""
    compare_energy: Energy = Expression.parse(0)
    """Energy of taking one candidate through one pass: FIFO, comparators, zero eliminators."""
    area: Area | None = None
    """Silicon area."""

    def evaluate(self, name: str, env: Env, clock_hz: Number) -> EvaluatedSelector:
        """The engine with the variables in `env`."""
        return EvaluatedSelector(
            name=name,
            algorithm=self.algorithm,
            parallelism=COUNT.evaluate(self.parallelism, env, "parallelism"),
            pass_cycles=CYCLES.evaluate(self.pass_cycles, env, "pass_cycles"),
            score_deviation=optional(POSITIVE, self.score_deviation, env, "score_deviation"),
            value_bits=COUNT.evaluate(self.value_bits, env, "value_bits"),
            fifo_rows=_given(COUNT, self.fifo_rows, env, "fifo_rows", float("inf")),
            clock_hz=_given(FREQUENCY, self.clock, env, "clock", clock_hz),
            compare_energy_j=ENERGY.evaluate(self.compare_energy, env, "compare_energy"),
            area_m2=optional(AREA, self.area, env, "area"),
        )


def _given(quantity: Quantity, expression: Expression | None, env: Env, key: str, default: Number) -> Number:
    return default if expression is None else quantity.evaluate(expression, env, key)


def optional(quantity: Quantity, expression: Expression | None, env: Env, key: str) -> Number | None:
    """The value of a field that may be left out."""
    return None if expression is None else quantity.evaluate(expression, env, key)
