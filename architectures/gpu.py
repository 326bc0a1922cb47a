"""A GPU's multiprocessors: how many thread blocks fit on one, and the rate that the tensor cores reach.

`Gpu.of(machine)` reads the variables by which an architecture describes a GPU; the library's `h100-sxm` says what each
is. The limits of residency are those of NVIDIA's occupancy calculator.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import log2
from typing import Any

import numpy as np

from architectures.evaluated import EvaluatedArchitecture
from einsum.errors import SpecError

MOST_SPILLED = 2
"""Registers that a thread may need, over those that there are. Compilers spill some without much harm (measured up to
1.7); a thread that lacks more than half of them waits for its own memory, which no step stands for."""


@dataclass(frozen=True)
class Gpu:
    """The numbers of a GPU; rates are those of the whole chip where the name says per second, else of a cycle."""

    multiprocessors: int
    clock_hz: float
    tensor_clock_hz: float
    clock_droop: float
    registers_per_multiprocessor: float
    register_unit: float
    max_registers: float
    warps_per_multiprocessor: float
    blocks_per_multiprocessor: float
    shared_memory: float
    shared_per_block: float
    shared_reserved: float
    issue_lanes: float
    instruction_pace: float
    half_lanes: float
    fp32_lanes: float
    sfu_lanes: float
    shared_bytes_per_cycle: float
    copy_queue: float
    group_mma: float
    tensor_flops_per_cycle: float
    tensor_fp8_ratio: float
    tensor_tf32_ratio: float
    group_efficiency: float
    sync_efficiency: float
    group_wait_cycles: float
    group_vector_share: float
    group_sfu_share: float
    sync_vector_share: float
    sync_sfu_share: float
    sync_step_cycles: float
    shared_latency_cycles: float
    dram_read_bandwidth: float
    dram_write_bandwidth: float
    dram_copy_bandwidth: float
    dram_latency: float
    dram_latency_bytes: float
    dram_first_latency: float
    write_wait: float
    write_wait_bytes: float
    dram_ramp: float
    dram_line_share: float
    dram_half_line_share: float
    dram_sharpness: float
    dram_even_share: float
    lost_stages: float
    l2_capacity: float
    l2_ways: float
    l2_parts: float
    l2_kept_whole: float
    l2_kept_none: float
    l2_dirty_share: float
    l2_mixed_share: float
    l2_bandwidth: float
    l2_write_bandwidth: float
    l2_add_bandwidth: float
    l2_latency: float
    request_groups: float
    joint_requests: float
    joint_later: float
    joint_trips: float
    l2_sharpness: float
    port_bandwidth: float
    port_add_bandwidth: float
    launch_latency: float
    launch_next: float
    block_launch: float
    block_latency: float
    power_limit_w: float
    idle_power_w: float
    energy_exponent: float
    group_flop_energy: float
    sync_flop_energy: float
    lane_energy: float
    sfu_energy: float
    l2_byte_energy: float
    dram_byte_energy: float

    @classmethod
    def of(cls, machine: EvaluatedArchitecture) -> Gpu:
        """The GPU that an architecture describes; SpecError names the variable that it lacks."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            if field.name not in machine.variables:
                raise SpecError(
                    f"'{machine.name}' does not describe a GPU: it has no variable '{field.name}'",
                    file=machine.file,
                    key="variables",
                )
            values[field.name] = float(machine.variables[field.name])
        values["multiprocessors"] = int(values["multiprocessors"])
        return cls(**values)

    def occupancy(self, warps: int, registers: float, shared_bytes: float) -> int:
        """Thread blocks of so many warps, registers of a thread and bytes of shared memory that one multiprocessor
        holds; SpecError when not even one fits."""
        if shared_bytes > self.shared_per_block:
            raise SpecError(
                f"a thread block needs {shared_bytes:,.0f} bytes of shared memory, "
                f"the multiprocessor has {self.shared_per_block:,.0f}"
            )
        if registers > MOST_SPILLED * self.max_registers:
            raise SpecError(
                f"a thread would need {registers:,.0f} registers and has {self.max_registers:,.0f}; "
                "what spilling so many costs is not modelled"
            )
        rounded = -(-min(registers, self.max_registers) * 32 // self.register_unit) * self.register_unit
        # Each of the four schedulers has a quarter of the registers for its own warps.
        held = 4 * (self.registers_per_multiprocessor // 4 // rounded)
        fits = min(
            held // warps,
            self.shared_memory // max(shared_bytes + self.shared_reserved, 1),
            self.warps_per_multiprocessor // warps,
            self.blocks_per_multiprocessor,
        )
        if fits < 1:
            raise SpecError(f"a thread block of {warps} warps with {registers:,.0f} registers a thread does not fit")
        return int(fits)

    def turnaround(self, read_bytes: float, written_bytes: float) -> float:
        """The part of the DRAM's bandwidths that a mix of reads and writes reaches; a copy's is measured.

        Time lost in turning the bus round is taken as proportional to the product of the two parts.
        """
        total = read_bytes + written_bytes
        if total <= 0:
            return 1.0
        part = written_bytes / total
        apart = part / self.dram_write_bandwidth + (1 - part) / self.dram_read_bandwidth
        copying = 0.5 / self.dram_write_bandwidth + 0.5 / self.dram_read_bandwidth
        lost = max(1 / self.dram_copy_bandwidth - copying, 0.0) * 4 * part * (1 - part)
        return apart / (apart + lost)

    def lane_cycles(self, issue: float, half: float, sfu: float, fp32: float) -> float:
        """Cycles that a multiprocessor takes for lane operations: of all kinds, and of those with lanes of their own,
        which work side by side."""
        return max(issue / self.issue_lanes, half / self.half_lanes, sfu / self.sfu_lanes, fp32 / self.fp32_lanes)

    def l2_rate(self, kind: str, adds: bool) -> float:
        """Bytes a second that the L2 takes or gives: a load's, a store's, or one's that adds."""
        if kind == "load":
            return self.l2_bandwidth
        return self.l2_add_bandwidth if adds else self.l2_write_bandwidth

    def piece_share(self, piece_bytes: float) -> float:
        """The part of the DRAM's bandwidth that reads reach of which so many bytes lie together; 0 stands for many.

        Between the measured sizes by the logarithm; below half a line every halving is a request as large as before.
        """
        if not piece_bytes:
            return 1.0
        halvings = log2(256 / piece_bytes)
        shares = (1.0, self.dram_line_share, self.dram_half_line_share)
        return float(np.interp(halvings, (0, 1, 2), shares)) / 2 ** max(0.0, halvings - 2)

    def format_ratio(self, word_bytes: float) -> float:
        """Rate of products of words of so many bytes over that of 16-bit ones; 4 bytes are multiplied as TF32."""
        return {1: self.tensor_fp8_ratio, 4: self.tensor_tf32_ratio}.get(int(word_bytes), 1.0)

    def product_rate(self, rows: float, warps: int, word_bytes: float) -> tuple[float, bool]:
        """Operations per second of one multiprocessor's tensor cores, and whether warp groups issue the product.

        A warp group takes 64 rows; smaller products go through instructions of single warps. SpecError where the GPU
        has no products of such words.
        """
        ratio = self.format_ratio(word_bytes)
        if not ratio:
            raise SpecError(f"the GPU has no products of numbers of {word_bytes:g} byte")
        peak = self.tensor_flops_per_cycle * ratio * self.clock_hz
        wide = bool(self.group_mma) and rows >= 64 and warps >= 4
        return peak * (self.group_efficiency if wide else self.sync_efficiency), wide
