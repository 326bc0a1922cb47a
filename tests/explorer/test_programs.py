"""Large sweeps run on point programs: the results are those of sweeps without, whatever the points are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from explorer import running
from explorer.running import Plan
from explorer.study import Outcome, Task, evaluate

Ready = Callable[..., Plan]
TILES = {
    "mapping": "fusemax-binding",
    "set": {"L": 3000},
    "batch": 4096,
    "variables": {
        "P1": {"from": 1, "to": 30},
        "P0": {"from": 32, "to": 800, "step": 96},
        "M0": {"from": 32, "to": 800, "step": 96},
        "buffer": ["128 KiB", "1 MiB", "4 MiB"],
    },
    "constraints": ["latency <= 100 ms"],
    "objectives": ["latency"],
}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs for small sweeps too."""
    monkeypatch.setattr(running, "FEWEST_POINTS", 1)


def both(planned: Plan, count: int) -> tuple[Outcome, Outcome]:
    """Some points with and without programs."""
    assert isinstance(planned.points, running.Sample)
    points = np.sort(np.random.default_rng(5).choice(planned.size, min(count, planned.size), replace=False))
    task = Task(0, points, planned.points.inputs(points))
    return evaluate(planned.study, task), evaluate(replace(planned.study, programs={}), task)


def assert_alike(found: Outcome, expected: Outcome) -> None:
    assert found.errors == expected.errors
    assert found.feasible == expected.feasible
    assert found.keys == expected.keys
    for name, cells in expected.columns.items():
        if cells.dtype == object:
            assert found.columns[name].tolist() == cells.tolist()
        else:
            # In another company of points sums over tile classes end on other last bits.
            np.testing.assert_allclose(found.columns[name], cells, rtol=1e-14)


@pytest.mark.usefixtures("eager")
def test_tiles_that_fit_and_tiles_that_do_not(ready: Ready) -> None:
    planned = ready(**TILES)
    (programs,) = planned.study.programs.values()
    assert any(program.failure for program in programs) and any(not program.failure for program in programs)
    found, expected = both(planned, 60)
    assert_alike(found, expected)
    failed = sum(error is not None for error in found.errors)
    assert 5 < failed < 55 and any("L3 overflows by" in str(error) for error in found.errors)
    assert False in found.feasible and True in found.feasible


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mapping": ["unfused", "fusemax-binding"], "columns": {"x": {"value": "traffic_bytes.DRAM.QK.read"}}},
        {"end_to_end": [True, False]},
        {"columns": {"x": {"value": "1 / (W - 128)"}}},
        {"columns": {"y": {"value": "1 if bound_by == 'array_1d' else latency_s"}}, "constraints": ["y < 1"]},
        {"set": {"H": 0}},
        {"columns": {}, "objectives": []},
    ],
)
def test_other_sweeps(ready: Ready, changes: dict[str, Any]) -> None:
    planned = ready(**{"objectives": [], **changes})
    assert planned.study.programs
    assert_alike(*both(planned, 100))


def test_programs_are_made_where_they_pay(ready: Ready) -> None:
    assert not ready().study.programs
    large = {"variables": {"W": {"from": 8, "to": 1007}, "L": {"from": 1, "to": 20}}}
    assert all(ready(**large).study.programs.values())
    assert not ready(**large, fidelity="event").study.programs


@pytest.mark.usefixtures("eager")
def test_a_plan_makes_the_same_programs_again(ready: Ready) -> None:
    first, again = (list(ready(**TILES).study.programs.values()) for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert len(one) == len(other)
        assert all(np.array_equal(a.code, b.code) and a.texts == b.texts for a, b in zip(one, other, strict=True))
