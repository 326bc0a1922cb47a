"""Fused attention, backward, in FlashAttention-2's scheme (arXiv 2307.08691, algorithm 2): a block for a tile of keys.

Three launches. The first sums O * dO over each row (`delta`) and clears the gradient of the queries, which is kept in
fp32 until the end. In the second a thread block keeps BLOCK_N keys, values and their gradients, walks over the queries
that see them in tiles of BLOCK_M, computes the weights again from the row statistics of the forward pass, and adds its
part of the queries' gradient to memory. The third scales that and rounds it.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

import math
from typing import Any

import triton
import triton.language as tl

from kernels.algorithms.attention import LOG2_E, Tensors, padded, random_tensor, unwritten, visible_pairs
from kernels.algorithms.online_softmax import load_tile, store_tile
from kernels.case import Case
from kernels.launch import launch

_LOG2_E = tl.constexpr(LOG2_E)


@triton.jit(do_not_specialize=["q_len"])
def _row_sums(
    out_ptr, d_out_ptr, delta_ptr, sum_ptr, q_len,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """delta = sum of O * dO over each row; the queries' gradient is cleared."""
    head = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    base = head * q_len * HEAD_DIM
    out = load_tile(out_ptr + base, rows, q_len, HEAD_DIM, PADDED_DIM, True)
    d_out = load_tile(d_out_ptr + base, rows, q_len, HEAD_DIM, PADDED_DIM, True)
    delta = tl.sum(out.to(tl.float32) * d_out.to(tl.float32), 1)
    tl.store(delta_ptr + head * q_len + rows, delta, mask=rows < q_len)
    store_tile(sum_ptr + base, rows, q_len, tl.zeros((BLOCK_M, PADDED_DIM), tl.float32), HEAD_DIM, PADDED_DIM)


