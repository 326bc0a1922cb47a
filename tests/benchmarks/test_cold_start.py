"""How long the command takes from a cold start: a new Python process for every round."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

pytestmark = pytest.mark.benchmark(group="cold start")


@pytest.mark.parametrize(
    ("arguments", "limit_s"),
    [
        (["--help"], 0.3),
        (["simulate", "--mapping", "fusemax-binding", "--workload", "xlm", "--set", "L=65536"], 1.0),
        (["simulate", "--mapping", "flat", "--workload", "bert-base", "--end-to-end", "--json"], 1.0),
    ],
    ids=["help", "simulate", "simulate end to end"],
)
def test_cold_start(benchmark: BenchmarkFixture, arguments: list[str], limit_s: float) -> None:
    def start() -> None:
        subprocess.run([sys.executable, "-m", "einsight", *arguments], check=True, stdout=subprocess.DEVNULL)

    benchmark.pedantic(start, rounds=7, warmup_rounds=1)
    assert benchmark.stats.stats.median < limit_s
