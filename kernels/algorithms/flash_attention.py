"""Fused attention, forward: FlashAttention-2's loop order (arXiv 2307.08691), one thread block per tile of queries.

A thread block keeps its BLOCK_M queries, their running maximum, denominator and output in registers and walks over the
keys that they may see in tiles of BLOCK_N. Only tiles at the edge of the mask or of the keys are masked. Under a causal
mask the thread blocks with the most keys start first, so that the last wave is short.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from kernels.algorithms.attention import Tensors, attention_inputs, attention_reference, log2_scale, padded
from kernels.algorithms.online_softmax import attend, load_tile, normalise, store_tile
from kernels.case import Case
from kernels.launch import launch

# Kernels of other people's for comparison, by what they do: torch's FlashAttention-2 issues warp-level matrix
# instructions; cuDNN's kernel for Hopper has producer and consumer warps.
LIBRARIES = {"mma-sync": "FLASH_ATTENTION", "warp-specialized": "CUDNN_ATTENTION"}


@triton.jit
def _visible(positions, keys, kv_len, window, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr):
    """Which keys each query sees; `positions` are the queries' places among the keys."""
    visible = keys[None, :] < kv_len
    if CAUSAL:
        visible = visible & (keys[None, :] <= positions[:, None])
    if WINDOWED:
        visible = visible & (keys[None, :] > positions[:, None] - window)
        if not CAUSAL:
            visible = visible & (keys[None, :] < positions[:, None] + window)
    return visible


