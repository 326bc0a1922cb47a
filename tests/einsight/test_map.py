"""`einsight map`: the document, the report and the file that it writes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from tests.einsight.conftest import Run

ROWS = """
cascade: row-normalization
ranks: {m: M, p: P}
inputs: {A: [m, p]}
outputs: [B]
einsums: ["MX[m] = max(p) A[m,p]", "B[m,p] = A[m,p] - MX[m]"]
"""
PRODUCT = (
    "map",
    "--cascade",
    "matmul",
    "--architecture",
    "fusemax",
    "--set",
    "M=512",
    "--set",
    "N=384",
    "--set",
    "K=256",
)


def test_the_least_traffic_of_a_product_is_proved(run: Run) -> None:
    document = run(*PRODUCT, "--objective", "dram", "--set", "buffer=64 KiB", "--json").document
    assert document["exact"] is True
    assert document["compulsory_bytes"] == 2 * (512 * 256 + 256 * 384 + 512 * 384)
    assert document["compulsory_bytes"] <= document["lower_bound_bytes"] <= document["dram_bytes"]
    assert document["dram_traffic_bytes"] == document["dram_bytes"]
    assert document["gap_to_lower_bound"] == pytest.approx(document["dram_bytes"] / document["lower_bound_bytes"])


def test_the_written_mapping_simulates_to_the_same_numbers(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "found.yaml"
    found = run(*PRODUCT, "--out", path, "--json").document
    sizes = PRODUCT[5:]
    again = run("simulate", "--mapping", path, *sizes, "--json").document
    assert (again["latency_s"], again["energy_j"]) == (found["latency_s"], found["energy_j"])
    assert yaml.safe_load(path.read_text()) == found["mapping"]


def test_a_mapping_names_files_from_its_own_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "rows.yaml").write_text(ROWS)
    sizes = ("--set", "M=64", "--set", "P=64")
    out = tmp_path / "found" / "best.yaml"
    out.parent.mkdir()
    found = run("map", "--cascade", tmp_path / "parts" / "rows.yaml", "--architecture", "fusemax", *sizes,
                "--out", out, "--json").document  # fmt: skip
    assert found["mapping"]["cascade"] == "../parts/rows.yaml"
    for folder in (tmp_path, out.parent, tmp_path / "parts"):
        monkeypatch.chdir(folder)
        again = run("simulate", "--mapping", out, *sizes, "--json").document
        assert again["latency_s"] == found["latency_s"]
    assert "MX B" in run("show", out).out


def test_the_report_says_what_was_proved(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.yaml"
    path.write_text(ROWS)
    sizes = ("--set", "M=64", "--set", "P=64", "--set", "buffer=32")
    text = run("map", "--cascade", path, "--architecture", "fusemax", *sizes, "--objective", "dram").out
    assert "proved" in text
    assert "mapping: row-normalization-on-fusemax" in text


def test_a_front_has_no_mapping_that_another_beats(run: Run) -> None:
    document = run(*PRODUCT, "--objective", "pareto", "--json").document
    front = [(one["latency_s"], one["energy_j"]) for one in document["front"]]
    assert front == sorted(front)
    assert all(later[1] < earlier[1] for earlier, later in pairwise(front))
    json.dumps(document)


def test_nothing_is_written_when_nothing_fits(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "found.yaml"
    ran = run(*PRODUCT, "--set", "buffer=2", "--objective", "dram", "--out", path)
    assert ran.code == 2
    assert "no mapping of cascade 'matmul' fits into L3 (2 bytes)" in ran.err
    assert not path.exists()
