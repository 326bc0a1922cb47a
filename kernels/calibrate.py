"""Measuring the hardware itself: memory and caches by size, matrix products, exp2 and FMA rates, latencies, launches.

Each fact is a mapping with what was done and how long it took; what an architecture's description makes of them is
decided where it is written. No attention kernel takes part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from einsum.errors import EinsightError
from einsum.specfile import load_yaml
from kernels.case import Case
from kernels.energy import Energy
from kernels.gpu import device_facts, now, require_cuda, software_facts
from kernels.plan import TimingPlan
from kernels.timing import Stopwatch, Timing
from kernels.waits import SHORT, Waits, times

Fact = dict[str, str | int | float | None]

MIB = 2**20
COPY_BYTES = tuple(2**power for power in range(14, 33))
RESIDENT_BYTES = tuple(MIB * size for size in (1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48))
CHASE_BYTES = (16 * 2**10, 64 * 2**10, 128 * 2**10, *(MIB * size for size in (1, 4, 8, 16, 24, 32, 48, 128, 1024)))
LINE_BYTES = 128
STREAM_BYTES = 256 * MIB
ROWS_BYTES = 2048 * MIB
CHASE_STEPS = 2048
GRAPH_RUNS = 20
SUSTAINED = TimingPlan(target_ms=300, min_repetitions=20, max_repetitions=400)
MATMULS = tuple(
    Case("matmul", dtype, q_len=size, kv_len=size, head_dim=size, block_m=m, block_n=n, block_k=k, warps=w, stages=s)
    for dtype, tiles in (
        ("fp16", ((128, 256, 64, 8, 3), (128, 256, 64, 8, 4), (128, 128, 64, 4, 3), (128, 128, 64, 8, 3))),
        ("bf16", ((128, 256, 64, 8, 3),)),
        ("fp8", ((128, 256, 128, 8, 3), (128, 128, 128, 8, 3))),
    )
    for m, n, k, w, s in tiles
    for size in (2048, 4096, 8192)
)
PRODUCT_TILES = ((64, 64, 4), (64, 128, 4), (64, 256, 4), (128, 64, 4), (128, 64, 8), (128, 128, 4), (128, 128, 8),
                 (128, 256, 8), (16, 64, 4), (16, 128, 4), (32, 128, 4))  # fmt: skip


def calibrate(path: Path, progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Measure the current GPU and write the facts to `path` (YAML). EinsightError where there is no GPU.

    Sections that the file has are kept, and only the others measured; a file of another GPU is refused.
    """
    require_cuda()
    facts, sessions = _known_facts(path, device_facts())
    bench = _Calibration()
    added: list[str] = []
    for section, measure in bench.sections():
        if section in facts:
            continue
        if progress is not None:
            progress(section)
        facts[section] = [{name: _rounded(value) for name, value in fact.items()} for fact in measure()]
        added.append(section)
    if added:
        sessions.append({"time": now(), **software_facts(), "sections": added})
    document = {"gpu": device_facts(), "sessions": sessions, "facts": facts}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(yaml.safe_dump(document, sort_keys=False, width=160, default_flow_style=None))
    partial.replace(path)
    return document


def _known_facts(path: Path, device: Mapping[str, Any]) -> tuple[dict[str, list[Fact]], list[dict[str, Any]]]:
    """Sections and sessions of a file that an earlier run wrote; none where there is no file."""
    if not path.exists():
        return {}, []
    document = load_yaml(path)
    found = document.get("gpu", {}).get("device") if isinstance(document.get("gpu"), dict) else None
    if found != device["device"] or not isinstance(document.get("facts"), dict):
        raise EinsightError(f"{path} is a calibration of {found or 'no GPU'}, and this is {device['device']}")
    sessions = document.get("sessions")
    return dict(document["facts"]), list(sessions) if isinstance(sessions, list) else []


def _rounded(value: str | int | float | None) -> str | int | float | None:
    return float(f"{value:.6g}") if isinstance(value, float) else value


