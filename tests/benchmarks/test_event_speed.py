"""How fast the event evaluator is once it is compiled: a million tile steps, and a stream too long to run whole."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pytest_benchmark.fixture import BenchmarkFixture

from mappings.program import Dependence, Phase, Resource, Step, Stream, TileProgram
from simulator.event import simulate_events

pytestmark = pytest.mark.benchmark(group="event evaluator")


def program(tiles: int, instances: int = 1, cores: int = 1) -> TileProgram:
    """Attention's loop over keys: load, two products around a softmax, a buffer of two tiles, a running maximum."""
    steps = (
        Step("load", "memory", 0.5, 0.8, (Dependence("scores", 2),)),
        Step("scores", "tensor", 1.0, 0.1, (Dependence("load"),)),
        Step("softmax", "vector", 1.5, 0.1, (Dependence("scores"), Dependence("softmax", 1))),
        Step("values", "tensor", 1.0, 0.1, (Dependence("softmax"),)),
    )

    def order(point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
        return np.zeros(tiles if limit is None else min(tiles, limit), dtype=np.int32)

    return TileProgram(
        phases=(Phase("attention", (Stream("keys", steps, np.array([[float(tiles)]]), order, instances, slots=2),)),),
        resources={
            "memory": Resource("memory"),
            "tensor": Resource("tensor", cores),
            "vector": Resource("vector", cores),
        },
        points=1,
        energy_j={},
        peak_per_s={},
        clock_hz=np.ones((1, 1)),
    )


@pytest.mark.parametrize(
    ("whole", "limit_s"),
    [(program(250_000), 0.5), (program(250, instances=1000, cores=132), 1.0), (program(10**10), 2.0)],
    ids=["a million tile steps", "a million in thread blocks", "ten billion tiles"],
)
def test_event_speed(benchmark: BenchmarkFixture, whole: TileProgram, limit_s: float) -> None:
    result = benchmark.pedantic(simulate_events, (whole,), rounds=5, warmup_rounds=1)
    assert result.latency_s > 0
    assert benchmark.stats.stats.median < limit_s
