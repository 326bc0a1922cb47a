"""How fast a sweep is: a million points swept, stored and reported, and what the store and the report take of it."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from explorer.pareto import pareto_front
from explorer.running import Plan, plan
from explorer.store import Store
from explorer.study import Outcome, Task, evaluate
from explorer.sweep import Sweep

pytestmark = pytest.mark.benchmark(group="sweeps")
ROOT = Path(__file__).parents[2]
MILLION = ROOT / "docs" / "examples" / "million-points.yaml"


@pytest.fixture(scope="module")
def million() -> Plan:
    """The sweep of a million points."""
    return plan(Sweep.load(MILLION))


def test_points_a_second_on_one_core(benchmark: BenchmarkFixture, million: Plan) -> None:
    points = np.arange(400_000, 404_096)
    task = Task(0, points, million.points.inputs(points))
    benchmark.pedantic(evaluate, (million.study, task), rounds=5, warmup_rounds=1)
    rate = len(points) / benchmark.stats.stats.min
    benchmark.extra_info["points_per_s"] = rate
    assert rate > 200_000


def test_storing_a_batch_takes_a_fraction_of_the_time(
    benchmark: BenchmarkFixture, million: Plan, tmp_path: Path
) -> None:
    points = np.arange(4096)
    first = evaluate(million.study, Task(0, points, million.points.inputs(points)))
    numbers = iter(range(10_000))
    with Store.create(tmp_path, million.about(), million.study.varying, tuple(million.study.columns)) as store:

        def commit() -> None:
            batch = next(numbers)
            task = Task(batch, points + batch * 4096, first.task.inputs)
            assert store.claim(batch)
            store.commit(Outcome(task, first.keys, first.columns, first.feasible, first.errors, first.version))

        benchmark.pedantic(commit, rounds=20, warmup_rounds=1)
    assert 4096 / benchmark.stats.stats.median > 100_000


def test_the_front_of_a_million_points(benchmark: BenchmarkFixture) -> None:
    values = np.random.default_rng(0).random((1_000_000, 3))
    benchmark.pedantic(pareto_front, (values,), rounds=3)
    assert benchmark.stats.stats.median < 10


def test_a_million_points_swept_stored_and_reported(tmp_path: Path) -> None:
    start = time.perf_counter()
    command = [sys.executable, "-m", "einsight"]
    for words in (["sweep", str(MILLION), "--out", str(tmp_path), "--workers", "2"], ["report", str(tmp_path)]):
        subprocess.run([*command, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    took_s = time.perf_counter() - start
    # The largest process; the sweep is three of them.
    peak_bytes = 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    with Store.open(tmp_path) as store:
        assert store.count() == 1_000_000
    assert took_s < 60
    assert 3 * peak_bytes < 2 * 2**30


def test_points_that_fail_are_as_fast(benchmark: BenchmarkFixture) -> None:
    tile = {"from": 32, "to": 800, "step": 24}
    sweep = {
        "sweep": "tiles", "mapping": "fusemax-binding", "workload": "bert-base", "set": {"L": 5000},
        "variables": {"P1": {"from": 1, "to": 40}, "P0": tile, "M0": tile, "buffer": ["128 KiB", "1 MiB", "4 MiB"]},
        "objectives": ["latency_s", "energy_j"],
    }  # fmt: skip
    ready = plan(Sweep.parse(sweep))
    points = np.arange(ready.size)[::31][:4096]
    task = Task(0, points, ready.points.inputs(points))
    outcome = benchmark.pedantic(evaluate, (ready.study, task), rounds=5, warmup_rounds=1)
    assert 1000 < sum(error is not None for error in outcome.errors) < 3000
    assert len(points) / benchmark.stats.stats.min > 200_000
