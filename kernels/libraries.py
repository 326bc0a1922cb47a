"""Timing kernels that nobody here wrote: torch's own, cuBLAS, cuDNN, FlashAttention-2, CUTLASS and FlexAttention.

`python -m kernels.libraries OUT.csv` times them at shapes that no plan has and appends a row for each, with the columns
that `einsight compare` reads and one more that names the library. A file that exists is continued.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kernels.case import Case
from kernels.gpu import device_facts, now, require_cuda, software_facts
from kernels.plan import TimingPlan

TIMING = TimingPlan(target_ms=60, min_repetitions=10, max_repetitions=60)
TEXT = ("kernel", "dtype", "batch", "heads", "kv_heads", "q_len", "kv_len", "head_dim", "causal", "window", "block_m",
        "block_n", "warps", "stages", "variant")  # fmt: skip
COLUMNS = ("library", *TEXT, "ms", "ms_p10", "ms_p90", "repetitions", "sm_clock_mhz", "temperature_c", "power_w",
           "status", "reason")  # fmt: skip
ATTENTION = (
    (4, 12, 12, 640, 64), (8, 12, 12, 384, 64), (2, 20, 20, 1280, 64), (2, 6, 6, 10240, 64), (3, 18, 18, 1920, 96),
    (1, 24, 24, 5120, 128), (1, 40, 8, 2560, 128), (1, 10, 10, 3333, 128), (1, 5, 5, 20480, 128), (2, 16, 2, 1537, 128),
    (6, 32, 8, 896, 128), (1, 8, 8, 6144, 256),
)  # fmt: skip
"""Batch, heads, K/V heads, length, head dimension."""
PRODUCTS = (
    (768, 768, 768), (1536, 6144, 1536), (3072, 3072, 3072), (5120, 5120, 5120), (10240, 10240, 1280),
    (128, 11008, 4096), (256, 8192, 8192), (2560, 13824, 5120), (32, 4096, 11008), (6000, 6000, 6000),
    (7000, 3000, 2000), (1280, 1280, 20480),
)  # fmt: skip
ROWS = ((4096, 4096), (16384, 1000), (8192, 2048), (2048, 32768), (50000, 512), (1000, 50257), (100000, 128))
DECODES = ((1, 32, 32, 12000), (4, 40, 40, 5000), (16, 12, 12, 3000), (2, 64, 8, 20000), (32, 16, 16, 1000))
BACKWARD = ((6, 20, 640, 64), (2, 20, 2560, 64), (6, 12, 640, 128), (2, 12, 2560, 128), (1, 10, 6144, 128))
UNFUSED = ((2, 20, 1280, 64), (1, 24, 2560, 128), (3, 18, 640, 64), (1, 10, 3333, 128), (8, 12, 384, 64))
FLEX = ((4, 12, 2560, 64, False), (2, 16, 1280, 128, False), (2, 16, 1280, 128, True), (1, 24, 5120, 128, True))
FLEX_TILES = ((128, 64, 4, 3), (128, 64, 8, 3), (128, 128, 8, 2), (64, 64, 4, 3), (128, 32, 4, 3), (64, 128, 4, 2),
              (64, 32, 4, 4))  # fmt: skip


@dataclass(frozen=True)
class LibraryRun:
    """A library's kernel at a case: `prepare` makes the inputs and gives what to time."""

    library: str
    case: Case
    prepare: Callable[[], Callable[[], Any]]


def runs() -> Iterator[LibraryRun]:
    """All, the quick ones first."""
    yield from _plain()
    yield from _products()
    yield from _attention()
    yield from _backward()
    yield from _flex()


def _random(*shape: int, dtype: str = "fp16") -> Any:
    from kernels.algorithms.attention import random_tensor

    return random_tensor(shape, dtype, "cuda", 1)


