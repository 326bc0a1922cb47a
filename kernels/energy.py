"""Calibration of power: what the GPU draws when idle, and while one part of it is busy, by its energy counter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

Fact = dict[str, str | int | float | None]
WINDOW_S = 1.0
MIB = 2**20


class Energy:
    """Runs a kernel for about a second, back to back, and reads energy before and after."""

    def __init__(self, multiprocessors: int) -> None:
        import torch

        self._torch = torch
        self._sms = multiprocessors
        self._sink = torch.zeros(1, dtype=torch.int32, device="cuda")

    def power(self) -> Iterator[Fact]:
        """Average power, operations or bytes per second, and the clock while it lasted."""
        counter = _Counter()
        time.sleep(WINDOW_S)
        start = counter.joules()
        time.sleep(WINDOW_S)
        yield {"kind": "idle", "power_w": (counter.joules() - start) / WINDOW_S}
        for name, done, unit, run in self._loads():
            run()
            self._torch.cuda.synchronize()
            began = time.perf_counter()
            run()
            self._torch.cuda.synchronize()
            once = max(time.perf_counter() - began, 1e-5)
            self._repeat(run, once, 0.3)
            start, began = counter.joules(), time.perf_counter()
            runs, clock = self._repeat(run, once, WINDOW_S, counter)
            seconds = time.perf_counter() - began
            power = (counter.joules() - start) / seconds
            yield {"kind": name, unit: done * runs / seconds, "power_w": power, "sm_clock_mhz": clock}

    def _repeat(self, run: Callable[[], Any], once_s: float, seconds: float, counter: Any = None) -> tuple[int, float]:
        """Launch as often as fits, never far ahead of the GPU; the number of runs and the clock near the end."""
        runs, clock, batch = 0, 0.0, max(1, int(0.05 / once_s))
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            for _ in range(batch):
                run()
            runs += batch
            if counter is not None:
                clock = counter.clock_mhz()
            self._torch.cuda.synchronize()
        return runs, clock

    def _loads(self) -> Iterator[tuple[str, float, str, Callable[[], Any]]]:
        from kernels.algorithms import matmul, microbenchmarks
        from kernels.algorithms.attention import random_tensor
        from kernels.case import Case

        torch, kernels = self._torch, microbenchmarks
        for dtype, depth in (("fp16", 64), ("bf16", 64), ("fp8", 128)):
            for m, n, warps in ((64, 256, 4), (16, 128, 4)) if dtype == "fp16" else ((64, 256, 4),):
                a, b = random_tensor((m, depth), dtype, "cuda", 1), random_tensor((n, depth), dtype, "cuda", 2)
                for share in (0.25, 0.5, 1.0, 2.0):
                    blocks = int(share * self._sms)
                    c = torch.empty((blocks, m, n), dtype=torch.float32, device="cuda")
                    done = 2.0 * blocks * m * n * depth * 256 * 8

                    def products(a: Any = a, b: Any = b, c: Any = c, m: int = m, n: int = n, depth: int = depth,
                                 warps: int = warps) -> None:  # fmt: skip
                        kernels.products(a, b, c, 256, block_m=m, block_n=n, block_k=depth, warps=warps, unroll=8)

                    yield f"products {dtype} {m}x{n} on {share:g} blocks each", done, "operations_per_s", products
        elements = 1024 * 16 * self._sms
        values = torch.rand(elements, dtype=torch.float32, device="cuda")
        for name in ("exponentials", "multiply_adds", "maxima", "conversions"):

            def arithmetic(name: str = name) -> None:
                getattr(kernels, name)(values, 512, block_n=1024, warps=4)

            yield name, float(elements) * 512 * kernels.UNROLL, "operations_per_s", arithmetic
        big = torch.randint(0, 2**20, (256 * MIB,), dtype=torch.int32, device="cuda")
        small = torch.randint(0, 2**20, (4 * MIB,), dtype=torch.int32, device="cuda")

        def read() -> None:
            kernels.read(big, self._sink, block_n=8192, warps=8)

        def fill() -> None:
            kernels.fill(big, 1, block_n=4096, warps=4)

        def resident() -> None:
            kernels.read(small, self._sink, block_n=4096, warps=8, passes=64)

        yield "read DRAM", 4.0 * big.numel(), "bytes_per_s", read
        yield "read L2", 4.0 * small.numel() * 64, "bytes_per_s", resident
        yield "fill DRAM", 4.0 * big.numel(), "bytes_per_s", fill
        for m, n, warps in ((128, 256, 8), (128, 128, 8), (64, 64, 4)):
            case = Case("matmul", q_len=8192, kv_len=8192, head_dim=8192, block_m=m, block_n=n, block_k=64, warps=warps,
                        stages=3)  # fmt: skip
            tensors = matmul.make_inputs(case, "cuda", 1)

            def whole(case: Case = case, tensors: Any = tensors) -> None:
                matmul.run(case, tensors)

            yield f"matmul {m}x{n}", 2.0 * 8192**3, "operations_per_s", whole


class _Counter:
    """The driver's energy counter and clock."""

    def __init__(self) -> None:
        import pynvml
        import torch

        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
        self._nvml = pynvml
        self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid.removeprefix('GPU-')}")

    def joules(self) -> float:
        """Energy since the driver was loaded."""
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3

    def clock_mhz(self) -> float:
        """The multiprocessors' clock now."""
        return float(self._nvml.nvmlDeviceGetClockInfo(self._handle, self._nvml.NVML_CLOCK_SM))