class _Calibration:
    """The measurements, section by section."""

    def __init__(self) -> None:
        import torch

        from kernels.algorithms import microbenchmarks

        self._torch = torch
        self._kernels = microbenchmarks
        self._stopwatch = Stopwatch()
        self._sms = torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
        self._sink = torch.zeros(1, dtype=torch.int32, device="cuda")

    def sections(self) -> Iterator[tuple[str, Callable[[], Iterator[Fact]]]]:
        """Names and measurements, the quiet ones first."""
        yield "launch", self.launches
        yield "latency", self.latencies
        yield "memory", self.memory
        yield "resident", self.resident
        yield "concurrency", self.concurrency
        yield "in_turn", self.in_turn
        yield "dram_pieces", self.dram_pieces
        yield "adds", self.adds
        yield "writes_beside", self.writes_beside
        yield "arithmetic", self.arithmetic
        yield "tensor_tiles", self.tensor_tiles
        yield "matmul", self.matmuls
        waits = Waits(self._stopwatch, self._sms)
        yield from waits.sections()
        yield "power", Energy(self._sms).power

    def launches(self) -> Iterator[Fact]:
        """An empty kernel alone, and back to back in a CUDA graph, by its number of thread blocks."""
        for blocks in (1, self._sms, 4 * self._sms, 32 * self._sms, 256 * self._sms):
            run = self._bound(self._kernels.nothing, self._sink, blocks=blocks, warps=4)
            alone = self._stopwatch.time(run, SHORT)
            yield {"blocks": blocks, "warps": 4, "back_to_back_ms": self._graph_ms(run), **times(alone)}

    def latencies(self) -> Iterator[Fact]:
        """Nanoseconds of one dependent load from a random ring of lines that fills so many bytes.

        Warm: the lines followed were followed before. Cold: the L2 was flushed, so each comes from DRAM.
        """
        torch = self._torch
        for size in CHASE_BYTES:
            lines = size // LINE_BYTES
            words = LINE_BYTES // 4
            order = torch.randperm(lines, device="cuda", dtype=torch.int32) * words
            ring = torch.zeros(lines * words, dtype=torch.int32, device="cuda")
            ring[order.long()] = order.roll(-1)
            few = self._bound(self._kernels.chase, ring, self._sink, CHASE_STEPS)
            many = self._bound(self._kernels.chase, ring, self._sink, 5 * CHASE_STEPS)
            warm = self._graph_ms(many, runs=3) - self._graph_ms(few, runs=3)
            fact: Fact = {"bytes": size, "warm_load_ns": warm / (4 * CHASE_STEPS) * 1e6, "clock_mhz": self._clock()}
            if lines >= 5 * CHASE_STEPS:  # every line is met once
                cold = self._stopwatch.time(many, SHORT).ms - self._stopwatch.time(few, SHORT).ms
                fact["cold_load_ns"] = cold / (4 * CHASE_STEPS) * 1e6
            yield fact

    def memory(self) -> Iterator[Fact]:
        """Copy, read and fill by size, each from a cold cache."""
        torch = self._torch
        from kernels.algorithms.copy import copy

        for size in COPY_BYTES:
            source = torch.zeros(size // 4, dtype=torch.int32, device="cuda")
            target = torch.empty_like(source)
            runs = {
                "copy": (2 * size, self._bound(copy, source, target, block_n=2048, warps=4)),
                "read": (size, self._bound(self._kernels.read, source, self._sink, block_n=8192, warps=8)),
                "fill": (size, self._bound(self._kernels.fill, target, 1, block_n=4096, warps=4)),
            }
            for name, (moved, run) in runs.items():
                timing = self._stopwatch.time(run, SHORT)
                yield {"kind": name, "bytes": moved, **times(timing), "bytes_per_s": moved / timing.ms * 1e3}

    def resident(self) -> Iterator[Fact]:
        """Copies and repeated reads of buffers that stay in the L2, back to back."""
        torch = self._torch
        from kernels.algorithms.copy import copy

        for size in RESIDENT_BYTES:
            source = torch.zeros(size // 4, dtype=torch.int32, device="cuda")
            target = torch.empty_like(source)
            copying = self._graph_ms(self._bound(copy, source, target, block_n=2048, warps=4))
            yield {"kind": "copy", "bytes": 2 * size, "ms": copying, "bytes_per_s": 2 * size / copying * 1e3}
            reading = self._bound(self._kernels.read, source, self._sink, block_n=4096, warps=8, passes=64)
            ms, moved = self._graph_ms(reading, runs=2), 64 * size
            yield {"kind": "read", "bytes": moved, "buffer_bytes": size, "ms": ms, "bytes_per_s": moved / ms * 1e3}

    def concurrency(self) -> Iterator[Fact]:
        """Reading DRAM with few thread blocks: what one SM can draw, and how many it takes to fill the bandwidth."""
        torch = self._torch
        source = torch.zeros(STREAM_BYTES // 4, dtype=torch.int32, device="cuda")
        for share in (1 / self._sms, 0.125, 0.25, 0.5, 1, 2, 4, 8):
            blocks = round(share * self._sms)
            run = self._bound(self._kernels.stream, source, self._sink, blocks=blocks, block_n=4096, warps=4)
            timing, moved = self._stopwatch.time(run, SHORT), run()
            rate = moved / timing.ms * 1e3
            yield {"blocks": blocks, "warps": 4, "bytes": moved, **times(timing), "bytes_per_s": rate}

    def in_turn(self) -> Iterator[Fact]:
        """Time of a turn in which thread blocks ask for a tile and wait for it, by the bytes under way: from the L2 (a
        buffer that was met before), then from the DRAM."""
        torch = self._torch
        for blocks in (1, self._sms, 2 * self._sms):
            for resident in (True, False):
                size = (MIB if blocks == 1 else 8 * MIB) if resident else 1024 * MIB
                source = torch.zeros(size // 4, dtype=torch.int32, device="cuda")
                for block_bytes in (512, 1024, 2048, 4096, 8192, 16384, 32768):
                    asked = blocks * block_bytes
                    turns = max(4096, 8 * size // asked) if resident else min(4096, size // asked)
                    warps = max(1, block_bytes // 1024)  # eight loads of a thread, which are asked for together
                    shape = {"blocks": blocks, "block_n": block_bytes // 4, "warps": warps}
                    few, many = (
                        self._stopwatch.time(
                            self._bound(self._kernels.take_turns, source, self._sink, turns=count, **shape), SHORT
                        )
                        for count in (turns // 4, turns)
                    )
                    turn_ms = (many.ms - few.ms) / (turns - turns // 4)
                    fact: Fact = {"resident": int(resident), "blocks": blocks, "block_bytes": block_bytes}
                    fact |= {"warps": warps, **times(many), "turn_ns": turn_ms * 1e6}
                    yield {**fact, "bytes_per_s": asked / turn_ms * 1e3}

    def dram_pieces(self) -> Iterator[Fact]:
        """Reading rows by thread blocks that walk along them: how much of the bandwidth pieces of a size reach."""
        torch = self._torch
        for row_bytes in (4096, 8192, 16384, 32768):
            source = torch.zeros((ROWS_BYTES // row_bytes, row_bytes // 2), dtype=torch.float16, device="cuda")
            sums = torch.empty(source.shape[0], dtype=torch.float32, device="cuda")
            for tile_bytes in (8192, 16384, 32768):
                for piece_bytes in (64, 128, 256, 512, 1024, 2048):
                    tile = {"rows": tile_bytes // piece_bytes, "piece": piece_bytes // 2}
                    runs = {n: self._bound(self._kernels.read_rows, source, sums, **tile, warps=n) for n in (4, 8)}
                    timings = {warps: self._stopwatch.time(run, SHORT) for warps, run in runs.items()}
                    warps, timing = min(timings.items(), key=lambda item: item[1].ms)
                    fact: Fact = {"row_bytes": row_bytes, "tile_bytes": tile_bytes, "piece_bytes": piece_bytes}
                    yield {**fact, "warps": warps, **times(timing), "bytes_per_s": ROWS_BYTES / timing.ms * 1e3}

    def adds(self) -> Iterator[Fact]:
        """Adding fp32 numbers to memory: to buffers that stay in the L2, then to one that does not; by a thread one or
        four numbers at a time, and by blocks that add to lines of their own or, some at a time, to the same."""
        torch = self._torch
        sms = self._sms
        for size, cases in (
            (MIB, ((1, 1), (sms // 8, 1), (sms // 2, 1))),
            (16 * MIB, ((sms, 1), (4 * sms, 1), (8 * sms, 1), (4 * sms, 4), (4 * sms, 12), (4 * sms, 33))),
            (1024 * MIB, ((4 * sms, 1), (4 * sms, 12))),
        ):
            target = torch.zeros(size // 4, dtype=torch.float32, device="cuda")
            for blocks, sharing in cases:
                for width in (1, 4):
                    block_n = 256 * width
                    asked = blocks * block_n * 4
                    turns = size * sharing // asked if size > 64 * MIB else 8 * MIB // (4 * block_n)
                    shape = {"blocks": blocks, "sharing": sharing, "block_n": block_n, "warps": 8}
                    timing = self._stopwatch.time(self._bound(self._kernels.add, target, turns=turns, **shape), SHORT)
                    fact: Fact = {"buffer_bytes": size, **shape, "bytes": asked * turns, **times(timing)}
                    yield {**fact, "bytes_per_s": asked * turns / timing.ms * 1e3}

    def writes_beside(self) -> Iterator[Fact]:
        """Time of a round of products on chip whose last one is dropped, added to memory or stored, 32 KiB of each
        block: how much of what writing takes others' products hide."""
        from kernels.algorithms.attention import random_tensor

        torch = self._torch
        side, depth, rows, rounds = 128, 64, 64, 400
        a, b = random_tensor((side, depth), "fp16", "cuda", 1), random_tensor((depth, side), "fp16", "cuda", 2)
        for blocks in (1, self._sms // 4, self._sms):
            target = torch.zeros(8 * blocks * rows * side, dtype=torch.float32, device="cuda")
            sums = torch.empty(blocks * side * side, dtype=torch.float32, device="cuda")
            for products in (1, 4, 16):
                for mode, name in enumerate(("dropped", "added", "stored")):
                    shape = {"blocks": blocks, "rows": rows, "products": products, "warps": 8}
                    few, many = (
                        self._stopwatch.time(
                            self._bound(self._kernels.write_beside, a, b, target, sums, count, mode=mode, **shape),
                            SHORT,
                        )
                        for count in (rounds // 4, rounds)
                    )
                    fact: Fact = {"kind": name, "side": side, "depth": depth, **shape, **times(many)}
                    yield {**fact, "round_ns": (many.ms - few.ms) / (rounds - rounds // 4) * 1e6}

    def arithmetic(self) -> Iterator[Fact]:
        """exp2, FP32 multiply-add and maximum, fp16 conversion: on registers, with every SM full of warps."""
        torch = self._torch
        elements = 1024 * 16 * self._sms
        rounds = 512
        for name in ("exponentials", "multiply_adds", "maxima", "conversions"):
            values = torch.rand(elements, dtype=torch.float32, device="cuda")
            run = self._bound(getattr(self._kernels, name), values, rounds, block_n=1024, warps=4)
            timing = self._stopwatch.time(run, SUSTAINED)
            done = elements * rounds * self._kernels.UNROLL
            yield {"kind": name, "operations": done, **times(timing), "operations_per_s": done / timing.ms * 1e3}

    def tensor_tiles(self) -> Iterator[Fact]:
        """Products of tiles that stay on chip, by tile: what the matrix instructions reach without memory."""
        from kernels.algorithms.attention import random_tensor

        torch = self._torch
        for dtype, depth in (("fp16", 64), ("fp8", 128)):
            for block_m, block_n, warps in PRODUCT_TILES:
                if dtype == "fp8" and block_m < 64:
                    continue
                for blocks in (self._sms, 2 * self._sms):
                    a = random_tensor((block_m, depth), dtype, "cuda", 1)
                    b = random_tensor((block_n, depth), dtype, "cuda", 2)
                    c = torch.empty((blocks, block_m, block_n), dtype=torch.float32, device="cuda")
                    tile = {"block_m": block_m, "block_n": block_n, "block_k": depth, "warps": warps}
                    run = self._bound(self._kernels.products, a, b, c, 256, **tile, unroll=8)
                    timing = self._stopwatch.time(run, SHORT)
                    done = 2 * blocks * block_m * block_n * depth * 256 * 8
                    rate = done / timing.ms * 1e3
                    yield {"dtype": dtype, **tile, "blocks": blocks, **times(timing), "operations_per_s": rate}

    def matmuls(self) -> Iterator[Fact]:
        """Whole matrix products: this project's kernel by tile, and the vendor's library."""
        from kernels.algorithms import matmul
        from kernels.precompile import precompile

        precompile(MATMULS)
        for case in MATMULS:
            tensors = matmul.make_inputs(case, "cuda", 1)
            timing = self._stopwatch.time(self._bound(matmul.run, case, tensors), SUSTAINED)
            yield {"library": "triton", **_shape(case), **times(timing), "operations_per_s": _rate(case, timing)}
        for case in dict.fromkeys(_by_library(case) for case in MATMULS if case.dtype != "fp8"):
            tensors = matmul.make_inputs(case, "cuda", 1)
            timing = self._stopwatch.time(self._bound(matmul.run, case, tensors), SUSTAINED)
            yield {"library": "torch", **_shape(case), **times(timing), "operations_per_s": _rate(case, timing)}

    def _graph_ms(self, run: Callable[[], Any], runs: int = GRAPH_RUNS) -> float:
        """Milliseconds of one of `runs` runs back to back in a CUDA graph, the caches left as they are."""
        cuda = self._torch.cuda
        run()
        cuda.synchronize()
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            for _ in range(runs):
                run()
        return self._stopwatch.time(graph.replay, SHORT, flush=False).ms / runs

    def _clock(self) -> float | None:
        """The SMs' clock just after what ran last."""
        return self._stopwatch.read_state().sm_clock_mhz

    @staticmethod
    def _bound(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[[], Any]:
        return lambda: function(*args, **options)


def _shape(case: Case) -> Fact:
    names = {"dtype": "dtype", "m": "q_len", "n": "kv_len", "k": "head_dim", "block_m": "block_m", "block_n": "block_n",
             "block_k": "block_k", "warps": "warps", "stages": "stages"}  # fmt: skip
    fields = case.fields()
    return {name: fields[field] for name, field in names.items()}


def _by_library(case: Case) -> Case:
    from kernels.algorithms.matmul import LIBRARY

    return replace(case, block_m=0, block_n=0, block_k=0, warps=0, stages=0, variant=LIBRARY)


def _rate(case: Case, timing: Timing) -> float:
    return 2 * case.q_len * case.kv_len * case.head_dim / timing.ms * 1e3
