"""Attention in three kernels, the scores and the probabilities going through memory between them.

The first writes every score (masked ones too), the second applies the mask and the softmax, the third multiplies by V:
what a framework without a fused kernel does. `variant` names one step (`qk`, `softmax`, `pv`); empty runs all three.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from kernels.algorithms.attention import (
    Tensors,
    attention_inputs,
    attention_reference,
    padded,
    random_tensor,
    unwritten,
    visible_pairs,
)
from kernels.algorithms.online_softmax import load_tile, store_tile
from kernels.algorithms.softmax import softmax
from kernels.case import Case
from kernels.launch import launch

STEPS = ("qk", "softmax", "pv")
# The softmax between the two products takes one row for each thread block, whole if it has at most this many columns.
SOFTMAX_COLUMNS = 4096


@triton.jit(do_not_specialize=["heads", "group", "q_len"])
def _scores(
    q_ptr, k_ptr, scores_ptr, heads, group, q_len, kv_len,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One tile of Q K^T."""
    head = (tl.program_id(2) * heads + tl.program_id(1)).to(tl.int64)
    kv_head = (tl.program_id(2) * (heads // group) + tl.program_id(1) // group).to(tl.int64)
    tiles_n = tl.cdiv(kv_len, BLOCK_N)
    rows = tl.program_id(0) // tiles_n * BLOCK_M + tl.arange(0, BLOCK_M)
    keys = tl.program_id(0) % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N)
    q = load_tile(q_ptr + head * q_len * HEAD_DIM, rows, q_len, HEAD_DIM, PADDED_DIM, True)
    k = load_tile(k_ptr + kv_head * kv_len * HEAD_DIM, keys, kv_len, HEAD_DIM, PADDED_DIM, True)
    scores = tl.dot(q, tl.trans(k))
    target = scores_ptr + head * q_len * kv_len + rows.to(tl.int64)[:, None] * kv_len + keys[None, :]
    inside = (rows[:, None] < q_len) & (keys[None, :] < kv_len)
    tl.store(target, scores.to(scores_ptr.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["heads", "group", "q_len"])
def _weighted_values(
    weights_ptr, v_ptr, out_ptr, heads, group, q_len, kv_len,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """BLOCK_M rows of P V, BLOCK_N keys at a time."""
    head = (tl.program_id(2) * heads + tl.program_id(1)).to(tl.int64)
    kv_head = (tl.program_id(2) * (heads // group) + tl.program_id(1) // group).to(tl.int64)
    v_base = v_ptr + kv_head * kv_len * HEAD_DIM
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_base = weights_ptr + head * q_len * kv_len + rows.to(tl.int64) * kv_len
    total = tl.zeros((BLOCK_M, PADDED_DIM), tl.float32)
    for start in tl.range(0, kv_len, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        inside = (rows[:, None] < q_len) & (keys[None, :] < kv_len)
        weights = tl.load(row_base[:, None] + keys[None, :], mask=inside, other=0.0)
        v = load_tile(v_base, keys, kv_len, HEAD_DIM, PADDED_DIM, True)
        total = tl.dot(weights, v, total)
    store_tile(out_ptr + head * q_len * HEAD_DIM, rows, q_len, total, HEAD_DIM, PADDED_DIM)


def scores(q: Any, k: Any, target: Any, *, block_m: int, block_n: int, warps: int, stages: int) -> None:
    """target (batch, heads, q_len, kv_len) = q k^T."""
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len = k.shape[1:3]
    grid = (triton.cdiv(q_len, block_m) * triton.cdiv(kv_len, block_n), heads, batch)
    launch(
        _scores, grid, q, k, target, heads, heads // kv_heads, q_len, kv_len, HEAD_DIM=head_dim,
        PADDED_DIM=padded(head_dim), BLOCK_M=block_m, BLOCK_N=block_n, warps=warps, stages=stages,
    )  # fmt: skip


def weighted_values(weights: Any, v: Any, out: Any, *, block_m: int, block_n: int, warps: int, stages: int) -> None:
    """out (batch, heads, q_len, head_dim) = weights v."""
    batch, heads, q_len, head_dim = out.shape
    kv_heads, kv_len = v.shape[1:3]
    launch(
        _weighted_values, (triton.cdiv(q_len, block_m), heads, batch), weights, v, out, heads, heads // kv_heads,
        q_len, kv_len, HEAD_DIM=head_dim, PADDED_DIM=padded(head_dim), BLOCK_M=block_m, BLOCK_N=block_n, warps=warps,
        stages=stages,
    )  # fmt: skip


def unsupported(case: Case) -> str | None:
    """Why this family cannot run `case`, or None."""
    if case.dtype not in ("fp16", "bf16"):
        return f"unfused takes fp16 or bf16, not {case.dtype}"
    if case.variant not in ("", *STEPS):
        return f"unfused has the variants {', '.join(STEPS)}, not '{case.variant}'"
    return case.lacks("block_m", "block_n", "warps", "stages")


def make_inputs(case: Case, device: str, seed: int) -> Tensors:
    """q, k, v, unwritten scores, probabilities and output; a lone step gets random numbers as its input."""
    shape = (case.batch, case.heads, case.q_len, case.kv_len)
    tensors = attention_inputs(case, device, seed)
    tensors["scores"] = unwritten(shape, case.dtype, device)
    tensors["weights"] = unwritten(shape, case.dtype, device)
    if case.variant == "softmax":
        tensors["scores"] = random_tensor(shape, case.dtype, device, seed + 3)
    if case.variant == "pv":
        tensors["weights"] = random_tensor(shape, case.dtype, device, seed + 3)
    return tensors


def run(case: Case, tensors: Tensors) -> Any:
    """Launch the steps that the variant names; the tensor that the last of them wrote."""
    tile = {"block_m": case.block_m, "block_n": case.block_n, "warps": case.warps, "stages": case.stages}
    if case.variant in ("", "qk"):
        scores(tensors["q"], tensors["k"], tensors["scores"], **tile)
    if case.variant in ("", "softmax"):
        if case.variant == "":
            tile_of_softmax = softmax_tile(case.kv_len)
        else:
            tile_of_softmax = tile
        softmax(
            tensors["scores"], tensors["weights"], scale=case.head_dim**-0.5, causal=case.causal, window=case.window,
            q_len=case.q_len, **tile_of_softmax,
        )  # fmt: skip
    if case.variant in ("", "pv"):
        weighted_values(tensors["weights"], tensors["v"], tensors["out"], **tile)
    return tensors[{"": "out", "qk": "scores", "softmax": "weights", "pv": "out"}[case.variant]]


def softmax_tile(kv_len: int) -> dict[str, int]:
    """The tile of the softmax between the two products: one row, a warp for every 512 columns of its block."""
    columns = min(SOFTMAX_COLUMNS, triton.next_power_of_2(kv_len))
    return {"block_m": 1, "block_n": columns, "warps": max(1, min(8, columns // 512)), "stages": 2}


def reference(case: Case, tensors: Tensors) -> Any:
    """The same in float64, from the input of the step that the variant names."""
    import torch

    if case.variant == "":
        return attention_reference(case, tensors)
    if case.variant == "qk":
        k = tensors["k"].double().repeat_interleave(case.group, dim=1)
        return tensors["q"].double() @ k.transpose(-1, -2)
    if case.variant == "pv":
        return tensors["weights"].double() @ tensors["v"].double().repeat_interleave(case.group, dim=1)
    hidden = ~visible_pairs(case, str(tensors["scores"].device))
    values = tensors["scores"].double() * case.head_dim**-0.5
    return torch.softmax(values.masked_fill(hidden, float("-inf")), dim=-1).nan_to_num(0.0)
