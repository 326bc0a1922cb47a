"""Predictions: open tiles, formats that a GPU has, pairs under a mask, and calls that no kernel answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from architectures import Architecture
from einsum import SpecError
from kernels.case import Case
from kernels.predict import predict, visible_pairs

H100 = Architecture.load("h100-sxm").evaluate({})
A100 = Architecture.load("a100-sxm-80gb").evaluate({})
V100 = Architecture.load("v100-sxm").evaluate({})
ATTENTION = Case("flash_attention", heads=8, kv_heads=8, q_len=1024, kv_len=1024, head_dim=64, batch=2)
PRODUCT = Case("matmul", q_len=2048, kv_len=2048, head_dim=2048)


@given(st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 45))
def test_visible_pairs_are_those_of_the_mask(queries: int, keys: int, causal: bool, window: int) -> None:
    case = Case("flash_attention", q_len=queries, kv_len=keys, head_dim=8, causal=causal, window=window)
    place, key = np.arange(queries)[:, None] + keys - queries, np.arange(keys)[None, :]
    seen = np.ones((queries, keys), dtype=bool)
    if causal:
        seen &= key <= place
    if window:
        seen &= key > place - window
        seen &= key < place + window
    assert visible_pairs(case) == seen.sum()


def test_what_a_row_gives_of_its_tile_is_kept() -> None:
    for stages in (1, 2, 3):
        found = predict(replace(ATTENTION, stages=stages), H100)
        assert found.case.stages == stages
        assert found.time_s == predict(found.case, H100).time_s
    with pytest.raises(SpecError, match="shared memory"):
        predict(replace(ATTENTION, stages=77), H100)
    open_warps = predict(replace(ATTENTION, block_m=64, block_n=64), H100)
    assert (open_warps.case.block_m, open_warps.case.block_n) == (64, 64)
    assert open_warps.case.warps > 0


def test_one_group_of_all_heads_finds_a_tile() -> None:
    found = predict(Case("flash_decode", heads=32, kv_heads=1, kv_len=8192, head_dim=128), H100)
    assert found.case.block_m == 32


@pytest.mark.parametrize(
    ("kernel", "field"), [("flash_decode", "window"), ("lean_decode", "window"), ("linear_attention", "window")]
)
def test_a_window_that_a_kernel_has_not_is_refused(kernel: str, field: str) -> None:
    case = Case(kernel, heads=8, kv_heads=8, kv_len=8192, head_dim=128, **{field: 4096})
    with pytest.raises(SpecError, match=f"{kernel} has no {field}"):
        predict(case, H100)


def test_blocks_that_nobody_lists_are_asked_for() -> None:
    case = Case("block_sparse", heads=8, kv_heads=8, q_len=1024, kv_len=1024, head_dim=64)
    with pytest.raises(SpecError, match="needs a pattern, such as"):
        predict(case, H100)


def test_rates_are_those_of_the_format() -> None:
    """Whitepapers: TF32 has half the rate of fp16; the A100 has no fp8, the V100 neither bf16 nor fp8."""
    half, full = (predict(replace(PRODUCT, dtype=dtype), H100).roofline_s for dtype in ("fp16", "fp32"))
    launch = float(H100.variables["launch_latency"])
    assert full - launch == pytest.approx(2 * (half - launch))
    assert half - launch == pytest.approx(2 * 2048**3 / 989.4e12, rel=2e-3)  # the datasheet's peak
    for machine, dtype in ((A100, "fp8"), (V100, "fp8"), (V100, "bf16")):
        with pytest.raises(SpecError, match="no products of"):
            predict(replace(PRODUCT, dtype=dtype), machine)


def test_long_rows_of_no_attention_take_no_memory() -> None:
    assert predict(Case("copy", q_len=2**40), H100).time_s > 1.0


def test_a_tile_that_one_warp_cannot_hold_is_refused() -> None:
    with pytest.raises(SpecError, match=r"a thread would need 1,7\d\d registers and has 255"):
        predict(replace(ATTENTION, head_dim=128, block_m=128, block_n=128, warps=1, stages=2), H100)


@pytest.mark.parametrize("machine", ["h100-sxm", "h200-sxm"])
@pytest.mark.parametrize(
    "case",
    [
        Case("matmul", q_len=1000, kv_len=300, head_dim=512, block_m=64, block_n=64, block_k=32, warps=4, stages=4),
        Case("softmax", heads=16, q_len=257, kv_len=257, dtype="fp32"),
        Case("copy", heads=32, q_len=8192, batch=4, head_dim=128),
        Case("flash_decode", heads=32, kv_heads=8, batch=4, kv_len=32768, head_dim=128),
    ],
    ids=lambda case: case.kernel,
)
def test_a_faster_memory_slows_no_kernel_that_it_bounds(machine: str, case: Case) -> None:
    """Also where the reading between two runs, which clears the cache, would draw more than the limit by itself."""
    described = Architecture.load(machine)
    rates = {name: rate for name, rate in described.evaluate({}).variables.items() if name.startswith("dram_")}
    rates = {name: float(rate) for name, rate in rates.items() if name.endswith("_bandwidth")}
    times = [
        predict(case, described.evaluate({name: rate * more for name, rate in rates.items()})).time_s
        for more in (1.0, 1.2, 1.5, 2.0, 3.0)
    ]
    assert all(later <= sooner * 1.001 for sooner, later in pairwise(times))
