"""`einsight measure` and `einsight calibrate` on a machine that cannot: one sentence, and no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import why_no_gpu
from tests.einsight.conftest import Run

without_gpu = pytest.mark.skipif(why_no_gpu() is None, reason="this machine has a GPU")


@without_gpu
@pytest.mark.parametrize(("command", "suffix"), [(("measure", "quick"), ".csv"), (("calibrate",), ".yaml")])
def test_without_a_gpu_it_says_what_is_missing(run: Run, tmp_path: Path, command: tuple[str, ...], suffix: str) -> None:
    out = tmp_path / f"rows{suffix}"
    ran = run(*command, "--out", str(out))
    assert ran.code == 2
    assert "torch" in ran.err or "CUDA" in ran.err
    assert not out.exists()


def test_an_unknown_plan_is_told_the_known_ones(run: Run, tmp_path: Path) -> None:
    assert "unknown measurement plan 'quik'" in run("measure", "quik", "--out", str(tmp_path / "a.csv")).err


def test_the_file_names_say_what_is_written(run: Run, tmp_path: Path) -> None:
    assert ".csv" in run("measure", "quick", "--out", str(tmp_path / "a.txt")).err
    assert ".yaml" in run("calibrate", "--out", str(tmp_path / "a.txt")).err
