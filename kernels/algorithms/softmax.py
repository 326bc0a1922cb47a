"""Row-wise softmax of a matrix, optionally under attention's mask; a thread block takes BLOCK_M rows.

A row that fits BLOCK_N columns is read once. A longer row is read twice: once for its maximum and denominator (kept
online, BLOCK_N columns at a time) and once to write the result.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from kernels.algorithms.attention import LOG2_E, Tensors, random_tensor, unwritten, visible_pairs
from kernels.case import Case
from kernels.launch import launch


@triton.jit
def _masked_scores(
    row_base, rows, row_count, columns, column_count, position, window, factor,
    CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
):  # fmt: skip
    """A tile of scores times `factor`, -inf where a row does not see a column."""
    inside = (rows[:, None] < row_count) & (columns[None, :] < column_count)
    scores = tl.load(row_base[:, None] + columns[None, :], mask=inside, other=float("-inf")).to(tl.float32) * factor
    if CAUSAL:
        scores = tl.where(columns[None, :] <= position[:, None], scores, float("-inf"))
    if WINDOWED:
        scores = tl.where(columns[None, :] > position[:, None] - window, scores, float("-inf"))
        if not CAUSAL:
            scores = tl.where(columns[None, :] < position[:, None] + window, scores, float("-inf"))
    return scores


@triton.jit(do_not_specialize=["row_count", "q_len", "window"])
def _softmax(
    source_ptr, target_ptr, row_count, column_count, q_len, window, factor,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, ONE_READ: tl.constexpr, CAUSAL: tl.constexpr, WINDOWED: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    position = rows % q_len + column_count - q_len
    source = source_ptr + rows.to(tl.int64) * column_count
    target = target_ptr + rows.to(tl.int64) * column_count
    columns = tl.arange(0, BLOCK_N)
    if ONE_READ:
        scores = _masked_scores(
            source, rows, row_count, columns, column_count, position, window, factor, CAUSAL, WINDOWED
        )
        maximum = tl.max(scores, 1)
        maximum = tl.where(maximum == float("-inf"), 0.0, maximum)
        weights = tl.exp2(scores - maximum[:, None])
        total = tl.sum(weights, 1)
        weights = weights / tl.where(total > 0.0, total, 1.0)[:, None]
        inside = (rows[:, None] < row_count) & (columns[None, :] < column_count)
        tl.store(target[:, None] + columns[None, :], weights.to(target_ptr.dtype.element_ty), mask=inside)
    else:
        maximum = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        for start in tl.range(0, column_count, BLOCK_N):
            scores = _masked_scores(
                source, rows, row_count, start + columns, column_count, position, window, factor, CAUSAL, WINDOWED
            )
            new_maximum = tl.maximum(maximum, tl.max(scores, 1))
            shift = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)
            total = total * tl.exp2(maximum - shift) + tl.sum(tl.exp2(scores - shift[:, None]), 1)
            maximum = new_maximum
        maximum = tl.where(maximum == float("-inf"), 0.0, maximum)
        total = tl.where(total > 0.0, total, 1.0)
        for start in tl.range(0, column_count, BLOCK_N):
            scores = _masked_scores(
                source, rows, row_count, start + columns, column_count, position, window, factor, CAUSAL, WINDOWED
            )
            weights = tl.exp2(scores - maximum[:, None]) / total[:, None]
            inside = (rows[:, None] < row_count) & (start + columns[None, :] < column_count)
            tl.store(target[:, None] + start + columns[None, :], weights.to(target_ptr.dtype.element_ty), mask=inside)


def softmax(
    source: Any, target: Any, *, scale: float, causal: bool, window: int, q_len: int, block_m: int, block_n: int,
    warps: int, stages: int,
) -> None:  # fmt: skip
    """target = softmax(scale * source) along the last dimension; rows are queries, `q_len` of them for each head."""
    columns = source.shape[-1]
    rows = source.numel() // columns
    launch(
        _softmax, (triton.cdiv(rows, block_m),), source, target, rows, columns, q_len, window, scale * LOG2_E,
        BLOCK_M=block_m, BLOCK_N=block_n, ONE_READ=block_n >= columns, CAUSAL=causal, WINDOWED=window > 0,
        warps=warps, stages=stages,
    )  # fmt: skip


def unsupported(case: Case) -> str | None:
    """Why this family cannot run `case`, or None."""
    if case.dtype == "fp8":
        return "softmax takes fp16, bf16 or fp32, not fp8"
    return case.lacks("block_m", "block_n", "warps", "stages")


def make_inputs(case: Case, device: str, seed: int) -> Tensors:
    """Random scores (batch, heads, q_len, kv_len) and an unwritten result."""
    shape = (case.batch, case.heads, case.q_len, case.kv_len)
    return {"source": random_tensor(shape, case.dtype, device, seed), "out": unwritten(shape, case.dtype, device)}


def run(case: Case, tensors: Tensors) -> Any:
    """Launch the kernel; the output tensor."""
    softmax(
        tensors["source"], tensors["out"], scale=1.0, causal=case.causal, window=case.window, q_len=case.q_len,
        block_m=case.block_m, block_n=case.block_n, warps=case.warps, stages=case.stages,
    )  # fmt: skip
    return tensors["out"]


def reference(case: Case, tensors: Tensors) -> Any:
    """The same in float64; a row that sees nothing is zeros."""
    import torch

    scores = tensors["source"].double()
    hidden = ~visible_pairs(case, str(scores.device))
    return torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1).nan_to_num(0.0)
