"""Experiments: what is simulated, which numbers come out, and what a mistake in the file says."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from einsum.errors import SpecError
from explorer.experiment import Experiment, Outcome, flatten, run_experiment

TEXT = """
experiment: sizes
runs:
  - {mapping: [slow, fast], workload: model, end_to_end: [false, true], set: {L: [2, 4], W: [1, 3]}}
columns:
  latency: {value: latency_s, dimension: s}
  traffic: {value: traffic_bytes.DRAM.total.read + traffic_bytes.DRAM.total.write, dimension: bytes}
  per_key: {value: latency / L}
  speedup: {value: baseline.latency / latency, baseline: {mapping: slow}}
  doubled: {value: 2 * speedup}
tables:
  - columns: [mapping, L, latency]
"""

REFERENCE = """
reference:
  file: published.csv
  keys: {mapping: design, L: len}
  columns: {latency: ms / 1000}
"""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A simulator with a known answer, and the arguments of the calls that it has had."""
    seen: list[dict[str, Any]] = []

    def simulate(**arguments: Any) -> SimpleNamespace:
        seen.append(arguments)
        settings = arguments["settings"]
        if arguments["mapping"] == "broken":
            raise SpecError("the buffer overflows", key="keep.L3")
        work = np.asarray(settings["L"]) ** 2 * (10 if arguments["end_to_end"] else 1)
        latency = work / settings["W"] / (5 if arguments["mapping"] == "fast" else 1)
        document = {
            "latency_s": latency.tolist(),
            "bound_by": ["DRAM"] * len(latency),
            "traffic_bytes": {"DRAM": {"total": {"read": work.tolist(), "write": 7.0}}},
        }
        return SimpleNamespace(to_dict=lambda: document)

    monkeypatch.setitem(sys.modules, "simulator.simulate", SimpleNamespace(simulate=simulate))
    return seen


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Experiment]:
    def write_and_load(text: str) -> Experiment:
        path = tmp_path / "experiment.yaml"
        path.write_text(text, encoding="utf-8")
        return Experiment.load(path)

    return write_and_load


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    columns = outcome.table().columns
    return [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]


def test_lists_are_crossed_and_sizes_go_to_the_simulator_as_arrays(
    calls: list[dict[str, Any]], load: Callable[[str], Experiment]
) -> None:
    outcome = run_experiment(load(TEXT))
    assert [(call["mapping"], call["end_to_end"]) for call in calls] == [
        ("slow", False), ("slow", True), ("fast", False), ("fast", True),
    ]  # fmt: skip
    assert all(call["settings"]["L"].tolist() == [2, 2, 4, 4] for call in calls)
    assert all(call["settings"]["W"].tolist() == [1, 3, 1, 3] for call in calls)
    assert len(rows(outcome)) == 16
    assert len({(row["mapping"], row["end_to_end"], row["L"], row["W"]) for row in rows(outcome)}) == 16


def test_columns_use_inputs_results_other_columns_and_the_baseline(
    calls: list[dict[str, Any]], load: Callable[[str], Experiment]
) -> None:
    for row in rows(run_experiment(load(TEXT))):
        work = row["L"] ** 2 * (10 if row["end_to_end"] else 1)
        assert row["traffic"] == work + 7
        assert row["per_key"] == pytest.approx(row["latency"] / row["L"])
        assert row["speedup"] == pytest.approx(5 if row["mapping"] == "fast" else 1)
        assert row["doubled"] == 2 * row["speedup"]


def test_quantities_in_settings_are_read_with_their_units(
    calls: list[dict[str, Any]], load: Callable[[str], Experiment]
) -> None:
    text = TEXT.replace("L: [2, 4]", "L: [2 KiB, 1e3], mask: causal")
    run_experiment(load(text))
    assert calls[0]["settings"]["L"].tolist() == [2048, 2048, 1000, 1000]
    assert calls[0]["settings"]["mask"].tolist() == ["causal"] * 4


def test_points_are_compared_with_the_lines_that_match_them(
    calls: list[dict[str, Any]], load: Callable[[str], Experiment], tmp_path: Path
) -> None:
    lines = ["# from a paper", "design,len,ms", "slow,2,2000", "fast,4,3300", "fast,9,1", "slow,4,", ""]
    (tmp_path / "published.csv").write_text("\n".join(lines))
    text = TEXT.replace("end_to_end: [false, true], ", "").replace("W: [1, 3]", "W: 1") + REFERENCE
    outcome = run_experiment(load(text))
    found = {(row["mapping"], row["L"]): (row["latency"], row["latency_reference"]) for row in rows(outcome)}
    assert found["slow", 2] == (4.0, 2.0)
    assert found["fast", 4] == (3.2, 3.3)
    assert np.isnan([found["slow", 4][1], found["fast", 2][1]]).all()
    assert sorted(outcome.difference("latency")[~np.isnan(outcome.difference("latency"))]) == pytest.approx(
        [3.2 / 3.3 - 1, 1.0]
    )


