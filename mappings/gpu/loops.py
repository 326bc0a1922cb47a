"""What the steps of a thread block's loop do to each other."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from architectures.gpu import Gpu
from mappings.gpu.blocks import Blocks
from mappings.gpu.kernel import GridLoop, GridStep
from mappings.program import Array


def meets(loop: GridLoop, prefetched: Callable[[GridStep], bool]) -> bool:
    """Whether a trip waits once for all of its loads: they run ahead, and its first product waits for them."""
    loads = [step for step in loop.steps if step.kind == "load"]
    products = sum(step.kind == "product" for step in loop.steps)
    return (products == 1 or loop.together) and bool(loads) and all(prefetched(load) for load in loads)


def behind_stores_s(stored: float, gpu: Gpu) -> float:
    """Seconds by which a trip's loads come later because they are asked for behind the bytes that it stores: those
    pass first, and what many multiprocessors write delays what they read."""
    passing = stored / gpu.shared_bytes_per_cycle / gpu.clock_hz + stored / gpu.port_bandwidth
    return passing + gpu.write_wait * min(1.0, stored / gpu.write_wait_bytes)


def crowding(loop: GridLoop, blocks: Blocks, warps: int, gpu: Gpu) -> float:
    """The part of what a copy engine writes that finds the shared memory taken by the loop's products."""
    free_s = written = 0.0
    word = blocks.env["word_bytes"]
    for step in loop.steps:
        if step.kind == "product":
            m, n, k = (blocks.mean(value) for value in (step.m, step.n, step.k))
            held = 0.0 if blocks.mean(step.held) else 1.0
            read = word * k * (held * m + n * max(1.0, m / 64))
            rate, _ = gpu.product_rate(m, warps, word)
            free_s += max(0.0, 2 * m * n * k / rate - read / gpu.shared_bytes_per_cycle / gpu.clock_hz)
            written += word * k * n
    needed_s = written / gpu.shared_bytes_per_cycle / gpu.clock_hz
    return max(0.0, 1 - free_s / needed_s) if needed_s else 1.0


def in_step(lost: Array, index: int, waves: float) -> float:
    """How far blocks are in step in loop `index`: the mean of exp(-x) over its trips in all waves, where x grows by
    `lost[i]` in loop i of each wave."""
    whole = float(lost.sum())
    first = float(np.exp(-lost[:index].sum())) * _mean_decay(float(lost[index]))
    return first * _mean_decay(waves * whole) / _mean_decay(whole)


def _mean_decay(end: float) -> float:
    """The mean of exp(-x) from 0 to `end`."""
    return float(-np.expm1(-end)) / end if end > 0 else 1.0
