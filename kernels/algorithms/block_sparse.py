"""Block-sparse attention: a tile of queries attends only to the blocks of keys in its list.

The list belongs to blocks of the pattern's own size, whatever the tile: tiles divide a pattern block, so every tile
computes the same function. Blocks on the diagonal are masked when the pattern is causal, and all pairs of a kept
block count otherwise.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from kernels.algorithms.attention import Tensors, attention_inputs, attention_reference, log2_scale, padded
from kernels.algorithms.attention import visible_pairs as causal_pairs
from kernels.algorithms.online_softmax import attend, load_tile, normalise, store_tile
from kernels.case import Case
from kernels.launch import launch
from kernels.patterns import block_lists, block_size


@triton.jit(do_not_specialize=["heads", "group", "q_len", "kv_len"])
def _block_sparse(
    q_ptr, k_ptr, v_ptr, out_ptr, first_ptr, blocks_ptr, heads, group, q_len, kv_len, scale_log2,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PATTERN_BLOCK: tl.constexpr, CAUSAL: tl.constexpr, RAGGED: tl.constexpr,
):  # fmt: skip
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    head = (tl.program_id(2) * heads + tl.program_id(1)).to(tl.int64)
    kv_head = (tl.program_id(2) * (heads // group) + tl.program_id(1) // group).to(tl.int64)
    k_base = k_ptr + kv_head * kv_len * HEAD_DIM
    v_base = v_ptr + kv_head * kv_len * HEAD_DIM
    rows = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    positions = rows + kv_len - q_len
    q = load_tile(q_ptr + head * q_len * HEAD_DIM, rows, q_len, HEAD_DIM, PADDED_DIM, True)
    running_max = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    denominator = tl.zeros((BLOCK_M,), tl.float32)
    output = tl.zeros((BLOCK_M, PADDED_DIM), tl.float32)
    TILES: tl.constexpr = PATTERN_BLOCK // BLOCK_N
    pattern_row = tile * BLOCK_M // PATTERN_BLOCK
    first = tl.load(first_ptr + pattern_row) * TILES
    last = tl.load(first_ptr + pattern_row + 1) * TILES
    for index in tl.range(first, last):
        block = tl.load(blocks_ptr + index // TILES)
        keys = block * PATTERN_BLOCK + index % TILES * BLOCK_N + tl.arange(0, BLOCK_N)
        k = load_tile(k_base, keys, kv_len, HEAD_DIM, PADDED_DIM, RAGGED)
        v = load_tile(v_base, keys, kv_len, HEAD_DIM, PADDED_DIM, RAGGED)
        visible = keys[None, :] < kv_len
        if CAUSAL:
            visible = visible & (keys[None, :] <= positions[:, None])
        running_max, denominator, output = attend(
            q, k, v, running_max, denominator, output, scale_log2, visible, CAUSAL or RAGGED
        )
    store_tile(out_ptr + head * q_len * HEAD_DIM, rows, q_len, normalise(output, denominator), HEAD_DIM, PADDED_DIM)


def block_sparse(
    q: Any, k: Any, v: Any, out: Any, first: Any, blocks: Any, *, pattern_block: int, causal: bool, block_m: int,
    block_n: int, warps: int, stages: int,
) -> None:  # fmt: skip
    """Attention restricted to listed blocks; shapes as in `flash_attention`.

    Queries of pattern row i attend to the key blocks blocks[first[i]:first[i + 1]] (int32), `pattern_block` wide.
    """
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len = k.shape[1:3]
    launch(
        _block_sparse, (triton.cdiv(q_len, block_m), heads, batch), q, k, v, out, first, blocks, heads,
        heads // kv_heads, q_len, kv_len, log2_scale(head_dim), HEAD_DIM=head_dim, PADDED_DIM=padded(head_dim),
        BLOCK_M=block_m, BLOCK_N=block_n, PATTERN_BLOCK=pattern_block, CAUSAL=causal,
        RAGGED=kv_len % pattern_block != 0, warps=warps, stages=stages,
    )  # fmt: skip


def unsupported(case: Case) -> str | None:
    """Why this family cannot run `case`, or None."""
    if case.dtype not in ("fp16", "bf16"):
        return f"block_sparse takes fp16 or bf16, not {case.dtype}"
    if not case.pattern:
        return "block_sparse needs a pattern"
    size = block_size(case.pattern)
    if size % case.block_m or size % case.block_n:
        return f"block_sparse needs tiles that divide the pattern's block of {size}"
    if case.window:
        return "block_sparse has no window besides its pattern"
    if case.causal and case.q_len != case.kv_len:
        return "a causal block_sparse needs as many queries as keys"
    return case.lacks("block_m", "block_n", "warps", "stages")


def make_inputs(case: Case, device: str, seed: int) -> Tensors:
    """q, k, v, an unwritten output and the pattern's lists."""
    import torch

    tensors = attention_inputs(case, device, seed)
    first, blocks = block_lists(case.pattern, case.q_len, case.kv_len, case.causal)
    tensors["first"] = torch.tensor(first, dtype=torch.int32, device=device)
    tensors["blocks"] = torch.tensor(blocks, dtype=torch.int32, device=device)
    return tensors


def run(case: Case, tensors: Tensors) -> Any:
    """Launch the kernel; the output tensor."""
    block_sparse(
        tensors["q"], tensors["k"], tensors["v"], tensors["out"], tensors["first"], tensors["blocks"],
        pattern_block=block_size(case.pattern), causal=case.causal, block_m=case.block_m, block_n=case.block_n,
        warps=case.warps, stages=case.stages,
    )  # fmt: skip
    return tensors["out"]


def reference(case: Case, tensors: Tensors) -> Any:
    """The same in float64 with a dense mask."""
    import torch

    size = block_size(case.pattern)
    first, blocks = tensors["first"].tolist(), tensors["blocks"].tolist()
    visible = torch.zeros(case.q_len, case.kv_len, dtype=torch.bool, device=tensors["q"].device)
    for row in range(len(first) - 1):
        for block in blocks[first[row] : first[row + 1]]:
            visible[row * size : (row + 1) * size, block * size : (block + 1) * size] = True
    return attention_reference(case, tensors, visible & causal_pairs(case, str(visible.device)))
