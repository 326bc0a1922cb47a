"""How long a trace of 11,000 rows takes, from its CSV file to the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator.trace_run import simulate_trace
from workloads import HeadTrace, Workload

pytestmark = pytest.mark.benchmark(group="traces")

LIMIT_S = 5.0
ROWS = 11_100


def test_trace_of_eleven_thousand_rows(benchmark: Any, tmp_path: Path) -> None:
    workload = Workload.load("gpt2-medium")
    source = workload.head_trace({})
    rows = np.resize(np.repeat(np.arange(len(source)), source.columns["count"].astype(int)), ROWS)
    columns = {name: cells[rows] for name, cells in source.columns.items()}
    HeadTrace.of({**columns, "count": np.ones(ROWS)}).save(tmp_path / "long.csv")
    benchmark.pedantic(simulate_trace, args=(tmp_path / "long.csv",), kwargs={"architecture": "spatten"}, rounds=3)
    assert benchmark.stats.stats.median < LIMIT_S
