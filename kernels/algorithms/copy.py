"""Copy: every byte is read once and written once; the yardstick of memory bandwidth.

A case's q_len, head_dim, heads and batch multiply to the number of elements; block_n of them are one thread block's.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from kernels.algorithms.attention import Tensors, random_tensor, unwritten
from kernels.case import Case
from kernels.launch import launch


@triton.jit
def _copy(source_ptr, target_ptr, count, BLOCK_N: tl.constexpr):
    places = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = places < count
    tl.store(target_ptr + places, tl.load(source_ptr + places, mask=inside), mask=inside)


def copy(source: Any, target: Any, *, block_n: int, warps: int) -> None:
    """target = source, element by element; both contiguous."""
    count = source.numel()
    launch(
        _copy, (triton.cdiv(count, block_n),), source, target, count, BLOCK_N=block_n, warps=warps, stages=1
    )  # fmt: skip


def unsupported(case: Case) -> str | None:
    """Why this family cannot run `case`, or None."""
    if case.dtype == "fp8":
        return "copy takes fp16, bf16 or fp32, not fp8"
    return case.lacks("block_n", "warps")


def make_inputs(case: Case, device: str, seed: int) -> Tensors:
    """A random source and an unwritten target."""
    shape = (case.batch * case.heads, case.q_len, case.head_dim)
    return {"source": random_tensor(shape, case.dtype, device, seed), "out": unwritten(shape, case.dtype, device)}


def run(case: Case, tensors: Tensors) -> Any:
    """Launch the kernel; the output tensor."""
    copy(tensors["source"], tensors["out"], block_n=case.block_n, warps=case.warps)
    return tensors["out"]


def reference(case: Case, tensors: Tensors) -> Any:
    """The same in float64."""
    return tensors["source"].double()
