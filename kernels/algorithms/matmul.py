"""Matrix product C = A B^T: A (m, k) and B (n, k) row-major, as activations meet the weights of a linear layer.

One thread block makes a tile of BLOCK_M x BLOCK_N, walking over k in steps of BLOCK_K. Thread blocks are numbered so
that GROUP_M rows of tiles run together, which lets the L2 cache serve both operands.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from kernels.algorithms.attention import Tensors, random_tensor, unwritten
from kernels.case import Case
from kernels.launch import launch

GROUP_M = 8
# The vendor's library (cuBLAS through torch) for comparison: on Hopper producer and consumer warps.
LIBRARY = "warp-specialized"


@triton.jit
def _matmul(
    a_ptr, b_ptr, c_ptr, m, n, k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr, GUARD_K: tl.constexpr,
):  # fmt: skip
    tiles_m = tl.cdiv(m, BLOCK_M)
    tiles_n = tl.cdiv(n, BLOCK_N)
    tiles_in_group = GROUP_M * tiles_n
    group = tl.program_id(0) // tiles_in_group
    group_rows = tl.minimum(tiles_m - group * GROUP_M, GROUP_M)
    tile_m = group * GROUP_M + tl.program_id(0) % tiles_in_group % group_rows
    tile_n = tl.program_id(0) % tiles_in_group // group_rows

    batch = tl.program_id(1).to(tl.int64)
    rows = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tile_n * BLOCK_N + tl.arange(0, BLOCK_N)
    steps = tl.arange(0, BLOCK_K)
    # Rows beyond the edge read row 0's neighbours again and are never stored; only k itself needs a guard.
    a_tile = a_ptr + batch * m * k + (rows % m).to(tl.int64)[:, None] * k + steps[None, :]
    b_tile = b_ptr + batch * n * k + (columns % n).to(tl.int64)[:, None] * k + steps[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in tl.range(0, k, BLOCK_K):
        if GUARD_K:
            inside = steps[None, :] < k - start
            a = tl.load(a_tile, mask=inside, other=0.0)
            b = tl.load(b_tile, mask=inside, other=0.0)
        else:
            a = tl.load(a_tile)
            b = tl.load(b_tile)
        total = tl.dot(a, tl.trans(b), total)
        a_tile += BLOCK_K
        b_tile += BLOCK_K
    c_tile = c_ptr + batch * m * n + rows.to(tl.int64)[:, None] * n + columns[None, :]
    inside = (rows[:, None] < m) & (columns[None, :] < n)
    tl.store(c_tile, total.to(c_ptr.dtype.element_ty), mask=inside)


def matmul(a: Any, b: Any, c: Any, *, block_m: int, block_n: int, block_k: int, warps: int, stages: int) -> None:
    """c = a b^T for a (batch, m, k), b (batch, n, k), c (batch, m, n), all contiguous."""
    batch, m, k = a.shape
    n = b.shape[1]
    grid = (triton.cdiv(m, block_m) * triton.cdiv(n, block_n), batch)
    launch(
        _matmul, grid, a, b, c, m, n, k, BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k, GROUP_M=GROUP_M,
        GUARD_K=k % block_k != 0, warps=warps, stages=stages,
    )  # fmt: skip


def unsupported(case: Case) -> str | None:
    """Why this family cannot run `case`, or None."""
    if case.dtype == "fp32":
        return "matmul takes fp8, fp16 or bf16, not fp32"
    if case.variant == LIBRARY:
        return f"{LIBRARY} takes fp16 or bf16, not fp8" if case.dtype == "fp8" else None
    if case.variant:
        return f"matmul has the variant {LIBRARY}, not '{case.variant}'"
    if case.block_k < 16:
        return f"matmul needs block_k of at least 16, found {case.block_k}"
    return case.lacks("block_m", "block_n", "warps", "stages")


def make_inputs(case: Case, device: str, seed: int) -> Tensors:
    """Random a and b and an unwritten product (in fp16 for fp8 inputs)."""
    batch = case.batch * case.heads
    return {
        "a": random_tensor((batch, case.q_len, case.head_dim), case.dtype, device, seed),
        "b": random_tensor((batch, case.kv_len, case.head_dim), case.dtype, device, seed + 1),
        "out": unwritten((batch, case.q_len, case.kv_len), "fp16" if case.dtype == "fp8" else case.dtype, device),
    }


def run(case: Case, tensors: Tensors) -> Any:
    """Launch the kernel; the output tensor."""
    if case.variant == LIBRARY:
        import torch

        return torch.matmul(tensors["a"], tensors["b"].transpose(-1, -2), out=tensors["out"])
    matmul(
        tensors["a"], tensors["b"], tensors["out"], block_m=case.block_m, block_n=case.block_n, block_k=case.block_k,
        warps=case.warps, stages=case.stages,
    )  # fmt: skip
    return tensors["out"]


def reference(case: Case, tensors: Tensors) -> Any:
    """The same in float64."""
    return tensors["a"].double() @ tensors["b"].double().transpose(-1, -2)
