"""Bad input of every kind, side by side (`bad_input.yaml`): exit code 2, one sentence, and nothing is written."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.einsight.conftest import Run

ROOT = Path(__file__).parent.parent.parent
GOOD = {
    "cascade": "einsum/library/attention-1pass.yaml",
    "three": "einsum/library/attention-3pass.yaml",
    "architecture": "architectures/library/fusemax.yaml",
    "drives": "architectures/library/instcsd.yaml",
    "mapping": "mappings/library/fusemax-binding.yaml",
    "unfused": "mappings/library/unfused.yaml",
    "stages": "mappings/library/spatten-pipeline.yaml",
    "plan": "mappings/library/instcsd-sparf.yaml",
    "workload": "workloads/library/bert-base.yaml",
    "gpt2": "workloads/library/gpt2-small.yaml",
    "trace": "docs/examples/data/gpt2-small-wikitext2.csv",
    "measured": "kernels/measurements/h100-sxm.csv",
    "rows": "kernels/library/quick.yaml",
    "experiment": "docs/examples/fusemax-bert.yaml",
    "sweep": "docs/examples/fusemax-array-size.yaml",
    "mapped": "docs/examples/edge-mapped.yaml",
}
"""Files that are right, to spoil."""
SHORT = {
    "simulate": "simulate --mapping fusemax-binding --workload bert-base",
    "bounds": "bounds --cascade attention-1pass --set N=64 --set d=8",
    "trace": "simulate --mapping spatten-pipeline --trace-file FILE",
}
CASES = [
    pytest.param(case, id=f"{subject}: {case['what']}")
    for subject, cases in yaml.safe_load((Path(__file__).parent / "bad_input.yaml").read_text(encoding="utf-8")).items()
    for case in cases
]


def write(case: dict[str, Any], folder: Path) -> str:
    """Write the case's FILE; its name."""
    if "base" not in case:
        (folder / "bad.yaml").write_text(case.get("text", ""), encoding="utf-8")
        return "bad.yaml"
    good = ROOT / GOOD[case["base"]]
    text = good.read_text(encoding="utf-8")
    assert case.get("old", "") in text, f"{good.name} has changed"
    name = f"bad{good.suffix}"
    (folder / name).write_text(text.replace(case.get("old", ""), case.get("new", ""), 1), encoding="utf-8")
    return name


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_sentence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = case["command"].format(**SHORT)
    if "FILE" in command:
        command = command.replace("FILE", write(case, tmp_path))
    before = sorted(tmp_path.rglob("*"))
    ran = run(*shlex.split(command))
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("einsight: ") and ran.err.endswith("\n") and ran.err.count("\n") == 1
    assert not [words for words in case["says"] if str(words) not in ran.err], ran.err
    assert len(ran.err) <= 400 and not ran.err.rstrip().endswith(".")
    assert sorted(tmp_path.rglob("*")) == before
