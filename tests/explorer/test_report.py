"""The report's data: which points it shows, what it says of them, and that it cannot be broken by a name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from explorer.executors import InProcess
from explorer.front import read_front
from explorer.report import render_report, report_document
from explorer.running import Plan, run
from explorer.store import Store

Ready = Callable[..., Plan]
BAD = {"variables": {"W": [64, 128, 256], "buffer": ["1 KiB", "16 MiB"]}, "constraints": ["energy < 20"]}


@pytest.fixture
def store(ready: Ready, tmp_path: Path) -> Any:
    """A way to sweep and to read the store."""

    def make(**changes: Any) -> Store:
        planned = ready(**changes)
        made = Store.create(tmp_path, planned.about(), planned.study.varying, tuple(planned.study.columns))
        run(planned, made, InProcess(planned.study))
        return made

    return make


def test_the_page_shows_all_points_of_a_small_sweep(store: Any) -> None:
    with store() as made:
        document = report_document(made)
        rows = [row for part in made.chunks(["W", "L", "mapping", "latency"]) for row in zip(*part, strict=True)]
    assert document["shown"] == "All points are shown."
    assert document["point"] == list(range(24))
    columns = document["columns"]
    words = columns["mapping"]["words"]
    for place, (W, L, mapping, latency) in enumerate(rows):
        assert (columns["W"]["values"][place], columns["L"]["values"][place]) == (W, L)
        assert words[columns["mapping"]["values"][place]] == mapping
        assert columns["latency"]["values"][place] == pytest.approx(latency, rel=1e-6)
    assert columns["L"]["input"] and not columns["latency"]["input"]


def test_the_front_of_the_page_is_that_of_the_store(store: Any) -> None:
    with store() as made:
        document, found = report_document(made), made.read(["latency", "W"])
    pairs = list(zip(found["latency"].tolist(), found["W"].tolist(), strict=True))
    front = {
        place
        for place, (latency, width) in enumerate(pairs)
        if not any(a <= latency and b <= width and (a, b) != (latency, width) for a, b in pairs)
    }
    assert {document["point"][row] for row in document["front"]} == front
    assert document["objectives"] == [{"name": "latency", "sign": 1.0}, {"name": "W", "sign": 1.0}]


def test_a_sample_keeps_the_front_and_the_best_and_says_so(store: Any) -> None:
    with store(variables={"W": list(range(8, 264)), "L": [4096, 8192]}, batch=512) as made:
        document = report_document(made, sample=10)
        front = read_front(made)
    shown = set(document["point"])
    assert set(front.points.tolist()) <= shown
    assert len(shown) < 1024 / 2
    assert re.fullmatch(
        rf"{len(shown)} of 1,024 points are shown, chosen at random, among them all {len(front.points)} on the Pareto "
        "front and the best in each objective.",
        document["shown"],
    )


def test_failed_and_infeasible_points_are_counted_and_not_on_the_front(store: Any) -> None:
    with store(**BAD) as made:
        document, front = report_document(made), read_front(made)
        good = set(made.read(["point"], "feasible = 1")["point"].tolist())
    assert "6 failed" in document["counts"]
    assert sum(count for count, _ in document["failures"]) == 6
    assert set(front.points.tolist()) <= good
    assert [document["point"][row] in good for row in range(len(document["point"]))] == [
        bool(value) for value in document["feasible"]
    ]


def test_leaders_are_one_of_each_group_of_equals(store: Any) -> None:
    with store(variables={"W": [64, 128], "buffer": ["16 MiB", "17 MiB"]}, objectives=["W"]) as made:
        front = read_front(made)
        assert len(front.points) == 4
        assert len(front.rows(10)) == len(front.leaders) == 1


@pytest.mark.parametrize("by", [["L"], ["L", "mapping"]])
def test_each_value_of_an_input_has_its_own_front(store: Any, by: list[str]) -> None:
    with store(front={"by": by}) as made:
        front, document = read_front(made), report_document(made)
        rows = [
            row for part in made.chunks(["point", "mapping", "W", "L", "latency"]) for row in zip(*part, strict=True)
        ]
    points = [dict(zip(("point", "mapping", "W", "L", "latency"), row, strict=True)) for row in rows]
    expected = {
        one["point"]
        for one in points
        if not any(
            all(other[name] == one[name] for name in by)
            and other["latency"] <= one["latency"]
            and other["W"] <= one["W"]
            and (other["latency"], other["W"]) != (one["latency"], one["W"])
            for other in points
        )
    }
    assert set(front.points.tolist()) == expected == {document["point"][row] for row in document["front"]}
    assert len(front.groups) == len({tuple(one[name] for name in by) for one in points}) == len(document["groups"])
    for group in front.groups:
        assert all(points[number][name] == value for number in group.points for name, value in group.values.items())
    assert "one front for each L" in document["counts"]


def test_a_page_without_objectives_has_no_front(store: Any) -> None:
    with store(objectives=[]) as made:
        document = report_document(made)
    assert document["front"] == document["best"] == []


def test_no_text_of_the_sweep_ends_the_script(store: Any) -> None:
    with store(description="</script><script>alert(1)</script>") as made:
        page = render_report(made)
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert data
    assert json.loads(data[1])["about"].startswith("</script><script>alert(1)")
    assert "alert(1)</script>" not in page


def test_the_page_asks_for_nothing_else(store: Any) -> None:
    with store() as made:
        page = render_report(made)
    assert not re.search(r"(?:src|href)\s*=|https?://|@import|url\(", page.split("{", 1)[1])
    assert "default-src 'none'" in page
