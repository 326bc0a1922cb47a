"""What the attention families share on the host: inputs, masks and the float64 reference."""

from __future__ import annotations

import math
from typing import Any

from kernels.case import Case

Tensors = dict[str, Any]
LOG2_E = math.log2(math.e)
_TORCH_TYPES = {"fp8": "float8_e4m3fn", "fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


def torch_type(dtype: str) -> Any:
    """The torch type of a case's dtype."""
    import torch

    return getattr(torch, _TORCH_TYPES[dtype])


def padded(head_dim: int) -> int:
    """Columns of a tile that holds `head_dim` ones: the next power of two, at least 16 (the matrix units' step)."""
    return max(16, 1 << (head_dim - 1).bit_length())


def log2_scale(head_dim: int) -> float:
    """1 / sqrt(head_dim), times log2(e) for exponentials that are powers of two."""
    return LOG2_E / math.sqrt(head_dim)


def random_tensor(shape: tuple[int, ...], dtype: str, device: str, seed: int) -> Any:
    """Standard normal numbers, rounded to `dtype`; on the `meta` device a tensor without numbers."""
    import torch

    if device == "meta":
        return torch.empty(shape, dtype=torch_type(dtype), device=device)
    generator = torch.Generator(device=device).manual_seed(seed)
    drawn = torch.float32 if dtype == "fp8" else torch_type(dtype)
    return torch.randn(shape, generator=generator, dtype=drawn, device=device).to(torch_type(dtype))


def unwritten(shape: tuple[int, ...], dtype: str, device: str) -> Any:
    """A tensor full of NaN, which shows every element that a kernel forgets to write."""
    import torch

    return torch.full(shape, float("nan"), dtype=torch_type(dtype), device=device)


def attention_inputs(case: Case, device: str, seed: int) -> Tensors:
    """q, k, v of `case` and an unwritten `out`."""
    q_shape = (case.batch, case.heads, case.q_len, case.head_dim)
    kv_shape = (case.batch, case.kv_heads, case.kv_len, case.head_dim)
    return {
        "q": random_tensor(q_shape, case.dtype, device, seed),
        "k": random_tensor(kv_shape, case.dtype, device, seed + 1),
        "v": random_tensor(kv_shape, case.dtype, device, seed + 2),
        "out": unwritten(q_shape, case.dtype, device),
    }


def visible_pairs(case: Case, device: str) -> Any:
    """Boolean (q_len, kv_len): which keys each query sees under the causal mask and the window."""
    import torch

    positions = torch.arange(case.q_len, device=device)[:, None] + case.kv_len - case.q_len
    keys = torch.arange(case.kv_len, device=device)[None, :]
    visible = torch.ones(case.q_len, case.kv_len, dtype=torch.bool, device=device)
    if case.causal:
        visible &= keys <= positions
    if case.window:
        visible &= keys > positions - case.window
        visible &= keys < positions + case.window
    return visible


def attention_reference(case: Case, tensors: Tensors, visible: Any = None) -> Any:
    """Softmax attention in float64; a query that sees no key gets zeros. `visible` defaults to the case's own mask."""
    import torch

    q = tensors["q"].double()
    k = tensors["k"].double().repeat_interleave(case.group, dim=1)
    v = tensors["v"].double().repeat_interleave(case.group, dim=1)
    if visible is None:
        visible = visible_pairs(case, str(q.device))
    scores = (q @ k.transpose(-1, -2)) / math.sqrt(case.head_dim)
    scores = scores.masked_fill(~visible, float("-inf"))
    return torch.softmax(scores, dim=-1).nan_to_num(0.0) @ v
