"""`--json`: what every subcommand prints is one document that its published schema accepts, and nothing else."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

import kernels.command
from einsight.command import COMMANDS
from einsight.documents import DOCUMENTS, json_schema
from tests.einsight.conftest import Run
from tests.kernels.test_measure import PretendBench

ROOT = Path(__file__).parent.parent.parent
CALLS = [
    "list",
    "list mappings",
    "show attention-1pass",
    "show fusemax",
    "passes attention-3pass",
    "passes attention-1pass --rank m --set M=4096",
    "tiles attention-3pass --where m<=p --set P=4096 --set M=4096 --rows p=128 --columns m=64",
    "tiles attention-3pass --where m<=p --set P=512 --set M=512 --rows p=128 --columns m=64 --share 0.5",
    "simulate --mapping fusemax-binding --workload bert-base --end-to-end",
    "simulate --mapping fusemax-binding --workload bert-base --set L=1024 --set B=1 --set H=1 --fidelity event",
    "simulate --mapping instcsd-sparf --workload opt-13b",
    "simulate --architecture spatten --trace-file docs/examples/data/gpt2-small-wikitext2.csv",
    "map --cascade matmul --architecture fusemax --set M=64 --set N=64 --set K=64 --objective dram",
    "map --cascade matmul --architecture fusemax --set M=64 --set N=64 --set K=64 --objective pareto",
    "bounds --cascade attention-1pass --set N=4096 --set d=128 --fast-memory 1MiB --schedules unfused",
    "bounds --cascade attention-backward --set N=1024 --set d=64 --fast-memory 1MiB",
    "run docs/examples/llm-in-a-flash.yaml",
    "sweep docs/examples/fusemax-array-size.yaml --out OUT/sweep",
    "sweep docs/examples/fusemax-array-size.yaml --dry-run",
    "sweep docs/examples/fusemax-array-size.yaml --results",
    "report OUT/sweep --export OUT/points.csv",
    "compare OUT/some.csv --architecture h100-sxm",
    "compare OUT/both.yaml --out OUT/comparison",
    "schema simulate",
    "doctor",
]


@cache
def validator(name: str) -> Any:
    schema = json_schema(name)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the calls share: some measured rows, and a file that compares them twice."""
    folder = tmp_path_factory.mktemp("documents")
    lines = (ROOT / "kernels/measurements/h100-sxm.csv").read_text(encoding="utf-8").splitlines()
    (folder / "some.csv").write_text("\n".join([lines[0], *lines[1::90]]), encoding="utf-8")
    runs = {name: {"measured": "some.csv", "architecture": name} for name in ("h100-sxm", "h200-sxm")}
    (folder / "both.yaml").write_text(yaml.safe_dump({"comparisons": runs}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("call", CALLS)
def test_a_document_is_what_its_schema_says(run: Run, monkeypatch: pytest.MonkeyPatch, folder: Path, call: str) -> None:
    monkeypatch.chdir(ROOT)
    words = call.replace("OUT", str(folder)).split()
    if words[0] == "report":
        run("sweep", "docs/examples/fusemax-array-size.yaml", "--out", folder / "sweep")
    ran = run(*words, *(["--json"] if words[0] != "schema" else []))
    assert ran.code == 0, ran.err
    if words[0] == "schema":
        Draft202012Validator.check_schema(ran.document)
        assert ran.document == json_schema(words[1])
    else:
        errors = [f"{error.json_path}: {error.message:.200}" for error in validator(words[0]).iter_errors(ran.document)]
        assert not errors


def test_every_subcommand_with_a_document_is_called() -> None:
    assert {call.split()[0] for call in CALLS} | {"measure", "calibrate"} == {*DOCUMENTS, "schema"} == {*COMMANDS}


def test_measuring_prints_what_its_schema_says(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernels.command, "CudaBench", PretendBench)
    ran = run("measure", "quick", "--counters", "--out", tmp_path / "rows.csv", "--json")
    assert not list(validator("measure").iter_errors(ran.document))


@pytest.mark.parametrize("name", ["calibration-h100", "calibration-h200"])
def test_calibrations_are_what_their_schema_says(name: str) -> None:
    document = yaml.safe_load((ROOT / "kernels/measurements" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert not list(validator("calibrate").iter_errors(document))


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_schema_refuses_what_it_does_not_name(name: str) -> None:
    assert list(validator(name).iter_errors({"nonsense": 1}))
    assert list(validator(name).iter_errors("nonsense"))
