"""Calibration of what passes while nothing is computed: latencies of barriers, reductions, dependent products and
flags, blocks that follow one another on a multiprocessor; tiles of short rows; the clock under load."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from kernels.plan import TimingPlan
from kernels.timing import Stopwatch, Timing

Fact = dict[str, str | int | float | None]
SHORT = TimingPlan(target_ms=40, min_repetitions=10, max_repetitions=50)
BRIEF = TimingPlan(target_ms=10, min_repetitions=10, max_repetitions=20)
TURNS = 400
STEPS = 2000
PAUSES = (0, 128, 512, 1024, 2048, 4096, 16384, 65536)
RUN_MS, REST_S, RESTED_RUNS = 0.5, 0.03, 7
TILE_COLUMNS = (4096, 3000, 1000)
"""Columns of the matrices that are moved tile by tile; of the last two, rows begin anywhere."""
TILES = ((64, 32, 4), (64, 64, 4), (128, 64, 4), (128, 64, 8), (64, 128, 4), (128, 128, 8), (16, 512, 4), (1, 4096, 4))


def times(timing: Timing) -> Fact:
    """Quantiles and the GPU's state, as a fact gives them."""
    readings = timing.readings
    return {
        "ms": timing.ms, "ms_p10": timing.ms_p10, "ms_p90": timing.ms_p90, "repetitions": timing.repetitions,
        "sm_clock_mhz": readings.sm_clock_mhz, "power_w": readings.power_w,
    }  # fmt: skip


