"""Every kernel computes what its definition says, on shapes that no tile divides."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from kernels.case import KERNELS, Case
from kernels.check import TOLERANCE, random_case, relative_error
from kernels.families import family

TILE: dict[str, Any] = {"block_m": 32, "block_n": 32, "warps": 4, "stages": 2}
LONGEST = {"softmax": 24, "copy": 60}


def small(kernel: str, seed: int) -> Case:
    """A random case that the interpreter runs in a moment; it has no bf16 matrix product, so fp16."""
    draw = random.Random(seed)
    case = random_case(kernel, draw, LONGEST.get(kernel, 90))
    decode = kernel in ("flash_decode", "lean_decode")
    return replace(
        case,
        dtype="fp16",
        head_dim=min(case.head_dim, 80),
        block_m=16 if decode else min(case.block_m, 32),
        block_n=min(case.block_n, 1024 if kernel in ("softmax", "copy") else 64),
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kernel", KERNELS)
def test_random_ragged_shapes_agree_with_float64(kernel: str, seed: int, device: str) -> None:
    case = small(kernel, seed)
    assert family(kernel).unsupported(case) is None
    assert relative_error(case, device, seed) <= TOLERANCE[case.dtype]


MASKS = [
    {"q_len": 70, "kv_len": 130},
    {"q_len": 70, "kv_len": 130, "causal": True},
    {"q_len": 130, "kv_len": 70, "causal": True},
    {"q_len": 100, "kv_len": 100, "causal": True, "window": 20},
    {"q_len": 130, "kv_len": 70, "causal": True, "window": 7},
    {"q_len": 90, "kv_len": 120, "window": 20},
    {"q_len": 64, "kv_len": 64, "causal": True, "window": 1},
    {"q_len": 1, "kv_len": 77, "causal": True},
]


@pytest.mark.parametrize("mask", MASKS, ids=str)
def test_masks_windows_and_grouped_heads(mask: dict[str, Any], device: str) -> None:
    case = Case("flash_attention", heads=4, kv_heads=2, head_dim=40, **mask, **TILE)
    assert relative_error(case, device, 0) <= TOLERANCE["fp16"]


@pytest.mark.parametrize("mask", [mask for mask in MASKS if "window" not in mask], ids=str)
@pytest.mark.parametrize("block_m, block_n", [(32, 32), (16, 64), (64, 16)])
def test_gradients_under_masks_with_grouped_heads(
    mask: dict[str, Any], block_m: int, block_n: int, device: str
) -> None:
    tile = {**TILE, "block_m": block_m, "block_n": block_n}
    case = Case("flash_attention_backward", heads=4, kv_heads=2, head_dim=40, **mask, **tile)
    assert relative_error(case, device, 0) <= TOLERANCE["fp16"]


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_those_of_automatic_differentiation(causal: bool, device: str) -> None:
    import torch

    shape: dict[str, Any] = {"heads": 4, "kv_heads": 2, "q_len": 50, "kv_len": 50, "head_dim": 24, "causal": causal}
    case = Case("flash_attention_backward", **shape, **TILE)
    kernels = family(case.kernel)
    tensors = kernels.make_inputs(case, device, 3)
    found = kernels.run(case, tensors).double()
    q, k, v = (tensors[name].double().requires_grad_() for name in "qkv")
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
    expected = torch.autograd.grad(out, (q, k, v), tensors["d_out"].double())
    sizes = [gradient.numel() for gradient in expected]
    for gradient, part in zip(expected, torch.split(found, sizes), strict=True):
        error = torch.linalg.vector_norm(part - gradient.flatten()) / torch.linalg.vector_norm(gradient)
        assert error <= 2 * TOLERANCE["fp16"]  # the forward pass's output is rounded, too


def test_keys_behind_the_last_do_not_reach_the_gradients(device: str) -> None:
    """Their scores are 0: where all others are far below, exp(0 - statistics) is no number."""
    case = Case("flash_attention_backward", q_len=40, kv_len=40, head_dim=32, **TILE)
    kernels = family(case.kernel)
    tensors = kernels.make_inputs(case, device, 0)
    tensors["q"].fill_(8.0)
    tensors["k"].fill_(-8.0)
    tensors["statistics"].fill_(-64.0 * 32 / 32**0.5 + 3.7)
    assert kernels.run(case, tensors).isfinite().all()


@pytest.mark.parametrize("mask", MASKS[2:4], ids=str)
def test_unfused_attention_masks_in_its_softmax(mask: dict[str, Any], device: str) -> None:
    case = Case("unfused", heads=2, kv_heads=1, head_dim=40, **mask, **TILE)
    assert relative_error(case, device, 0) <= TOLERANCE["fp16"]


@pytest.mark.parametrize("block_m, block_n", [(16, 64), (64, 16), (32, 128)])
def test_the_tile_does_not_change_the_result(block_m: int, block_n: int, device: str) -> None:
    tile = {**TILE, "block_m": block_m, "block_n": block_n}
    for kernel, pattern in (("flash_attention", ""), ("block_sparse", "local-1+random-1@128")):
        case = Case(kernel, heads=2, q_len=140, kv_len=140, head_dim=32, causal=True, pattern=pattern, **tile)
        assert relative_error(case, device, 0) <= TOLERANCE["fp16"]


def test_a_query_without_keys_gets_zeros(device: str) -> None:
    case = Case("flash_attention", q_len=50, kv_len=20, head_dim=32, causal=True, **TILE)
    kernels = family(case.kernel)
    tensors = kernels.make_inputs(case, device, 0)
    result = kernels.run(case, tensors)
    assert result[:, :, :30].abs().max() == 0
    assert result[:, :, 30:].abs().min() > 0


@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 8, 13, 60])
def test_stream_k_runs_may_begin_and_end_anywhere(blocks: int, device: str) -> None:
    case = Case("lean_decode", batch=2, heads=6, kv_heads=2, kv_len=300, head_dim=32, splits=blocks,
                block_m=16, block_n=32, warps=4, stages=2)  # fmt: skip
    assert relative_error(case, device, blocks) <= TOLERANCE["fp16"]


def test_a_lean_tile_shrinks_with_the_head_dimension(device: str) -> None:
    from kernels.algorithms.lean_decode import lean_tile

    assert [lean_tile(dim) for dim in (32, 64, 96, 128, 192, 256)] == [256, 256, 128, 128, 64, 64]


def test_more_splits_than_tiles(device: str) -> None:
    case = Case("flash_decode", heads=4, kv_heads=1, kv_len=40, head_dim=64, splits=9,
                block_m=16, block_n=16, warps=4, stages=2)  # fmt: skip
    assert relative_error(case, device, 0) <= TOLERANCE["fp16"]


def test_a_softmax_row_is_read_once_or_twice(device: str) -> None:
    for block_n in (128, 32):
        tile = {**TILE, "block_m": 2, "block_n": block_n}
        case = Case("softmax", dtype="fp32", q_len=5, kv_len=100, causal=True, **tile)
        assert relative_error(case, device, 0) <= TOLERANCE["fp32"]


def test_fp8_matrix_products(device: str) -> None:
    case = Case("matmul", dtype="fp8", q_len=40, kv_len=50, head_dim=70, block_k=32, **TILE)
    assert relative_error(case, device, 0) <= TOLERANCE["fp8"]


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", KERNELS)
def test_bf16_on_a_gpu(kernel: str, device: str) -> None:
    # Triton's interpreter multiplies the bits of bf16 numbers, so only a GPU can tell.
    assert relative_error(replace(small(kernel, 7), dtype="bf16"), device, 7) <= TOLERANCE["bf16"]


@pytest.mark.parametrize("causal", [False, True])
def test_the_reference_agrees_with_torch(causal: bool, device: str) -> None:
    import torch

    case = Case("flash_attention", heads=4, kv_heads=2, q_len=33, kv_len=33, head_dim=24, causal=causal, **TILE)
    kernels = family(case.kernel)
    tensors = kernels.make_inputs(case, "cpu", 3)
    q, k, v = (tensors[name].double() for name in "qkv")
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
    torch.testing.assert_close(kernels.reference(case, tensors), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "case, reason",
    [
        (Case("flash_attention", dtype="fp32", q_len=8, kv_len=8, head_dim=16, **TILE), "fp16 or bf16"),
        (Case("flash_attention", q_len=8, kv_len=8, head_dim=16, variant="magic", **TILE), "variants"),
        (Case("flash_attention", q_len=8, kv_len=8, head_dim=16), "needs block_m, block_n, warps, stages"),
        (Case("flash_attention_backward", q_len=8, kv_len=8, head_dim=16, window=4, **TILE), "no window"),
        (Case("flash_attention_backward", q_len=8, kv_len=8, head_dim=16, variant="split", **TILE), "no variant"),
        (Case("flash_decode", q_len=2, kv_len=8, head_dim=16, splits=1, **TILE), "one query"),
        (Case("lean_decode", q_len=1, kv_len=8, head_dim=16, **TILE), "splits"),
        (Case("lean_decode", heads=64, kv_len=8, head_dim=16, splits=1, **TILE), "block_m of at least 64"),
        (Case("linear_attention", q_len=8, kv_len=8, head_dim=16, **TILE), "causal"),
        (Case("block_sparse", q_len=8, kv_len=8, head_dim=16, pattern="local-1@48", **TILE), "divide"),
        (Case("block_sparse", q_len=8, kv_len=8, head_dim=16, **TILE), "pattern"),
        (Case("matmul", q_len=8, kv_len=8, head_dim=16, **TILE), "block_k"),
        (Case("unfused", q_len=8, kv_len=8, head_dim=16, variant="both", **TILE), "variants"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kernel,
)
def test_what_a_kernel_cannot_do_has_a_reason(case: Case, reason: str, device: str) -> None:
    assert reason in str(family(case.kernel).unsupported(case))
