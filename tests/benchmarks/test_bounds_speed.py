"""Speed of bounds: 200 memory sizes for 65536 tokens, the whole report and the finite-range bound alone."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bounds import analyse, lower_bound, read_problem
from einsum import Cascade

pytestmark = pytest.mark.benchmark
SIZES = {"B": 1, "H": 1, "P": 65536, "M": 65536, "E": 128, "F": 128}
MEMORY = np.geomspace(1000, 3e7, 200)


@pytest.mark.parametrize("mask", [None, "causal", "window:4096"])
def test_two_hundred_memories_with_schedules_in_three_seconds(benchmark: BenchmarkFixture, mask: str | None) -> None:
    names = ("flash-attention-1", "flash-attention-2", "flat", "unfused")
    benchmark.pedantic(
        analyse, ("attention-1pass", SIZES, MEMORY), {"mask": mask, "schedules": names}, rounds=3, warmup_rounds=1
    )
    assert benchmark.stats.stats.min < 3.0


@pytest.mark.parametrize("mask", [None, "causal"])
def test_the_finite_range_bound_at_two_hundred_memories_in_one_second(
    benchmark: BenchmarkFixture, mask: str | None
) -> None:
    problem = read_problem(Cascade.load("attention-1pass"), SIZES, mask)
    benchmark.pedantic(lower_bound, (problem, MEMORY), rounds=3, warmup_rounds=1)
    assert benchmark.stats.stats.min < 1.0
