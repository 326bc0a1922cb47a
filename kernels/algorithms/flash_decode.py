"""Decode attention by split K (Flash-Decoding): every head's keys are cut into equal parts, a reduction merges them.

The query heads that share a K/V head are the rows of one tile, so K and V are read once for all of them. A part leaves
its maximum, denominator and unnormalised output in fp32; the second kernel rescales and adds them.
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

REDUCTION_WARPS = 4


@triton.jit(do_not_specialize=["group", "kv_len", "tiles_per_part"])
def _decode_part(
    q_ptr, k_ptr, v_ptr, maxima_ptr, sums_ptr, outputs_ptr, group, kv_len, tiles_per_part, scale_log2,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Attention of one group of query heads to one part of its keys."""
    part = tl.program_id(0)
    parts = tl.num_programs(0)
    kv_head = tl.program_id(1).to(tl.int64)
    rows = tl.arange(0, BLOCK_M)
    q = load_tile(q_ptr + kv_head * group * HEAD_DIM, rows, group, HEAD_DIM, PADDED_DIM, True)
    k_base = k_ptr + kv_head * kv_len * HEAD_DIM
    v_base = v_ptr + kv_head * kv_len * HEAD_DIM
    running_max = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    denominator = tl.zeros((BLOCK_M,), tl.float32)
    output = tl.zeros((BLOCK_M, PADDED_DIM), tl.float32)
    begin = part * tiles_per_part * BLOCK_N
    end = tl.minimum(begin + tiles_per_part * BLOCK_N, kv_len)
    for start in tl.range(begin, end, BLOCK_N):
        keys = start + tl.arange(0, BLOCK_N)
        k = load_tile(k_base, keys, end, HEAD_DIM, PADDED_DIM, True)
        v = load_tile(v_base, keys, end, HEAD_DIM, PADDED_DIM, True)
        running_max, denominator, output = attend(
            q, k, v, running_max, denominator, output, scale_log2, keys[None, :] < end, True
        )
    places = (kv_head * parts + part) * group + rows
    tl.store(maxima_ptr + places, running_max, mask=rows < group)
    tl.store(sums_ptr + places, denominator, mask=rows < group)
    store_tile(outputs_ptr + (kv_head * parts + part) * group * HEAD_DIM, rows, group, output, HEAD_DIM, PADDED_DIM)


@triton.jit(do_not_specialize=["group", "parts"])
def _merge_parts(
    maxima_ptr, sums_ptr, outputs_ptr, out_ptr, group, parts,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Merge the parts of one group of query heads: rescale each to the common maximum and add."""
    kv_head = tl.program_id(0).to(tl.int64)
    rows = tl.arange(0, BLOCK_M)
    maximum = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    denominator = tl.zeros((BLOCK_M,), tl.float32)
    output = tl.zeros((BLOCK_M, PADDED_DIM), tl.float32)
    for part in tl.range(0, parts):
        places = (kv_head * parts + part) * group + rows
        part_maximum = tl.load(maxima_ptr + places, mask=rows < group, other=float("-inf"))
        part_sum = tl.load(sums_ptr + places, mask=rows < group, other=0.0)
        part_output = load_tile(
            outputs_ptr + (kv_head * parts + part) * group * HEAD_DIM, rows, group, HEAD_DIM, PADDED_DIM, True
        )
        new_maximum = tl.maximum(maximum, part_maximum)
        shift = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
        old_factor = tl.exp2(maximum - shift)
        part_factor = tl.exp2(part_maximum - shift)
        denominator = denominator * old_factor + part_sum * part_factor
        output = output * old_factor[:, None] + part_output * part_factor[:, None]
        maximum = new_maximum
    store_tile(out_ptr + kv_head * group * HEAD_DIM, rows, group, normalise(output, denominator), HEAD_DIM, PADDED_DIM)


def flash_decode(
    q: Any, k: Any, v: Any, out: Any, workspace: Tensors, *, splits: int, block_m: int, block_n: int, warps: int,
    stages: int,
) -> None:  # fmt: skip
    """out = attention of one query for each head. q, out (batch, heads, 1, d); k, v (batch, kv_heads, kv_len, d).

    `workspace` holds `maxima`, `sums` and `outputs` for batch x heads x splits partial results.
    """
    batch, heads, _, head_dim = q.shape
    kv_heads, kv_len = k.shape[1:3]
    group = heads // kv_heads
    tiles_per_part = triton.cdiv(triton.cdiv(kv_len, block_n), splits)
    partial = (workspace["maxima"], workspace["sums"], workspace["outputs"])
    shape = {"HEAD_DIM": head_dim, "PADDED_DIM": padded(head_dim), "BLOCK_M": block_m}
    launch(
        _decode_part, (splits, batch * kv_heads), q, k, v, *partial, group, kv_len, tiles_per_part,
        log2_scale(head_dim), **shape, BLOCK_N=block_n, warps=warps, stages=stages,
    )  # fmt: skip
    launch(_merge_parts, (batch * kv_heads,), *partial, out, group, splits, **shape, warps=REDUCTION_WARPS, stages=2)


def decode_unsupported(case: Case) -> str | None:
    """Why no decode kernel can run `case`, or None."""
    if case.dtype not in ("fp16", "bf16"):
        return f"{case.kernel} takes fp16 or bf16, not {case.dtype}"
    if case.q_len != 1:
        return f"{case.kernel} takes one query for each head, not {case.q_len}"
    if case.window:
        return f"{case.kernel} has no window"
    if case.block_m < max(16, case.group):
        return f"{case.kernel} needs block_m of at least {max(16, case.group)} for its {case.group} query heads a group"
    if case.splits < 1:
        return f"{case.kernel} needs splits of at least 1, found {case.splits}"
    return case.lacks("block_m", "block_n", "warps", "stages")


unsupported = decode_unsupported


def make_inputs(case: Case, device: str, seed: int) -> Tensors:
    """q, k, v, an unwritten output and the partial results."""
    import torch

    tensors = attention_inputs(case, device, seed)
    count = case.batch * case.heads * case.splits
    tensors["maxima"] = torch.empty(count, dtype=torch.float32, device=device)
    tensors["sums"] = torch.empty(count, dtype=torch.float32, device=device)
    tensors["outputs"] = torch.empty(count * case.head_dim, dtype=torch.float32, device=device)
    return tensors


def run(case: Case, tensors: Tensors) -> Any:
    """Launch both kernels; the output tensor."""
    flash_decode(
        tensors["q"], tensors["k"], tensors["v"], tensors["out"], tensors, splits=case.splits, block_m=case.block_m,
        block_n=case.block_n, warps=case.warps, stages=case.stages,
    )  # fmt: skip
    return tensors["out"]


def reference(case: Case, tensors: Tensors) -> Any:
    """The same in float64."""
    return attention_reference(case, tensors)