class Waits:
    """The measurements, section by section."""

    def __init__(self, stopwatch: Stopwatch, multiprocessors: int) -> None:
        import torch

        from kernels.algorithms import latencies

        self._torch = torch
        self._kernels = latencies
        self._stopwatch = stopwatch
        self._sms = multiprocessors
        self._sink = torch.zeros(64 * multiprocessors, dtype=torch.int32, device="cuda")

    def sections(self) -> Iterator[tuple[str, Callable[[], Iterator[Fact]]]]:
        """Names and measurements."""
        yield "turns", self.turns
        yield "barriers", self.barriers
        yield "reductions", self.reductions
        yield "chained_products", self.chained_products
        yield "flags", self.flags
        yield "few_warps", self.few_warps
        yield "tiles", self.tiles
        yield "cool_clocks", self.cool_clocks

    def _slope_ns(self, run: Callable[[int], Any], steps: int = STEPS) -> float:
        """Nanoseconds of a step: the difference of runs of many and of few, so that what is constant goes away."""
        few = self._stopwatch.time(lambda: run(steps), BRIEF, flush=False).ms
        many = self._stopwatch.time(lambda: run(5 * steps), BRIEF, flush=False).ms
        return (many - few) / (4 * steps) * 1e6

    def turns(self) -> Iterator[Fact]:
        """Waves of thread blocks that each run a chain of multiply-adds: time by waves, two blocks of 32 warps a
        multiprocessor. What a wave takes beyond the chain is the time from a block's end to the next one's work."""
        values = self._torch.zeros(1024, dtype=self._torch.float32, device="cuda")
        for rounds in (TURNS // 4, TURNS):
            for waves in (1, 2, 4, 16, 64):
                blocks = 2 * self._sms * waves

                def run(rounds: int = rounds, blocks: int = blocks) -> None:
                    self._kernels.turns(values, rounds, blocks=blocks, warps=32)

                timing = self._stopwatch.time(run, SHORT)
                yield {"steps": rounds * self._kernels.UNROLL, "waves": waves, "warps": 32, **times(timing)}

    def barriers(self) -> Iterator[Fact]:
        """Nanoseconds of a pair of barriers with a store between, by warps and thread blocks of a multiprocessor."""
        for warps in (4, 8, 16):
            for blocks in (1, self._sms, 2 * self._sms):

                def run(rounds: int, blocks: int = blocks, warps: int = warps) -> None:
                    self._kernels.barriers(self._sink, rounds, blocks=blocks, warps=warps)

                yield {"warps": warps, "blocks": blocks, "pair_ns": self._slope_ns(run)}

    def reductions(self) -> Iterator[Fact]:
        """Nanoseconds of a maximum over a vector and its use."""
        for block_n in (256, 1024, 4096):
            values = self._torch.rand(block_n, dtype=self._torch.float32, device="cuda")
            for warps in (1, 2, 4, 8):

                def run(rounds: int, values: Any = values, block_n: int = block_n, warps: int = warps) -> None:
                    self._kernels.reductions(values, rounds, block_n=block_n, warps=warps)

                yield {"block_n": block_n, "warps": warps, "reduction_ns": self._slope_ns(run)}

    def chained_products(self) -> Iterator[Fact]:
        """Nanoseconds of a product that needs the one before it, rounding and change of layout included."""
        from kernels.algorithms.attention import random_tensor

        for block_m, block_n, warps in (
            (16, 32, 4), (16, 64, 4), (16, 128, 4), (32, 32, 4), (32, 64, 4), (32, 128, 4), (64, 32, 4), (64, 64, 4),
            (64, 128, 4), (128, 32, 4), (128, 64, 4), (128, 64, 8), (128, 128, 8),
        ):  # fmt: skip
            x = random_tensor((block_m, block_n), "fp16", "cuda", 1)
            b = random_tensor((block_n, block_n), "fp16", "cuda", 2) / block_n

            def run(rounds: int, x: Any = x, b: Any = b, warps: int = warps) -> None:
                self._kernels.chained_products(x, b, rounds, warps=warps)

            yield {"block_m": block_m, "block_n": block_n, "warps": warps, "product_ns": self._slope_ns(run)}

    def flags(self) -> Iterator[Fact]:
        """Nanoseconds of reading a flag by an atomic with acquire semantics, and a barrier."""
        for warps in (4, 8):

            def run(rounds: int, warps: int = warps) -> None:
                self._kernels.flags(self._sink[:1], self._sink[64:65], rounds, warps=warps)

            yield {"warps": warps, "flag_ns": self._slope_ns(run)}

    def few_warps(self) -> Iterator[Fact]:
        """Arithmetic on registers by one to sixteen thread blocks of four warps on each multiprocessor."""
        from kernels.algorithms import microbenchmarks

        rounds = 2048
        runs = {name: getattr(microbenchmarks, name) for name in ("exponentials", "multiply_adds", "maxima")}
        for name, kernel in {**runs, "mixture": self._kernels.mixture}.items():
            for blocks in (1, 2, 3, 4, 8, 16):
                for per_thread in (4, 16):
                    block_n = 128 * per_thread
                    elements = block_n * blocks * self._sms
                    values = self._torch.rand(elements, dtype=self._torch.float32, device="cuda")

                    def run(kernel: Any = kernel, values: Any = values, block_n: int = block_n) -> None:
                        kernel(values, rounds // 16, block_n=block_n, warps=4)

                    timing = self._stopwatch.time(run, BRIEF)
                    done = elements * rounds
                    fact: Fact = {"kind": name, "blocks": blocks, "elements_of_thread": per_thread, **times(timing)}
                    yield {**fact, "operations_per_s": done / timing.ms * 1e3}

    def tiles(self) -> Iterator[Fact]:
        """Reading and writing a matrix of 256 MiB tile by tile, by columns of the matrix and shape of the tile."""
        torch = self._torch
        sink = torch.zeros(1, dtype=torch.float16, device="cuda")
        for columns in TILE_COLUMNS:
            matrix = torch.zeros((2**27 // columns, columns), dtype=torch.float16, device="cuda")
            moved = 2 * matrix.numel()
            for block_m, block_n, warps in TILES:
                tile = {"block_m": block_m, "block_n": block_n, "warps": warps}

                def store(matrix: Any = matrix, tile: dict[str, int] = tile) -> None:
                    self._kernels.store_tiles(matrix, **tile)

                def load(matrix: Any = matrix, tile: dict[str, int] = tile) -> None:
                    self._kernels.load_tiles(matrix, sink, **tile)

                for kind, run in (("store", store), ("load", load)):
                    timing = self._stopwatch.time(run, BRIEF)
                    fact: Fact = {"kind": kind, "columns": columns, **tile, "bytes": moved, **times(timing)}
                    yield {**fact, "bytes_per_s": moved / timing.ms * 1e3}

    def cool_clocks(self) -> Iterator[Fact]:
        """The multiprocessors' clock by their own counters, by the share of the time for which the tensor cores work:
        products of warp groups and of single warps with pauses between, each run behind a rest, so that no limit of
        power holds."""
        from kernels.algorithms.attention import random_tensor

        torch = self._torch
        k, unroll = 64, 8
        for (m, n, per), pauses in (((64, 256, 2), PAUSES), ((64, 256, 1), PAUSES[:5]), ((16, 128, 2), PAUSES[:5])):
            blocks = per * self._sms
            a, b = random_tensor((m, k), "fp16", "cuda", 1), random_tensor((n, k), "fp16", "cuda", 2)
            c = torch.empty((blocks, m, n), dtype=torch.float32, device="cuda")
            clock = torch.zeros((blocks, 2), dtype=torch.int64, device="cuda")
            for pause in pauses:
                rounds = max(1, round(RUN_MS * 1.8e6 / (unroll * per * m * n * k / 2048 + 4 * pause)))
                counted = []
                for _ in range(RESTED_RUNS):
                    time.sleep(REST_S)
                    self._kernels.clocked_products(
                        a, b, c, clock, rounds, pause=pause, block_m=m, block_n=n, block_k=k, warps=4, unroll=unroll
                    )
                    torch.cuda.synchronize()
                    cycles, nanoseconds = clock.double().median(dim=0).values.tolist()
                    counted.append((cycles / nanoseconds, cycles, nanoseconds))
                ghz, cycles, nanoseconds = sorted(counted)[RESTED_RUNS // 2]
                done = 2 * m * n * k * unroll * rounds * per
                yield {
                    "block_m": m, "block_n": n, "blocks": blocks, "pause_steps": pause, "ms": nanoseconds / 1e6,
                    "operations_per_cycle": done / cycles, "clock_ghz": ghz,
                }  # fmt: skip