def _plain() -> Iterator[LibraryRun]:
    import torch

    for rows, columns in ROWS:
        for dtype in ("fp16", "fp32"):
            case = Case("softmax", dtype, q_len=rows, kv_len=columns)

            def softmax(rows: int = rows, columns: int = columns, dtype: str = dtype) -> Callable[[], Any]:
                x = _random(rows, columns, dtype=dtype)
                return lambda: torch.softmax(x, -1)

            yield LibraryRun("torch softmax", case, softmax)
    for mebi in (1, 5, 20, 48, 200, 1000):
        elements = mebi * 2**20 // 2

        def clone(elements: int = elements) -> Callable[[], Any]:
            x = _random(elements)
            y = torch.empty_like(x)
            return lambda: y.copy_(x)

        yield LibraryRun("torch copy", Case("copy", q_len=elements // 512, head_dim=512), clone)


def _products() -> Iterator[LibraryRun]:
    import torch

    for m, n, k in PRODUCTS:
        for dtype in ("fp16", "bf16"):
            case = Case("matmul", dtype, q_len=m, kv_len=n, head_dim=k, variant="warp-specialized")

            def product(m: int = m, n: int = n, k: int = k, dtype: str = dtype) -> Callable[[], Any]:
                a, b = _random(m, k, dtype=dtype), _random(n, k, dtype=dtype)
                return lambda: torch.matmul(a, b.T)

            yield LibraryRun("cuBLAS", case, product)
        if n % 16 == 0 and k % 16 == 0:

            def scaled(m: int = m, n: int = n, k: int = k) -> Callable[[], Any]:
                a, b = _random(m, k, dtype="fp8"), _random(n, k, dtype="fp8")
                one = torch.ones((), device="cuda")
                return lambda: torch._scaled_mm(a, b.T, one, one, out_dtype=torch.bfloat16)

            case = Case("matmul", "fp8", q_len=m, kv_len=n, head_dim=k, variant="warp-specialized")
            yield LibraryRun("cuBLASLt", case, scaled)
    for batch, m, n, k in ((48, 640, 640, 64), (20, 1280, 1280, 128), (64, 512, 128, 2048)):

        def batched(batch: int = batch, m: int = m, n: int = n, k: int = k) -> Callable[[], Any]:
            a, b = _random(batch, m, k), _random(batch, n, k)
            return lambda: torch.bmm(a, b.transpose(1, 2))

        case = Case("matmul", batch=batch, q_len=m, kv_len=n, head_dim=k, variant="warp-specialized")
        yield LibraryRun("cuBLAS", case, batched)
    for batch, heads, length, dim in UNFUSED:

        def unfused(batch: int = batch, heads: int = heads, length: int = length, dim: int = dim) -> Callable[[], Any]:
            q, k, v = (_random(batch * heads, length, dim) for _ in range(3))
            empty = torch.empty(batch * heads, length, length, dtype=q.dtype, device="cuda")

            def attend() -> Any:
                scores = torch.baddbmm(empty, q, k.transpose(1, 2), beta=0, alpha=dim**-0.5)
                return torch.bmm(torch.softmax(scores, -1), v)

            return attend

        case = Case("unfused", batch=batch, heads=heads, kv_heads=heads, q_len=length, kv_len=length, head_dim=dim)
        yield LibraryRun("torch bmm, softmax, bmm", case, unfused)


def _attention() -> Iterator[LibraryRun]:
    from torch.nn.attention import SDPBackend

    backends = (
        ("FlashAttention-2 (torch)", SDPBackend.FLASH_ATTENTION, "mma-sync"),
        ("CUTLASS (torch)", SDPBackend.EFFICIENT_ATTENTION, "mma-sync"),
        ("cuDNN (torch)", SDPBackend.CUDNN_ATTENTION, "warp-specialized"),
    )
    for name, backend, variant in backends:
        for batch, heads, kv_heads, length, dim in ATTENTION:
            if "CUTLASS" in name and heads != kv_heads:
                continue
            for causal in (False, True):
                case = Case("flash_attention", "fp16", batch, heads, kv_heads, length, length, dim, causal,
                            variant=variant)  # fmt: skip
                yield LibraryRun(name, case, _bound(backend, case))
    for batch, heads, kv_heads, length in DECODES:
        case = Case("flash_decode", "fp16", batch, heads, kv_heads, 1, length, 128)
        yield LibraryRun("FlashAttention-2 (torch)", case, _bound(backends[0][1], case))


def _bound(backend: Any, case: Case) -> Callable[[], Callable[[], Any]]:
    def prepare() -> Callable[[], Any]:
        from torch.nn.attention import sdpa_kernel
        from torch.nn.functional import scaled_dot_product_attention

        q = _random(case.batch, case.heads, case.q_len, case.head_dim)
        k, v = (_random(case.batch, case.kv_heads, case.kv_len, case.head_dim) for _ in range(2))
        shared = case.group > 1

        def attend() -> Any:
            with sdpa_kernel(backend):
                return scaled_dot_product_attention(q, k, v, is_causal=case.causal, enable_gqa=shared)

        return attend

    return prepare


def _backward() -> Iterator[LibraryRun]:
    from torch.nn.attention import SDPBackend

    backends = (
        ("FlashAttention-2 backward (torch)", SDPBackend.FLASH_ATTENTION, "mma-sync"),
        ("cuDNN backward (torch)", SDPBackend.CUDNN_ATTENTION, "warp-specialized"),
    )
    for name, backend, variant in backends:
        for batch, heads, length, dim in BACKWARD:
            for causal in (False, True):
                case = Case("flash_attention_backward", "fp16", batch, heads, heads, length, length, dim, causal,
                            variant=variant)  # fmt: skip
                yield LibraryRun(name, case, _gradients(backend, case))


def _gradients(backend: Any, case: Case) -> Callable[[], Callable[[], Any]]:
    def prepare() -> Callable[[], Any]:
        import torch
        from torch.nn.attention import sdpa_kernel
        from torch.nn.functional import scaled_dot_product_attention

        # Heads side by side in memory, as the backward pass wants its output's gradient: else torch copies it first.
        shape = (case.batch, case.q_len, case.heads, case.head_dim)
        q, k, v = (_random(*shape).transpose(1, 2).requires_grad_() for _ in range(3))
        with sdpa_kernel(backend):
            out = scaled_dot_product_attention(q, k, v, is_causal=case.causal)
        d_out = torch.randn_like(out)
        return lambda: torch.autograd.grad(out, (q, k, v), d_out, retain_graph=True)

    return prepare


def _flex() -> Iterator[LibraryRun]:
    for batch, heads, length, dim, causal in FLEX:
        for block_m, block_n, warps, stages in FLEX_TILES:
            case = Case("flash_attention", "fp16", batch, heads, heads, length, length, dim, causal, block_m=block_m,
                        block_n=block_n, warps=warps, stages=stages)  # fmt: skip
            yield LibraryRun("FlexAttention (torch)", case, _flexible(case))


def _flexible(case: Case) -> Callable[[], Callable[[], Any]]:
    def prepare() -> Callable[[], Any]:
        import torch
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        torch._dynamo.reset()
        q, k, v = (_random(case.batch, case.heads, case.q_len, case.head_dim) for _ in range(3))
        mask = None
        if case.causal:
            mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, case.q_len, case.kv_len, device="cuda")
        tile = {"BLOCK_M": case.block_m, "BLOCK_N": case.block_n, "num_warps": case.warps, "num_stages": case.stages}
        compiled = torch.compile(flex_attention, dynamic=False)
        return lambda: compiled(q, k, v, block_mask=mask, kernel_options=tile)

    return prepare


def measure(path: Path, limit_s: float) -> None:
    """Time all that the file does not have yet, as far as `limit_s` seconds reach, and note the session beside it."""
    from kernels.timing import Stopwatch

    require_cuda()
    import torch

    known = set()
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            known = {tuple(row[name] for name in ("library", *TEXT)) for row in csv.DictReader(file)}
    stopwatch, began = Stopwatch(), time.monotonic()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not known:
            writer.writeheader()
        for one in runs():
            cells = {name: str(value) for name, value in one.case.fields().items() if name in TEXT}
            cells = {**{name: "" if value == "0" else value for name, value in cells.items()}, "library": one.library}
            if tuple(cells[name] for name in ("library", *TEXT)) in known:
                continue
            if time.monotonic() - began > limit_s:
                print("no time is left for the rest; run again to continue", file=sys.stderr)
                break
            try:
                timing = stopwatch.time(one.prepare(), TIMING)
                found: dict[str, Any] = {
                    "ms": f"{timing.ms:.6g}", "ms_p10": f"{timing.ms_p10:.6g}", "ms_p90": f"{timing.ms_p90:.6g}",
                    "repetitions": timing.repetitions, "sm_clock_mhz": timing.readings.sm_clock_mhz,
                    "temperature_c": timing.readings.temperature_c, "power_w": timing.readings.power_w, "status": "ok",
                }  # fmt: skip
            except Exception as error:  # a library that cannot run a shape is this row's result
                found = {"status": "failed", "reason": f"{type(error).__name__}: {error}".replace("\n", " ")[:200]}
            torch.cuda.empty_cache()
            writer.writerow({**cells, **found})
            file.flush()
    provenance = path.with_suffix(".yaml")
    sessions = yaml.safe_load(provenance.read_text())["sessions"] if provenance.exists() else []
    sessions.append({"time": now(), **software_facts(), "cudnn": torch.backends.cudnn.version()})
    provenance.write_text(yaml.safe_dump({"gpu": device_facts(), "sessions": sessions}, sort_keys=False))


if __name__ == "__main__":
    measure(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else float("inf"))
