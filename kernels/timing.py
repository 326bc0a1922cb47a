"""Timing GPU work: CUDA events around one run at a time, each from a cold L2 cache.

Between repetitions a kernel reads a buffer of several times the L2's size: that evicts the inputs and writes dirty
lines back, and leaves only clean lines, so the timed run pays for no write-back but its own. Reading takes longer than
launching a kernel does, so the GPU always has work queued and the events measure its time, not the host's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kernels.gpu import Monitor, Readings
from kernels.plan import TimingPlan

FLUSH_FACTOR = 8
WARMUP_MS = 25.0  # for the clocks to settle under the load
UNSTEADY = 1.25  # median over 10th percentile: more in 6 of 7,230 rows, which something disturbed (measurements/*.csv)
ATTEMPTS = 3


@dataclass(frozen=True)
class Timing:
    """Median, 10th and 90th percentile in milliseconds of `repetitions` runs, and the GPU's state meanwhile."""

    ms: float
    ms_p10: float
    ms_p90: float
    repetitions: int
    readings: Readings


class Stopwatch:
    """Times callables that launch GPU work on the current CUDA stream."""

    def __init__(self) -> None:
        import torch

        self._torch = torch
        self._monitor = Monitor()
        l2_bytes = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self._buffer = torch.zeros(FLUSH_FACTOR * l2_bytes // 4, dtype=torch.int32, device="cuda")
        self._sink = torch.zeros(1, dtype=torch.int32, device="cuda")

    def read_state(self) -> Readings:
        """Clocks, temperature and power now."""
        return self._monitor.read()

    def flush(self) -> None:
        """Replace what the L2 holds by clean lines of a buffer of its own."""
        from kernels.algorithms.microbenchmarks import read

        read(self._buffer, self._sink, block_n=8192, warps=8)

    def time(self, run: Callable[[], Any], plan: TimingPlan, flush: bool = True) -> Timing:
        """Warm up, then time `run` as often as `plan` says; `flush=False` leaves the cache as the last run did.

        Runs that something disturbed are done again, at most twice, and the steadiest are taken.
        """
        prepare = self.flush if flush else _nothing
        run()
        estimate = max(quantile(self._repeat(run, prepare, 3)[0], 0.5), 1e-3)
        for _ in range(int(min(WARMUP_MS / estimate, plan.max_repetitions))):
            run()
        repetitions = int(min(max(plan.target_ms / estimate, plan.min_repetitions), plan.max_repetitions))
        attempts = []
        for _ in range(ATTEMPTS):
            attempts.append(self._repeat(run, prepare, repetitions))
            if _spread(attempts[-1][0]) <= UNSTEADY:
                break
        times, readings = min(attempts, key=lambda attempt: _spread(attempt[0]))
        return Timing(quantile(times, 0.5), quantile(times, 0.1), quantile(times, 0.9), repetitions, readings)

    def _repeat(self, run: Callable[[], Any], prepare: Callable[[], None], count: int) -> tuple[list[float], Readings]:
        """Milliseconds of each of `count` runs, sorted; the GPU's state is read while the last ones still run."""
        cuda = self._torch.cuda
        starts = [cuda.Event(enable_timing=True) for _ in range(count)]
        ends = [cuda.Event(enable_timing=True) for _ in range(count)]
        self.flush()  # also gives the host a head start
        for start, end in zip(starts, ends, strict=True):
            prepare()
            start.record()
            run()
            end.record()
        readings = self._monitor.watch(ends[-1].query)
        return sorted(start.elapsed_time(end) for start, end in zip(starts, ends, strict=True)), readings


def _spread(times: list[float]) -> float:
    return quantile(times, 0.5) / max(quantile(times, 0.1), 1e-9)


def _nothing() -> None:
    """Leave the cache alone."""


def quantile(ordered: list[float], share: float) -> float:
    """The quantile of sorted values, by linear interpolation between the order statistics."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
