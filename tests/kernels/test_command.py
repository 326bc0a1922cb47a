"""Without what measuring needs, one sentence says what is missing and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from einsum.errors import EinsightError
from kernels.command import run_calibrate, run_measure


@pytest.mark.parametrize(
    "command", [lambda path: run_measure("quick", path / "m.csv"), lambda path: run_calibrate(path / "c.yaml")]
)
def test_a_machine_without_cuda_is_told_so(command: Callable[[Path], object], tmp_path: Path, has_cuda: bool) -> None:
    if has_cuda:
        pytest.skip("this machine has what is missing elsewhere")
    with pytest.raises(EinsightError, match=r"NVIDIA GPU with CUDA|which is not installed") as caught:
        command(tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_plan_is_read_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(EinsightError, match="there is no such file"):
        run_measure(tmp_path / "none.yaml", tmp_path / "m.csv")


def test_files_end_as_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(EinsightError, match=r"ends in \.csv"):
        run_measure("quick", tmp_path / "m.txt")
    with pytest.raises(EinsightError, match=r"ends in \.yaml"):
        run_calibrate(tmp_path / "c.csv")


@pytest.mark.gpu
def test_a_plan_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("plan: one\nrows: [{kernel: copy, q_len: 4096, head_dim: 1024, block_n: 1024, warps: 4}]\n")
    summary = run_measure(path, tmp_path / "m.csv", quiet=True)
    assert summary["rows"] == {"ok": 1}
