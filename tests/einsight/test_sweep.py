"""`einsight sweep` and `einsight report`: what they print, write and refuse."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from explorer import executors
from explorer.store import FILE
from tests.einsight.conftest import Run

SPEC = """
sweep: tiny
mapping: [fusemax-architecture, fusemax-binding]
workload: bert-base
variables: {W: [64, 128], L: [1024, 4096]}
columns: {latency: {value: latency_s, dimension: s}}
objectives: [latency, W]
"""
EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A sweep of eight points."""
    path = tmp_path / "tiny.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return path


def test_a_sweep_and_the_same_command_again(run: Run, spec: Path, tmp_path: Path) -> None:
    first, again = (run("sweep", spec, "--out", tmp_path / "out", "--json") for _ in range(2))
    assert (first.code, again.code) == (0, 0)
    assert (first.document["points"], first.document["added"], again.document["added"]) == (8, 8, 0)
    assert first.document["objectives"] == {"latency": "minimize", "W": "minimize"}
    assert first.document["front"] == again.document["front"] != []
    text = run("sweep", spec, "--out", tmp_path / "out").out
    assert "8, 0 of them new" in text and "Pareto front for latency and W" in text


def test_a_dry_run_counts_and_writes_nothing(run: Run, spec: Path, tmp_path: Path) -> None:
    forecast = run("sweep", spec, "--out", tmp_path / "out", "--dry-run", "--json").document
    assert (forecast["points"], forecast["stored"], forecast["space"]) == (8, 0, 8)
    assert forecast["estimated_s"] == pytest.approx(8 * forecast["seconds_per_point"])
    assert not (tmp_path / "out").exists()
    run("sweep", spec, "--out", tmp_path / "out")
    assert run("sweep", spec, "--out", tmp_path / "out", "--dry-run", "--json").document["stored"] == 8
    assert "8 to evaluate (grid)" in run("sweep", spec, "--dry-run").out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("W: [64, 128]", "W: []", "tiny.yaml: variables.W: the list is empty"),
        ("W: [64, 128]", "V: [64, 128]", "tiny.yaml: unknown variable 'V'"),
        ("objectives:", "constraints: [W > 512]\nobjectives:", "no point of the space satisfies 'W > 512'"),
        ("objectives: [latency, W]", "objectives: [latenzy]", "tiny.yaml: columns.latenzy: unknown input or result"),
    ],
)
def test_bad_input_is_one_sentence(run: Run, spec: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    spec.write_text(SPEC.replace(old, new), encoding="utf-8")
    ran = run("sweep", spec, "--out", tmp_path / "out")
    assert ran.code == 2
    assert message in ran.err and len(ran.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_sweep_is_refused_unless_forced(run: Run, spec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("sweep", spec, "--out", out)
    before = (out / FILE).read_bytes()
    spec.write_text(SPEC.replace("128", "256"), encoding="utf-8")
    refused = run("sweep", spec, "--out", out)
    assert refused.code == 2 and "another sweep, 'tiny'" in refused.err
    assert (out / FILE).read_bytes() == before
    forced = run("sweep", spec, "--out", out, "--force", "--json")
    assert forced.document["added"] == 8 and "earlier results are now in" in forced.err
    assert (out / "results-1.sqlite").exists()


def test_a_scheduler_that_is_not_there_leaves_nothing(
    run: Run, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "_ANSWER_S", 0.3)
    ran = run("sweep", spec, "--out", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9")
    assert ran.code == 2 and "no Dask scheduler answers at tcp://127.0.0.1:9" in ran.err
    assert not (tmp_path / "out").exists()


def test_options_that_contradict_each_other_are_refused(run: Run, spec: Path) -> None:
    assert "missing option '--out'" in run("sweep", spec).err
    both = run("sweep", spec, "--out", "x", "--workers", "2", "--scheduler", "tcp://a:1")
    assert both.code == 2 and "exclude each other" in both.err


def test_an_interrupted_sweep_says_how_to_continue(
    run: Run, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(executors, "evaluate", interrupted)
        ran = run("sweep", spec, "--out", tmp_path / "out")
    assert ran.code == 130 and "0 points are stored, and the same command continues" in ran.err
    assert run("sweep", spec, "--out", tmp_path / "out", "--json").document["added"] == 8


def test_report_writes_a_page_and_exports(run: Run, spec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("sweep", spec, "--out", out)
    ran = run("report", out, "--export", tmp_path / "points.csv")
    assert ran.code == 0
    assert (out / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    with (tmp_path / "points.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["W"], row["L"]) for row in rows[:3]] == [("64", "1024"), ("64", "4096"), ("128", "1024")]
    assert run("report", out, "--out", tmp_path / "page.html").code == 0
    assert (tmp_path / "page.html").exists()


MAPPED = """
sweep: mapped
cascade: matmul
architecture: fusemax
mapping: {find: latency}
set: {K: 64, N: 64}
variables: {M: [32, 64], buffer: [4, 64 KiB]}
columns: {latency: {value: latency_s, dimension: s}}
objectives: [latency]
front: {by: [M]}
"""


def test_a_point_is_mapped_and_its_mapping_runs_again(run: Run, tmp_path: Path) -> None:
    """What `einsight map` finds for the point and what `einsight simulate` says of it by hand."""
    spec, out = tmp_path / "mapped.yaml", tmp_path / "out"
    spec.write_text(MAPPED, encoding="utf-8")
    document = run("sweep", spec, "--out", out, "--workers", "1", "--json").document
    assert (document["points"], document["failed"], document["front_by"]) == (4, 2, ["M"])
    assert [row["M"] for row in document["front"]] == [32, 64]
    for row in document["front"]:
        settings = [word for name in ("K", "N", "M", "buffer") for word in ("--set", f"{name}={row[name]}")]
        models = ["--cascade", "matmul", "--architecture", "fusemax", *settings]
        stored, found = tmp_path / "stored.yaml", tmp_path / "found.yaml"
        assert run("report", out, "--found", str(row["point"]), stored, "--json").document["mappings"] == [str(stored)]
        assert run("map", *models, "--objective", "latency", "--out", found).code == 0
        assert stored.read_text(encoding="utf-8") == found.read_text(encoding="utf-8")
        again = run("simulate", *models, "--mapping", stored, "--json").document
        assert again["latency_s"] == pytest.approx(row["latency"], rel=1e-12)
    text = run("sweep", spec, "--out", out).out
    assert "Pareto front for latency, one for each M: 2 points" in text
    failed = run("report", out, "--found", "0", tmp_path / "none.yaml", "--out", tmp_path / "page.html")
    assert failed.code == 2 and "it failed: no mapping of cascade 'matmul' fits" in failed.err
    assert not (tmp_path / "none.yaml").exists() and not (tmp_path / "page.html").exists()


def test_all_files_of_a_report_are_checked_before_one_is_written(run: Run, spec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run("sweep", spec, "--out", out)
    for words in (["--export", "points.xlsx"], ["--found", "0", "found.txt"], ["--found", "0", "found.yaml"]):
        ran = run("report", out, *words, "--export", tmp_path / "points.csv")
        assert ran.code == 2 and not (out / "report.html").exists() and not (tmp_path / "points.csv").exists()


def test_points_that_tie_are_told_from_those_that_differ(run: Run, spec: Path, tmp_path: Path) -> None:
    spec.write_text(SPEC.replace("objectives: [latency, W]", "objectives: [W]"), encoding="utf-8")
    text = run("sweep", spec, "--out", tmp_path / "out").out
    assert "Pareto front for W: 1 point (and 3 that tie with it)" in text


def test_the_results_of_a_sweep_can_be_listed(run: Run, spec: Path) -> None:
    spec.write_text(SPEC.replace("value: latency_s", "value: no_such_result"), encoding="utf-8")
    text = run("sweep", spec, "--results").out
    assert "latency_s" in text and "traffic_bytes.DRAM.total.read" in text


def test_report_of_a_folder_without_results_is_refused(run: Run, tmp_path: Path) -> None:
    ran = run("report", tmp_path)
    assert ran.code == 2 and "holds no results of a sweep" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_the_example_of_array_sizes_trades_time_for_area(run: Run, tmp_path: Path) -> None:
    document = run("sweep", EXAMPLES / "fusemax-array-size.yaml", "--out", tmp_path / "out", "--json").document
    assert (document["points"], document["failed"]) == (72, 0)
    front = document["front"]
    assert [point["W"] for point in front] == [512, 256, 128, 64, 32, 16]
    assert {point["mapping"] for point in front} == {"fusemax-binding"}
    # 256^2 + 256 elements of 3000 um2 and 16 MiB of 0.346 um2 a bit, and registers of 10 and of 32 words of 16 bits.
    cells = 16 * 2**20 * 8 + 256 * 256 * 160 + 256 * 512
    assert front[1]["area"] == pytest.approx((65792 * 3000 + cells * 0.346) * 1e-12)


def test_the_example_of_a_million_points_is_one(run: Run) -> None:
    forecast = run("sweep", EXAMPLES / "million-points.yaml", "--dry-run", "--json").document
    assert forecast["points"] == forecast["space"] == 1_000_000


def test_a_sweep_of_thread_blocks_gives_what_single_simulations_give(run: Run, tmp_path: Path) -> None:
    """A cascade and a nest of one's own on a GPU: no point programs; four points need more registers than there are."""
    folder = EXAMPLES / "sigmoid-attention"
    text = (folder / "sweep.yaml").read_text(encoding="utf-8").replace(" cascade.yaml", f" {folder}/cascade.yaml")
    text = text.replace("mapping: mapping.yaml", f"mapping: {folder}/mapping.yaml").replace("8192", "1024")
    (tmp_path / "sweep.yaml").write_text(text, encoding="utf-8")
    found = run("sweep", tmp_path / "sweep.yaml", "--out", tmp_path / "out", "--json").document
    assert (found["points"], found["failed"]) == (32, 4)
    best = found["front"][0]
    tile = [f"--set={name}={best[name]}" for name in ("block_m", "block_n", "warps", "stages", "pipelined")]
    sizes = [f"--set={size}" for size in ("B=1", "H=32", "P=1024", "M=1024", "E=128", "F=128")]
    options = ["--cascade", folder / "cascade.yaml", "--mapping", folder / "mapping.yaml", *sizes, *tile, "--json"]
    assert run("simulate", *options).document["latency_s"] == pytest.approx(best["latency"])