def test_the_csv_holds_every_number_in_full(
    calls: list[dict[str, Any]], load: Callable[[str], Experiment], tmp_path: Path
) -> None:
    outcome = run_experiment(load(TEXT))
    outcome.table().write_csv(tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [float(line["latency"]) for line in lines] == outcome.points.column("latency").tolist()
    assert {line["end_to_end"] for line in lines} == {"true", "false"}
    assert {line["cascade"] for line in lines} == {""}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("columns:\n", "colums:\n"), "unknown field 'colums' (did you mean 'columns'?)"),
        (("  latency: {value", "  L: {value"), "columns: 'L' is an input already"),
        (("columns: [mapping, L, latency]", "columns: [maping]"), "tables[0].columns: unknown column 'maping'"),
        (("{mapping: slow}}", "{maping: slow}}"), "columns.speedup.baseline: unknown column 'maping'"),
        (("value: latency_s", "value: 'latency_s +'"), "columns.latency.value"),
        (("L: [2, 4]", "L: []"), "the list is empty"),
        (("runs:\n", "runs: []\nunused:\n"), "unknown field 'unused'"),
        (("experiment: sizes", "experiment: a/b"), "experiment"),
        (("dimension: bytes", "dimension: byte"), "unknown dimension 'byte'"),
    ],
)
def test_a_mistake_in_the_file_is_named_with_its_place(
    load: Callable[[str], Experiment], tmp_path: Path, change: tuple[str, str], sentence: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load(TEXT.replace(*change))
    assert str(caught.value).startswith(str(tmp_path / "experiment.yaml"))
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("value: latency_s", "value: latency"), "columns.latency: unknown name 'latency'"),
        (("DRAM.total.read", "HBM.total.read"), "columns.traffic"),
        (("{mapping: slow}}", "{mapping: slower}}"), "columns.speedup.baseline: no run has"),
        (("[slow, fast]", "[slow, broken]"), "runs[0].keep.L3: the buffer overflows"),
        (("L: [2, 4]", "L: [2, 4 parsecs]"), "set.L"),
    ],
)
def test_a_mistake_found_while_running_is_named_with_its_place(
    calls: list[dict[str, Any]], load: Callable[[str], Experiment], change: tuple[str, str], sentence: str
) -> None:
    experiment = load(TEXT.replace(*change))
    with pytest.raises(SpecError) as caught:
        run_experiment(experiment)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "published.csv: cannot be read: no such file"),
        ("design,len,ms\n", "no lines under its header"),
        ("design,length,ms\nslow,2,1\n", "the file has no column 'len' (did you mean 'length'?)"),
        ("design,len,ms\nslow,5,1\n", "no line matches a run by mapping, L"),
        ("design,len,ms\nslow,2,soon\n", "line 2"),
    ],
)
def test_a_reference_that_cannot_be_used_is_refused(
    calls: list[dict[str, Any]],
    load: Callable[[str], Experiment],
    tmp_path: Path,
    content: str | None,
    sentence: str,
) -> None:
    if content is not None:
        (tmp_path / "published.csv").write_text(content)
    experiment = load(TEXT + REFERENCE)
    with pytest.raises(SpecError) as caught:
        run_experiment(experiment)
    assert sentence in str(caught.value)


def test_progress_counts_the_simulator_calls(calls: list[dict[str, Any]], load: Callable[[str], Experiment]) -> None:
    seen: list[tuple[int, int]] = []
    run_experiment(load(TEXT), lambda done, total: seen.append((done, total)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_result_becomes_one_array_of_the_points_for_each_dotted_name() -> None:
    document = {"a": {"b": [1, 2], "area": None}, "c": 3.0, "other": [1, 2, 3], "words": ["x", "y"], "text": "z"}
    assert {name: cells.tolist() for name, cells in flatten(document, 2).items()} == {
        "a.b": [1, 2], "c": [3, 3], "words": ["x", "y"], "text": ["z", "z"],
    }  # fmt: skip


def test_files_that_runs_name_lie_beside_the_experiment(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("cascade: own")
    (tmp_path / "sizes.yaml").write_text(
        "experiment: sizes\nruns: [{cascade: own.yaml, mapping: [flat, absent.yaml], workload: bert-base}]\n"
        "columns: {latency: {value: latency_s}}\n"
    )
    (run,) = Experiment.load(tmp_path / "sizes.yaml").runs
    assert (run.cascade, run.mapping) == (str(tmp_path / "own.yaml"), ["flat", "absent.yaml"])
