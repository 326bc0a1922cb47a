"""How fast the analytic evaluator is: ten thousand design points of FuseMax in one call."""

from __future__ import annotations

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from simulator.simulate import simulate

pytestmark = pytest.mark.benchmark(group="analytic evaluator")

POINTS = 10_000
LIMIT_S = 1.0


@pytest.mark.parametrize("mapping", ["fusemax-binding", "fusemax-architecture", "fusemax-cascade"])
@pytest.mark.parametrize("lengths", ["round", "any"])
def test_ten_thousand_designs(benchmark: BenchmarkFixture, mapping: str, lengths: str) -> None:
    random = np.random.default_rng(0)
    length = 256 * random.integers(1, 257, POINTS) if lengths == "round" else random.integers(1, 65537, POINTS)
    settings = {
        "L": length.astype(float),
        "W": np.full(POINTS, 256.0) if lengths == "round" else random.choice([64.0, 128.0, 256.0, 512.0], POINTS),
        "dram_bandwidth": random.uniform(1e10, 1e12, POINTS),
        "div_cycles": random.integers(1, 9, POINTS).astype(float),
    }
    result = benchmark.pedantic(
        simulate, kwargs={"mapping": mapping, "workload": "bert-base", "settings": settings}, rounds=5, warmup_rounds=1
    )
    assert result.latency_s.shape == (POINTS,)
    assert benchmark.stats.stats.median < LIMIT_S
