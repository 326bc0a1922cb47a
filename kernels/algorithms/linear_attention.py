"""Causal linear attention, chunk by chunk: out_i = q_i . sum over j <= i of (k_j v_j^T).

A thread block owns BLOCK_N value columns of one head and walks over the sequence in chunks of BLOCK_M queries. What
earlier chunks left is a state of head_dim x BLOCK_N in registers; inside the chunk the scores are computed and masked.
Feature maps and normalisation, where a model has them, are applied to q and k before.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from kernels.algorithms.attention import Tensors, attention_inputs, padded
from kernels.algorithms.online_softmax import load_tile
from kernels.case import Case
from kernels.launch import launch


@triton.jit(do_not_specialize=["heads", "group", "length"])
def _linear_attention(
    q_ptr, k_ptr, v_ptr, out_ptr, heads, group, length, scale,
    HEAD_DIM: tl.constexpr, PADDED_DIM: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    head = (tl.program_id(2) * heads + tl.program_id(1)).to(tl.int64)
    kv_head = (tl.program_id(2) * (heads // group) + tl.program_id(1) // group).to(tl.int64)
    q_base = q_ptr + head * length * HEAD_DIM
    k_base = k_ptr + kv_head * length * HEAD_DIM
    v_base = v_ptr + kv_head * length * HEAD_DIM
    out_base = out_ptr + head * length * HEAD_DIM
    columns = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    chunk = tl.arange(0, BLOCK_M)
    seen = chunk[:, None] >= chunk[None, :]
    state = tl.zeros((PADDED_DIM, BLOCK_N), tl.float32)
    for start in tl.range(0, length, BLOCK_M):
        rows = start + chunk
        inside = (rows[:, None] < length) & (columns[None, :] < HEAD_DIM)
        q = load_tile(q_base, rows, length, HEAD_DIM, PADDED_DIM, True)
        k = load_tile(k_base, rows, length, HEAD_DIM, PADDED_DIM, True)
        v = tl.load(v_base + rows[:, None] * HEAD_DIM + columns[None, :], mask=inside, other=0.0)
        output = tl.dot(q, state.to(q.dtype))
        scores = tl.where(seen, tl.dot(q, tl.trans(k)), 0.0)
        output = tl.dot(scores.to(v.dtype), v, output)
        state = tl.dot(tl.trans(k), v, state)
        target = out_base + rows[:, None] * HEAD_DIM + columns[None, :]
        tl.store(target, (output * scale).to(out_ptr.dtype.element_ty), mask=inside)


def linear_attention(
    q: Any, k: Any, v: Any, out: Any, *, scale: float, block_m: int, block_n: int, warps: int, stages: int
) -> None:
    """out_i = scale * q_i . sum over j <= i of k_j v_j^T.

    q, out (batch, heads, length, head_dim); k, v (batch, kv_heads, length, head_dim); all contiguous.
    """
    batch, heads, length, head_dim = q.shape
    launch(
        _linear_attention, (triton.cdiv(head_dim, block_n), heads, batch), q, k, v, out, heads, heads // k.shape[1],
        length, scale, HEAD_DIM=head_dim, PADDED_DIM=padded(head_dim), BLOCK_M=block_m, BLOCK_N=block_n, warps=warps,
        stages=stages,
    )  # fmt: skip


def unsupported(case: Case) -> str | None:
    """Why this family cannot run `case`, or None."""
    if case.dtype not in ("fp16", "bf16"):
        return f"linear_attention takes fp16 or bf16, not {case.dtype}"
    if not case.causal or case.window:
        return "linear_attention is causal and has no window"
    if case.q_len != case.kv_len:
        return f"linear_attention needs as many queries as keys, found {case.q_len} and {case.kv_len}"
    return case.lacks("block_m", "block_n", "warps", "stages")


def make_inputs(case: Case, device: str, seed: int) -> Tensors:
    """Random q, k, v and an unwritten output."""
    return attention_inputs(case, device, seed)


def _scale(case: Case) -> float:
    """1 / head_dim, which keeps the sums of normal numbers inside fp16's range."""
    return 1.0 / case.head_dim


def run(case: Case, tensors: Tensors) -> Any:
    """Launch the kernel; the output tensor."""
    linear_attention(
        tensors["q"], tensors["k"], tensors["v"], tensors["out"], scale=_scale(case), block_m=case.block_m,
        block_n=case.block_n, warps=case.warps, stages=case.stages,
    )  # fmt: skip
    return tensors["out"]


def reference(case: Case, tensors: Tensors) -> Any:
    """The same in float64, by the quadratic form."""
    q = tensors["q"].double()
    k = tensors["k"].double().repeat_interleave(case.group, dim=1)
    v = tensors["v"].double().repeat_interleave(case.group, dim=1)
    return (q @ k.transpose(-1, -2)).tril() @ v * _scale(case)