@triton.jit
def _add_range(
    k, v, q_base, d_out_base, statistics_base, delta_base, sum_base, dk, dv, begin, end, first_rows, q_len, scale,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_M: tl.constexpr, CAUSAL: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """What the queries from `begin` to `end`, a tile at a time, add to the gradients of a tile of keys and values.

    Scores and weights are (keys, queries); `first_rows` are the first queries that see each key. Queries behind the
    last have no weights, their statistics being infinite.
    """
    columns = tl.arange(0, PADDED_DIM)
    for start in tl.range(begin, end, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        q = load_tile(q_base, rows, q_len, HEAD_DIM, PADDED_DIM, MASKED)
        d_out = load_tile(d_out_base, rows, q_len, HEAD_DIM, PADDED_DIM, MASKED)
        if MASKED:
            statistics = tl.load(statistics_base + rows, mask=rows < q_len, other=float("inf"))
            delta = tl.load(delta_base + rows, mask=rows < q_len, other=0.0)
        else:
            statistics = tl.load(statistics_base + rows)
            delta = tl.load(delta_base + rows)
        scores = tl.dot(k, tl.trans(q))
        exponents = scores * (scale * _LOG2_E) - (statistics * _LOG2_E)[None, :]
        if MASKED:
            exponents = tl.where(first_rows[:, None] <= rows[None, :], exponents, float("-inf"))
        weights = tl.exp2(exponents)
        dv = tl.dot(weights.to(d_out.dtype), d_out, dv)
        d_scores = weights * (tl.dot(v, tl.trans(d_out)) - delta[None, :])
        d_scores = d_scores.to(q.dtype)
        dk = tl.dot(d_scores, q, dk)
        part = tl.dot(tl.trans(d_scores), k)
        pointers = sum_base + rows[:, None] * HEAD_DIM + columns[None, :]
        if MASKED or PADDED_DIM != HEAD_DIM:
            tl.atomic_add(pointers, part, mask=(rows[:, None] < q_len) & (columns[None, :] < HEAD_DIM), sem="relaxed")
        else:
            tl.atomic_add(pointers, part, sem="relaxed")
    return dk, dv


@triton.jit(do_not_specialize=["kv_heads", "group", "q_len", "kv_len"])
def _backward(
    q_ptr, k_ptr, v_ptr, d_out_ptr, statistics_ptr, delta_ptr, sum_ptr, dk_ptr, dv_ptr, kv_heads, group, q_len, kv_len,
    scale,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    CAUSAL: tl.constexpr,
):  # fmt: skip
    kv_head = (tl.program_id(2) * kv_heads + tl.program_id(1)).to(tl.int64)
    base = kv_head * kv_len * HEAD_DIM
    first_key = tl.program_id(0) * BLOCK_N
    keys = first_key + tl.arange(0, BLOCK_N)
    offset = kv_len - q_len

    # Queries that see some key of the tile: from `begin` on; those from `inner` to `outer` see all, in whole tiles.
    # Behind the last key scores are 0, and their exponentials may be any number: there all tiles are masked.
    begin = 0
    inner = 0
    if CAUSAL:
        begin = tl.minimum(tl.maximum(first_key - offset, 0), q_len) // BLOCK_M * BLOCK_M
        last_key = first_key + BLOCK_N - 1
        inner = tl.minimum(tl.cdiv(tl.maximum(last_key - offset, 0), BLOCK_M) * BLOCK_M, q_len)
    outer = tl.maximum(q_len // BLOCK_M * BLOCK_M, inner)
    if first_key + BLOCK_N > kv_len:
        inner = begin
        outer = begin
    first_rows = tl.where(keys < kv_len, keys - offset if CAUSAL else 0, q_len)

    k = load_tile(k_ptr + base, keys, kv_len, HEAD_DIM, PADDED_DIM, True)
    v = load_tile(v_ptr + base, keys, kv_len, HEAD_DIM, PADDED_DIM, True)
    dk = tl.zeros((BLOCK_N, PADDED_DIM), tl.float32)
    dv = tl.zeros((BLOCK_N, PADDED_DIM), tl.float32)
    for member in range(group):
        row = (kv_head * group + member) * q_len
        q_base = q_ptr + row * HEAD_DIM
        d_out_base = d_out_ptr + row * HEAD_DIM
        sum_base = sum_ptr + row * HEAD_DIM
        if CAUSAL:
            dk, dv = _add_range(
                k, v, q_base, d_out_base, statistics_ptr + row, delta_ptr + row, sum_base, dk, dv, begin, inner,
                first_rows, q_len, scale, HEAD_DIM, PADDED_DIM, BLOCK_M, CAUSAL, True,
            )  # fmt: skip
        dk, dv = _add_range(
            k, v, q_base, d_out_base, statistics_ptr + row, delta_ptr + row, sum_base, dk, dv, inner, outer,
            first_rows, q_len, scale, HEAD_DIM, PADDED_DIM, BLOCK_M, CAUSAL, False,
        )  # fmt: skip
        dk, dv = _add_range(
            k, v, q_base, d_out_base, statistics_ptr + row, delta_ptr + row, sum_base, dk, dv, outer, q_len,
            first_rows, q_len, scale, HEAD_DIM, PADDED_DIM, BLOCK_M, CAUSAL, True,
        )  # fmt: skip
    store_tile(dk_ptr + base, keys, kv_len, dk * scale, HEAD_DIM, PADDED_DIM)
    store_tile(dv_ptr + base, keys, kv_len, dv, HEAD_DIM, PADDED_DIM)


@triton.jit(do_not_specialize=["q_len"])
def _round(
    sum_ptr, dq_ptr, q_len, scale,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """dQ from its sums."""
    base = tl.program_id(1).to(tl.int64) * q_len * HEAD_DIM
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    total = load_tile(sum_ptr + base, rows, q_len, HEAD_DIM, PADDED_DIM, True)
    store_tile(dq_ptr + base, rows, q_len, total * scale, HEAD_DIM, PADDED_DIM)


def flash_attention_backward(
    tensors: Tensors, *, causal: bool, block_m: int, block_n: int, warps: int, stages: int
) -> None:
    """Fill `dq`, `dk`, `dv`, the gradients of softmax(q k^T / sqrt(head_dim)) v for the gradient `d_out` of its output.

    q, out, d_out, dq (batch, heads, q_len, head_dim); k, v, dk, dv (batch, kv_heads, kv_len, head_dim); statistics
    (batch, heads, q_len): log of the sum of exp of each query's scaled scores, infinite if it sees no key; in fp32 like
    `delta` and `sums`, which are working memory. All contiguous. `causal` aligns the last query with the last key.
    """
    q, k = tensors["q"], tensors["k"]
    batch, heads, q_len, head_dim = q.shape
    kv_heads, kv_len = k.shape[1:3]
    scale = 1.0 / math.sqrt(head_dim)
    width: dict[str, int] = {"HEAD_DIM": head_dim, "PADDED_DIM": padded(head_dim), "BLOCK_M": block_m}
    by_rows = (triton.cdiv(q_len, block_m), batch * heads)
    launch(
        _row_sums, by_rows, tensors["out"], tensors["d_out"], tensors["delta"], tensors["sums"], q_len, **width,
        warps=warps, stages=1,
    )  # fmt: skip
    launch(
        _backward, (triton.cdiv(kv_len, block_n), kv_heads, batch),
        q, k, tensors["v"], tensors["d_out"], tensors["statistics"], tensors["delta"], tensors["sums"], tensors["dk"],
        tensors["dv"], kv_heads, heads // kv_heads, q_len, kv_len, scale,
        **width, BLOCK_N=block_n, CAUSAL=causal, warps=warps, stages=stages,
    )  # fmt: skip
    launch(_round, by_rows, tensors["sums"], tensors["dq"], q_len, scale, **width, warps=warps, stages=1)


def unsupported(case: Case) -> str | None:
    """Why this family cannot run `case`, or None."""
    if case.dtype not in ("fp16", "bf16"):
        return f"flash_attention_backward takes fp16 or bf16, not {case.dtype}"
    if case.window:
        return "flash_attention_backward has no window"
    if case.variant:
        return f"flash_attention_backward has no variant '{case.variant}'"
    return case.lacks("block_m", "block_n", "warps", "stages")


def make_inputs(case: Case, device: str, seed: int) -> Tensors:
    """Random q, k, v, d_out, the forward pass's output and statistics, and gradients full of NaN, in one piece."""
    import torch

    q_shape = (case.batch, case.heads, case.q_len, case.head_dim)
    kv_shape = (case.batch, case.kv_heads, case.kv_len, case.head_dim)
    tensors = {
        "q": random_tensor(q_shape, case.dtype, device, seed),
        "k": random_tensor(kv_shape, case.dtype, device, seed + 1),
        "v": random_tensor(kv_shape, case.dtype, device, seed + 2),
        "d_out": random_tensor(q_shape, case.dtype, device, seed + 3),
        "out": unwritten(q_shape, case.dtype, device),
        "statistics": unwritten(q_shape[:3], "fp32", device),
        "delta": unwritten(q_shape[:3], "fp32", device),
        "sums": unwritten(q_shape, "fp32", device),
    }
    if device != "meta":
        _forward(case, tensors)
    queries, keys = math.prod(q_shape), math.prod(kv_shape)
    gradients = unwritten((queries + 2 * keys,), case.dtype, device)
    parts = torch.split(gradients, [queries, keys, keys])
    shapes = {"dq": q_shape, "dk": kv_shape, "dv": kv_shape}
    return tensors | {
        "gradients": gradients,
        **{name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)},
    }


def _forward(case: Case, tensors: Tensors) -> None:
    """Fill in the output and the statistics, a head at a time: a score matrix in fp32 is large."""
    import torch

    visible = visible_pairs(case, str(tensors["q"].device)) if case.causal else None
    for batch in range(case.batch):
        for head in range(case.heads):
            keys, values = (tensors[name][batch, head // case.group].float() for name in "kv")
            scores = tensors["q"][batch, head].float() @ keys.T / math.sqrt(case.head_dim)
            if visible is not None:
                scores.masked_fill_(~visible, float("-inf"))
            total = torch.logsumexp(scores, dim=-1)
            total = total.masked_fill(total == float("-inf"), float("inf"))
            tensors["statistics"][batch, head] = total
            tensors["out"][batch, head] = torch.exp(scores - total[:, None]) @ values


def run(case: Case, tensors: Tensors) -> Any:
    """Launch the kernels; the gradients of queries, keys and values, one behind the other."""
    flash_attention_backward(
        tensors, causal=case.causal, block_m=case.block_m, block_n=case.block_n, warps=case.warps, stages=case.stages
    )
    return tensors["gradients"]


def reference(case: Case, tensors: Tensors) -> Any:
    """The same in float64, by the formulas of FlashAttention-2's section 2.3."""
    import torch

    names = ("q", "d_out", "out", "statistics")
    q, d_out, out, statistics = (tensors[name].double() for name in names)
    k, v = (tensors[name].double().repeat_interleave(case.group, dim=1) for name in "kv")
    scale = 1.0 / math.sqrt(case.head_dim)
    weights = torch.exp(q @ k.transpose(-1, -2) * scale - statistics[..., None])
    weights = weights.masked_fill(~visible_pairs(case, str(q.device)), 0.0)
    delta = (out * d_out).sum(-1, keepdim=True)
    d_scores = weights * (d_out @ v.transpose(-1, -2) - delta) * scale
    shared = (case.batch, case.kv_heads, case.group, case.kv_len, case.head_dim)
    dk = (d_scores.transpose(-1, -2) @ q).view(shared).sum(2)
    dv = (weights.transpose(-1, -2) @ d_out).view(shared).sum(2)
    return torch.cat([part.flatten() for part in (d_scores @ k, dk, dv)])
