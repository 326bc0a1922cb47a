"""Calibration of what passes while nothing is computed: latencies of barriers, reductions, dependent products and
flags, blocks that follow one another on a multiprocessor; tiles of short rows; the clock under load."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kernels.plan import TimingPlan
from kernels.timing import Stopwatch, Timing

Fact = dict[str, str | int | float | None]
SHORT = TimingPlan(target_ms=40, min_repetitions=10, max_repetitions=50)
BRIEF = TimingPlan(target_ms=10, min_repetitions=10, max_repetitions=20)
TURNS = 400
STEPS = 2000
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
        yield "tiles", self.tiles
        yield "clocks", self.clocks

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

    def clocks(self) -> Iterator[Fact]:
        """The multiprocessors' clock by their own counters, by how much the tensor cores do and for how long."""
        from kernels.algorithms.attention import random_tensor

        torch = self._torch
        m, n, k, unroll = 64, 256, 64, 8
        a, b = random_tensor((m, k), "fp16", "cuda", 1), random_tensor((n, k), "fp16", "cuda", 2)
        c = torch.empty((2 * self._sms, m, n), dtype=torch.float32, device="cuda")
        clock = torch.zeros((2 * self._sms, 2), dtype=torch.int64, device="cuda")
        for pause in (0, 128, 512, 1024, 2048, 4096, 16384):
            for ms in (0.1, 1.0, 5.0):
                round_ms = (unroll * 2 * 512 + 4 * pause) / 1.8e6
                rounds = max(1, round(ms / round_ms))

                def run(rounds: int = rounds, pause: int = pause) -> None:
                    self._kernels.clocked_products(
                        a, b, c, clock, rounds, pause=pause, block_m=m, block_n=n, block_k=k, warps=4, unroll=unroll
                    )

                torch.cuda.synchronize()
                alone = self._stopwatch.time(run, TimingPlan(target_ms=3 * ms, min_repetitions=3, max_repetitions=50))
                counted = clock.double()
                first = float((counted[:, 0] / counted[:, 1]).median())
                for _ in range(int(400 / ms)):
                    run()
                torch.cuda.synchronize()
                counted = clock.double()
                done = 2 * c.shape[0] * m * n * k * unroll * rounds
                yield {
                    "pause_steps": pause, "ms": alone.ms, "operations_per_s": done / alone.ms * 1e3,
                    "clock_ghz": first, "sustained_clock_ghz": float((counted[:, 0] / counted[:, 1]).median()),
                    "sustained_ms": float(counted[:, 1].median()) / 1e6,
                    "power_w": self._stopwatch.read_state().power_w,
                }  # fmt: skip
