"""`einsight run`, and the experiment of the main job against the published table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from explorer.experiment import Experiment, Outcome, run_experiment
from tests.einsight.conftest import Run

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "fusemax-bert.yaml"


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return run_experiment(Experiment.load(EXAMPLE))


def largest(outcome: Outcome, column: str, end_to_end: bool) -> float:
    chosen = outcome.points.column("end_to_end").astype(bool) == end_to_end
    differences = np.abs(outcome.difference(column)[chosen])
    assert np.isfinite(differences).sum() == 30
    return float(differences.max())


def test_the_main_job_covers_five_designs_and_six_lengths_twice(outcome: Outcome) -> None:
    assert len(outcome.points) == 5 * 6 * 2
    assert len(set(outcome.points.keys())) == 60


@pytest.mark.parametrize(
    ("column", "limit"),
    [
        ("latency", 1e-3), ("dram_traffic", 1e-3), ("utilization_2d", 1e-3), ("utilization_1d", 1e-3),
        ("energy_without_registers", 1e-2),
    ],
)  # fmt: skip
def test_attention_meets_the_published_values(outcome: Outcome, column: str, limit: float) -> None:
    assert largest(outcome, column, end_to_end=False) <= limit


@pytest.mark.parametrize("column", ["latency", "dram_traffic", "energy_without_registers"])
def test_a_whole_layer_meets_the_published_values(outcome: Outcome, column: str) -> None:
    assert largest(outcome, column, end_to_end=True) <= 5e-3


def test_register_files_are_charged_for_all_processing_elements(outcome: Outcome) -> None:
    assert (outcome.points.column("energy") > 1.05 * outcome.points.column("energy_without_registers")).all()


def test_the_report_the_numbers_and_the_figures_are_written(run: Run, tmp_path: Path) -> None:
    ran = run("run", EXAMPLE, "--out", tmp_path / "out")
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 100
    assert "Largest differences from published" in ran.out
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["fusemax-bert.csv", "speedup-energy.png", "utilization.png"]
    assert [line.split("/")[-1] for line in sorted(ran.err.splitlines())] == written
    with (tmp_path / "out" / "fusemax-bert.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == 60
    assert all((tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG") for name in written if ".png" in name)


def test_json_is_one_document_with_every_point(run: Run) -> None:
    document = run("run", EXAMPLE, "--json").document
    assert document["experiment"] == "fusemax-bert"
    assert len(document["points"]) == 60
    assert {"mapping", "L", "latency", "latency_reference", "latency_difference"} <= document["points"][0].keys()


def test_nothing_is_left_when_an_experiment_fails(run: Run, tmp_path: Path) -> None:
    text = EXAMPLE.read_text().replace("file: data/fusemax-bert-published.csv", "file: missing.csv")
    (tmp_path / "broken.yaml").write_text(text)
    ran = run("run", tmp_path / "broken.yaml", "--out", tmp_path / "a" / "b")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"einsight: {tmp_path / 'missing.csv'}: cannot be read")
    assert [path.name for path in tmp_path.iterdir()] == ["broken.yaml"]