@triton.jit
def _attend_range(
    q, k_base, v_base, running_max, denominator, output, begin, end, positions, kv_len, window, scale_log2,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_N: tl.constexpr, CAUSAL: tl.constexpr,
    WINDOWED: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Attend to the keys from `begin` to `end`, a tile at a time."""
    for start in tl.range(begin, end, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        k = load_tile(k_base, keys, kv_len, HEAD_DIM, PADDED_DIM, MASKED)
        v = load_tile(v_base, keys, kv_len, HEAD_DIM, PADDED_DIM, MASKED)
        if MASKED:
            visible = _visible(positions, keys, kv_len, window, CAUSAL, WINDOWED)
        else:
            visible = True
        running_max, denominator, output = attend(
            q, k, v, running_max, denominator, output, scale_log2, visible, MASKED
        )
    return running_max, denominator, output


@triton.jit(do_not_specialize=["heads", "group", "q_len", "kv_len", "window"])
def _flash_attention(
    q_ptr, k_ptr, v_ptr, out_ptr, heads, group, q_len, kv_len, window, scale_log2,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
):  # fmt: skip
    tile = tl.program_id(0)
    if CAUSAL:
        tile = tl.num_programs(0) - 1 - tile
    head = (tl.program_id(2) * heads + tl.program_id(1)).to(tl.int64)
    kv_head = (tl.program_id(2) * (heads // group) + tl.program_id(1) // group).to(tl.int64)
    q_base = q_ptr + head * q_len * HEAD_DIM
    k_base = k_ptr + kv_head * kv_len * HEAD_DIM
    v_base = v_ptr + kv_head * kv_len * HEAD_DIM

    rows = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    positions = rows + kv_len - q_len
    first_position = tile * BLOCK_M + kv_len - q_len
    last_position = tl.minimum((tile + 1) * BLOCK_M, q_len) - 1 + kv_len - q_len

    # Keys that some query of the tile sees: [begin, end); keys that every one sees, in whole tiles: [inner, outer).
    begin = 0
    inner = 0
    end = kv_len
    outer = kv_len
    if WINDOWED:
        begin = tl.maximum(first_position - window + 1, 0) // BLOCK_N * BLOCK_N
        inner = tl.cdiv(tl.maximum(last_position - window + 1, 0), BLOCK_N) * BLOCK_N
        if not CAUSAL:
            end = tl.minimum(kv_len, last_position + window)
            outer = tl.minimum(kv_len, first_position + window)
    if CAUSAL:
        end = tl.minimum(kv_len, last_position + 1)
        outer = tl.minimum(kv_len, first_position + 1)
    inner = tl.minimum(inner, tl.maximum(end, begin))
    outer = tl.maximum(tl.maximum(outer, 0) // BLOCK_N * BLOCK_N, inner)

    q = load_tile(q_base, rows, q_len, HEAD_DIM, PADDED_DIM, True)
    running_max = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    denominator = tl.zeros((BLOCK_M,), tl.float32)
    output = tl.zeros((BLOCK_M, PADDED_DIM), tl.float32)
    if WINDOWED:
        running_max, denominator, output = _attend_range(
            q, k_base, v_base, running_max, denominator, output, begin, inner, positions, kv_len, window, scale_log2,
            HEAD_DIM, PADDED_DIM, BLOCK_N, CAUSAL, WINDOWED, True,
        )  # fmt: skip
    running_max, denominator, output = _attend_range(
        q, k_base, v_base, running_max, denominator, output, inner, outer, positions, kv_len, window, scale_log2,
        HEAD_DIM, PADDED_DIM, BLOCK_N, CAUSAL, WINDOWED, False,
    )  # fmt: skip
    running_max, denominator, output = _attend_range(
        q, k_base, v_base, running_max, denominator, output, outer, end, positions, kv_len, window, scale_log2,
        HEAD_DIM, PADDED_DIM, BLOCK_N, CAUSAL, WINDOWED, True,
    )  # fmt: skip
    store_tile(out_ptr + head * q_len * HEAD_DIM, rows, q_len, normalise(output, denominator), HEAD_DIM, PADDED_DIM)


def flash_attention(
    q: Any, k: Any, v: Any, out: Any, *, causal: bool, window: int, block_m: int, block_n: int, warps: int, stages: int
) -> None:
    """out = softmax(q k^T / sqrt(head_dim)) v.

    q, out (batch, heads, q_len, head_dim); k, v (batch, kv_heads, kv_len, head_dim); all contiguous.
    `causal` aligns the last query with the last key; `window` as in `Case`.
    """
    batch, heads, q_len, head_dim = q.shape
    launch(
        _flash_attention, (triton.cdiv(q_len, block_m), heads, batch),
        q, k, v, out, heads, heads // k.shape[1], q_len, k.shape[2], window, log2_scale(head_dim),
        HEAD_DIM=head_dim, PADDED_DIM=padded(head_dim), BLOCK_M=block_m, BLOCK_N=block_n, CAUSAL=causal,
        WINDOWED=window > 0, warps=warps, stages=stages,
    )  # fmt: skip


def library_attention(q: Any, k: Any, v: Any, *, causal: bool, variant: str) -> Any:
    """The same by torch: FlashAttention-2 (`mma-sync`) or cuDNN (`warp-specialized`); equal lengths if causal."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel(getattr(SDPBackend, LIBRARIES[variant])):
        return torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1]
        )


def unsupported(case: Case) -> str | None:
    """Why this family cannot run `case`, or None."""
    if case.dtype not in ("fp16", "bf16"):
        return f"flash_attention takes fp16 or bf16, not {case.dtype}"
    if case.variant in LIBRARIES:
        if case.window or (case.causal and case.q_len != case.kv_len):
            return "the libraries' attention is measured without a window, and causal only for equal lengths"
        return None
    if case.variant:
        return f"flash_attention has the variants {', '.join(LIBRARIES)}, not '{case.variant}'"
    return case.lacks("block_m", "block_n", "warps", "stages")


def make_inputs(case: Case, device: str, seed: int) -> Tensors:
    """Random q, k, v and an output full of NaN."""
    return attention_inputs(case, device, seed)


def run(case: Case, tensors: Tensors) -> Any:
    """Launch the kernel; the output tensor."""
    if case.variant:
        return library_attention(tensors["q"], tensors["k"], tensors["v"], causal=case.causal, variant=case.variant)
    flash_attention(
        tensors["q"], tensors["k"], tensors["v"], tensors["out"], causal=case.causal, window=case.window,
        block_m=case.block_m, block_n=case.block_n, warps=case.warps, stages=case.stages,
    )  # fmt: skip
    return tensors["out"]


def reference(case: Case, tensors: Tensors) -> Any:
    """The same in float64."""
    return attention_reference(case, tensors)
