"""A small sweep that is quick to evaluate, and ways to run it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from explorer.executors import Executor, InProcess
from explorer.running import Plan, plan, run
from explorer.store import Store
from explorer.sweep import Sweep

SMALL: dict[str, Any] = {
    "sweep": "small",
    "mapping": ["fusemax-architecture", "fusemax-binding"],
    "workload": "bert-base",
    "variables": {"W": [64, 128, 256], "L": {"from": 1024, "to": 8192, "scale": "log2"}},
    "columns": {
        "latency": {"value": "latency_s", "dimension": "s"},
        "energy": {"value": "energy_j", "dimension": "j"},
        "limit": {"value": "bound_by"},
    },
    "objectives": ["latency", "W"],
    "batch": 5,
}

Ready = Callable[..., Plan]
Rows = dict[int, tuple[Any, ...]]


@pytest.fixture
def ready() -> Ready:
    """The plan of the small sweep, with some fields of it changed."""

    def make(**changes: Any) -> Plan:
        return plan(Sweep.parse({**SMALL, **changes}))

    return make


def stored(store: Store) -> Rows:
    """Every stored point: number -> all its columns."""
    return {row[0]: row[1:] for part in store.chunks(store.names()) for row in zip(*part, strict=True)}


@pytest.fixture
def rows() -> Callable[[Store], Rows]:
    """A way to read every stored point."""
    return stored


@pytest.fixture
def swept(tmp_path: Path) -> Callable[..., Rows]:
    """Run a plan in a folder of its own, or in `folder`, and read back every point."""
    number = 0

    def sweep(planned: Plan, executor: Executor | None = None, folder: Path | None = None) -> Rows:
        nonlocal number
        number += 1
        place = folder or tmp_path / f"swept-{number}"
        place.mkdir(exist_ok=True)
        with Store.create(place, planned.about(), planned.study.varying, tuple(planned.study.columns)) as store:
            run(planned, store, executor or InProcess(planned.study))
            return stored(store)

    return sweep
