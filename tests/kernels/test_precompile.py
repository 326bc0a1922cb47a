"""Kernels are compiled once for all the cases that share them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kernels.case import Case
from kernels.precompile import kernel_key

FLASH = Case("flash_attention", batch=4, heads=16, kv_heads=16, q_len=2048, kv_len=2048, head_dim=128, block_m=64,
             block_n=64, warps=4, stages=3)  # fmt: skip
MATMUL = Case("matmul", q_len=2048, kv_len=2048, head_dim=2048, block_m=64, block_n=64, block_k=64, warps=4, stages=3)
SOFTMAX = Case("softmax", q_len=100, kv_len=4096, block_m=1, block_n=4096, warps=4, stages=2)


@pytest.mark.parametrize(
    "case, change",
    [
        (FLASH, {"batch": 1, "heads": 8, "kv_heads": 4}),
        (FLASH, {"q_len": 16384, "kv_len": 16384}),
        (replace(FLASH, causal=True, window=100), {"window": 1000}),
        (MATMUL, {"q_len": 4096, "head_dim": 1024}),
    ],
)
def test_sizes_do_not_make_another_kernel(case: Case, change: dict[str, int]) -> None:
    assert kernel_key(replace(case, **change)) == kernel_key(case)


@pytest.mark.parametrize(
    "case, change",
    [
        (FLASH, {"head_dim": 64}),
        (FLASH, {"block_n": 32}),
        (FLASH, {"stages": 2}),
        (FLASH, {"window": 100}),
        (FLASH, {"kv_len": 2047}),
        (MATMUL, {"head_dim": 2000}),
        (MATMUL, {"head_dim": 2001}),
        (SOFTMAX, {"kv_len": 8192}),
    ],
)
def test_constants_and_alignment_do(case: Case, change: dict[str, int]) -> None:
    assert kernel_key(replace(case, **change)) != kernel_key(case)


@pytest.mark.parametrize("case", [FLASH, MATMUL, SOFTMAX])
def test_the_small_case_can_run_where_the_case_can(case: Case, device: str) -> None:
    from kernels.families import family

    assert family(case.kernel).unsupported(kernel_key(case)) is None
