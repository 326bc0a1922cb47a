"""What the actions of a GPU draw, and what it may draw on average."""

from __future__ import annotations

import numpy as np

from architectures.gpu import Gpu
from mappings.program import Array, PowerLimit

FLUSHED = 8
"""What a measurement reads between two runs to clear the L2, in multiples of it."""


def energies(gpu: Gpu, word_bytes: float) -> dict[tuple[str, str], Array]:
    """Joules of each action; a product of other words draws the power of one of 16-bit words, at its own rate."""
    share = 1 / (gpu.format_ratio(word_bytes) or 1.0)
    joules = {
        ("tensor", "flop"): gpu.group_flop_energy * share, ("tensor", "warp flop"): gpu.sync_flop_energy * share,
        ("vector", "lane"): gpu.lane_energy, ("sfu", "operation"): gpu.sfu_energy, ("L2", "byte"): gpu.l2_byte_energy,
        ("DRAM", "byte"): gpu.dram_byte_energy,
    }  # fmt: skip
    return {action: np.full((1, 1), value) for action, value in joules.items()}


def power_limit(gpu: Gpu) -> PowerLimit | None:
    """The limit for a kernel that runs again and again, with a read of `FLUSHED` times the L2 in between.

    The limit holds for that read too: a faster memory does not take from the kernel what the read would draw beyond it.
    """
    if gpu.power_limit_w <= 0:
        return None
    rate = gpu.dram_read_bandwidth
    reading_w = min(gpu.idle_power_w + rate * (gpu.l2_byte_energy + gpu.dram_byte_energy), gpu.power_limit_w)
    pause_s = FLUSHED * gpu.l2_capacity / rate
    return PowerLimit(gpu.power_limit_w, gpu.idle_power_w, gpu.energy_exponent, pause_s, reading_w)
