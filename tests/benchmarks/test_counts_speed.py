"""How long exact operation counts take: masks over 65,536 x 65,536 points, and 10,000 sizes at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from einsum.cascade import Cascade
from einsum.counts import count_operations

pytestmark = pytest.mark.benchmark(group="operation counts")

SIZES = {"B": 64, "H": 16, "E": 128, "F": 128}


@pytest.mark.parametrize("mask", ["m <= p", "m <= p and p - m < 4096"], ids=["causal", "window"])
def test_masked_counts(benchmark: Any, mask: str) -> None:
    cascade = Cascade.load("attention-1pass").with_condition(mask)
    benchmark(count_operations, cascade, {**SIZES, "P": 65536, "M": 65536})
    assert benchmark.stats.stats.median < 0.1


def test_ten_thousand_sizes(benchmark: Any) -> None:
    lengths = np.random.default_rng(0).integers(1, 10**6, 10_000)
    benchmark(count_operations, Cascade.load("attention-1pass"), {**SIZES, "P": lengths, "M": lengths})
    assert benchmark.stats.stats.median < 0.2
