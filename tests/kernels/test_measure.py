"""Measuring appends rows as they come, goes on after an interruption, and repeats nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from einsum.errors import EinsightError
from einsum.specfile import load_yaml
from kernels.case import Case
from kernels.measure import COUNTER_CHUNK, measure, provenance_path
from kernels.measurement import Measurement, MeasurementFile
from kernels.plan import MeasurementPlan, TimingPlan

ROOT = Path(__file__).parent.parent.parent


class PretendBench:
    """A machine on which a case takes as many milliseconds as it has queries, and odd ones do not fit."""

    def __init__(self, stop_after: int | None = None, device: str = "pretended") -> None:
        self.timed: list[Case] = []
        self.counted: list[int] = []
        self.stop_after, self.device = stop_after, device

    def provenance(self) -> dict[str, Any]:
        return {"gpu": {"device": self.device}, "software": {"triton": "3"}}

    def prepare(self, cases: Sequence[Case]) -> None:
        self.prepared = len(cases)

    def time(self, case: Case, timing: TimingPlan) -> Measurement:
        if self.stop_after is not None and len(self.timed) >= self.stop_after:
            raise KeyboardInterrupt
        self.timed.append(case)
        if case.q_len % 2:
            return Measurement(status="out_of_memory", reason="too odd")
        return Measurement(ms=float(case.q_len), repetitions=timing.min_repetitions)

    def count(self, cases: Sequence[Case]) -> Mapping[Case, Mapping[str, float]]:
        self.counted.append(len(cases))
        return {case: {"dram_read_bytes": 2.0 * case.q_len} for case in cases if case.q_len != 4}


def plan(count: int) -> MeasurementPlan:
    rows = [{"kernel": "copy", "q_len": list(range(1, count + 1)), "counters": "q_len < 500"}]
    return MeasurementPlan.parse({"plan": "count", "rows": rows})


def test_every_case_gets_a_row_also_those_that_cannot_run(tmp_path: Path) -> None:
    table = measure(plan(6), tmp_path / "m.csv", PretendBench())
    again = MeasurementFile(tmp_path / "m.csv")
    assert again.rows == table.rows
    assert [(case.q_len, row.status, row.ms) for case, row in again.rows.items()][:2] == [
        (1, "out_of_memory", None), (2, "ok", 2.0)]  # fmt: skip


def test_an_interrupted_run_continues_and_repeats_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    first = PretendBench(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        measure(plan(8), path, first)
    assert len(MeasurementFile(path).rows) == 3
    second = PretendBench()
    measure(plan(8), path, second)
    assert [case.q_len for case in first.timed + second.timed] == list(range(1, 9))
    assert second.prepared == 5
    sessions = load_yaml(provenance_path(path))["sessions"]
    assert [session["plan"] for session in sessions] == ["count", "count"]


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.kernels.test_measure import PretendBench, plan
from kernels.measure import measure

def die(stage, done, total):
    if stage == "time" and done == 4:
        os.kill(os.getpid(), signal.SIGKILL)

measure(plan(9), Path(sys.argv[1]), PretendBench(), progress=die)
"""


def test_a_killed_run_keeps_every_finished_row(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, capture_output=True)
    assert killed.returncode == -9
    assert len(MeasurementFile(path).rows) == 4
    bench = PretendBench()
    measure(plan(9), path, bench)
    assert [case.q_len for case in bench.timed] == [5, 6, 7, 8, 9]


def test_counters_are_added_to_rows_that_lack_them_a_chunk_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    measure(plan(600), path, PretendBench())
    bench = PretendBench()
    table = measure(plan(600), path, bench, counters=True)
    assert bench.timed == []
    assert bench.counted == [COUNTER_CHUNK, 249 - COUNTER_CHUNK]
    counted = {case.q_len: row.dram_read_bytes for case, row in table.rows.items() if row.dram_read_bytes is not None}
    assert counted == {length: 2.0 * length for length in range(2, 500, 2) if length != 4}
    third = PretendBench()
    measure(plan(600), path, third, counters=True)
    assert third.counted == []


def test_rows_of_two_gpus_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    measure(plan(2), path, PretendBench())
    before = path.read_text()
    with pytest.raises(EinsightError, match="measured on pretended, and this machine has another"):
        measure(plan(4), path, PretendBench(device="another"))
    assert path.read_text() == before


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    measure(plan(3), tmp_path / "m.csv", PretendBench(), counters=True, progress=lambda *step: seen.append(step))
    assert seen == [("compile", 0, 3), ("time", 1, 3), ("time", 2, 3), ("time", 3, 3), ("count", 1, 1)]
