"""Decode attention by stream-K (LeanAttention, arXiv 2405.10480): a fixed grid takes equal runs of all heads' tiles.

The tiles of all heads stand in one row, and thread block r takes the r-th of `splits` equal runs, wherever heads begin
and end. A head that spans several runs is finished by the one that holds its first tile; the others hand over their
maximum, denominator and output through memory and raise a flag. A thread block hands over before it finishes a head of
its own, so no chain of waits builds up. Runs are dealt out from the last to the first: a thread block waits only for
ones with smaller numbers, which have started already.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

import itertools
from typing import Any

import triton
import triton.language as tl

from kernels.algorithms.attention import Tensors, attention_inputs, attention_reference, log2_scale, padded
from kernels.algorithms.flash_decode import decode_unsupported
from kernels.algorithms.online_softmax import attend, load_tile, normalise, store_tile
from kernels.case import Case
from kernels.launch import launch

_epochs = itertools.count(1)


def lean_tile(head_dim: int) -> int:
    """Keys of a LeanTile by head dimension: 256 up to 64, 128 up to 128, else 64 (LeanAttention, section 4)."""
    if head_dim <= 64:
        return 256
    return 128 if head_dim <= 128 else 64


@triton.jit(do_not_specialize=["epoch", "group", "kv_len", "tiles_per_head", "tile_count"])
def _lean_decode(
    q_ptr, k_ptr, v_ptr, out_ptr, maxima_ptr, sums_ptr, outputs_ptr, flags_ptr, epoch, group, kv_len, tiles_per_head,
    tile_count, scale_log2,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    runs = tl.num_programs(0)
    run = runs - 1 - tl.program_id(0)
    rows = tl.arange(0, BLOCK_M)
    columns = tl.arange(0, PADDED_DIM)
    tile = (run.to(tl.int64) * tile_count // runs).to(tl.int32)
    run_end = ((run + 1).to(tl.int64) * tile_count // runs).to(tl.int32)
    while tile < run_end:
        head_index = tile // tiles_per_head
        head_first = head_index * tiles_per_head
        segment_end = tl.minimum(run_end, head_first + tiles_per_head)
        kv_head = head_index.to(tl.int64)
        q = load_tile(q_ptr + kv_head * group * HEAD_DIM, rows, group, HEAD_DIM, PADDED_DIM, True)
        k_base = k_ptr + kv_head * kv_len * HEAD_DIM
        v_base = v_ptr + kv_head * kv_len * HEAD_DIM
        maximum = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        denominator = tl.zeros((BLOCK_M,), tl.float32)
        output = tl.zeros((BLOCK_M, PADDED_DIM), tl.float32)
        for place in tl.range(tile - head_first, segment_end - head_first):
            keys = place * BLOCK_N + tl.arange(0, BLOCK_N)
            k = load_tile(k_base, keys, kv_len, HEAD_DIM, PADDED_DIM, True)
            v = load_tile(v_base, keys, kv_len, HEAD_DIM, PADDED_DIM, True)
            maximum, denominator, output = attend(
                q, k, v, maximum, denominator, output, scale_log2, keys[None, :] < kv_len, True
            )
        if tile == head_first:
            # This run holds the head's first tile: collect what later runs computed of the head, then write it.
            head_end = head_first + tiles_per_head
            collected = segment_end
            other = run + 1
            while collected < head_end:
                while tl.atomic_add(flags_ptr + other, 0, sem="acquire") != epoch:
                    pass
                tl.debug_barrier()
                base = outputs_ptr + other.to(tl.int64) * BLOCK_M * PADDED_DIM
                # .cg: past the L1 cache, which may hold what stood here before the flag was raised.
                other_maximum = tl.load(maxima_ptr + other * BLOCK_M + rows, cache_modifier=".cg")
                other_sum = tl.load(sums_ptr + other * BLOCK_M + rows, cache_modifier=".cg")
                other_output = tl.load(base + rows[:, None] * PADDED_DIM + columns[None, :], cache_modifier=".cg")
                new_maximum = tl.maximum(maximum, other_maximum)
                factor = tl.exp2(maximum - new_maximum)
                other_factor = tl.exp2(other_maximum - new_maximum)
                denominator = denominator * factor + other_sum * other_factor
                output = output * factor[:, None] + other_output * other_factor[:, None]
                maximum = new_maximum
                collected = ((other + 1).to(tl.int64) * tile_count // runs).to(tl.int32)
                other += 1
            store_tile(
                out_ptr + kv_head * group * HEAD_DIM, rows, group, normalise(output, denominator), HEAD_DIM, PADDED_DIM
            )
        else:
            base = outputs_ptr + run.to(tl.int64) * BLOCK_M * PADDED_DIM
            tl.store(maxima_ptr + run * BLOCK_M + rows, maximum)
            tl.store(sums_ptr + run * BLOCK_M + rows, denominator)
            tl.store(base + rows[:, None] * PADDED_DIM + columns[None, :], output)
            tl.debug_barrier()
            tl.atomic_xchg(flags_ptr + run, epoch, sem="release")
        tile = segment_end


def lean_decode(
    q: Any, k: Any, v: Any, out: Any, workspace: Tensors, *, blocks: int, block_m: int, block_n: int, warps: int,
    stages: int,
) -> None:  # fmt: skip
    """out = attention of one query for each head, by `blocks` thread blocks, all of which must fit on the GPU at once.

    Shapes as in `flash_decode`; `workspace` holds `maxima`, `sums`, `outputs` of each thread block and zeroed `flags`.
    """
    batch, heads, _, head_dim = q.shape
    kv_heads, kv_len = k.shape[1:3]
    tiles_per_head = triton.cdiv(kv_len, block_n)
    tile_count = tiles_per_head * batch * kv_heads
    launch(
        _lean_decode, (min(blocks, tile_count),), q, k, v, out, workspace["maxima"], workspace["sums"],
        workspace["outputs"], workspace["flags"], next(_epochs), heads // kv_heads, kv_len, tiles_per_head, tile_count,
        log2_scale(head_dim), HEAD_DIM=head_dim, PADDED_DIM=padded(head_dim), BLOCK_M=block_m, BLOCK_N=block_n,
        warps=warps, stages=stages,
    )  # fmt: skip


unsupported = decode_unsupported


def make_inputs(case: Case, device: str, seed: int) -> Tensors:
    """q, k, v, an unwritten output, the partial results of every thread block, and their flags."""
    import torch

    tensors = attention_inputs(case, device, seed)
    rows = case.splits * case.block_m
    tensors["maxima"] = torch.empty(rows, dtype=torch.float32, device=device)
    tensors["sums"] = torch.empty(rows, dtype=torch.float32, device=device)
    tensors["outputs"] = torch.empty(rows * padded(case.head_dim), dtype=torch.float32, device=device)
    tensors["flags"] = torch.zeros(case.splits, dtype=torch.int32, device=device)
    return tensors


def run(case: Case, tensors: Tensors) -> Any:
    """Launch the kernel; the output tensor."""
    lean_decode(
        tensors["q"], tensors["k"], tensors["v"], tensors["out"], tensors, blocks=case.splits, block_m=case.block_m,
        block_n=case.block_n, warps=case.warps, stages=case.stages,
    )  # fmt: skip
    return tensors["out"]


def reference(case: Case, tensors: Tensors) -> Any:
    """The same in float64."""
    return attention_reference(case, tensors)
