"""The Chrome trace: parsed again, it shows every execution once, on the right track, and no two at once on one."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einsum.errors import EinsightError
from mappings.program import Dependence, Phase, Resource, Step, Stream, TileProgram
from simulator.event import evaluate_events, simulate_events
from simulator.trace import write_trace


def program() -> TileProgram:
    steps = (
        Step("load", "memory", 1e-6, 2e-7),
        Step("matmul", "array", np.array([[2e-6, 0.0]]), after=(Dependence("load"),)),
        Step("settle", None, 5e-7, after=(Dependence("matmul"),)),
    )

    def order(point: int, instance: int, limit: int | None = None) -> np.ndarray:
        return np.array([0, 1, 0], dtype=np.int32)[:limit]

    blocks = Stream("blocks", steps, np.array([[2.0, 1.0]]), order, instances=3)
    return TileProgram(
        phases=(Phase("first", (blocks,)), Phase("second", (blocks,), repeat=4)),
        resources={"memory": Resource("memory"), "array": Resource("array", copies=2)},
        points=1,
        energy_j={},
        peak_per_s={},
        clock_hz=np.ones((1, 1)),
    )


def read(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text())
    assert isinstance(document, dict)
    return document


def test_every_execution_is_one_slice_on_the_track_of_its_unit(tmp_path: Path) -> None:
    result = simulate_events(program(), record=True)
    write_trace(tmp_path / "t.json", result, program())
    events = read(tmp_path / "t.json")["traceEvents"]
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    slices = [event for event in events if event["ph"] == "X"]
    assert processes == {0: "first", 1: "second (1 of 4)"}
    assert {name for (pid, _), name in threads.items() if pid == 0} == {
        "memory", "array 0", "array 1", "blocks: settle 0", "blocks: settle 1",
    }  # fmt: skip
    per_phase = 3 * (3 + 2 + 3)  # the tile of the other class does not run the matmul
    assert len(slices) == 2 * per_phase
    for event in slices:
        assert threads[event["pid"], event["tid"]].startswith(
            {"load": "memory", "matmul": "array", "settle": "blocks: settle"}[event["name"]]
        )
        assert event["dur"] == pytest.approx({"load": 1.0, "matmul": 2.0, "settle": 0.5}[event["name"]])
        assert event["args"]["class"] == [0, 1, 0][event["args"]["tile"]]
    assert sum(e["dur"] for e in slices if e["name"] == "load" and e["pid"] == 0) == pytest.approx(
        result.phases[0].busy_s["memory"] * 1e6
    )


def test_slices_of_one_track_do_not_overlap_and_phases_follow_one_another(tmp_path: Path) -> None:
    result = simulate_events(program(), record=True)
    write_trace(tmp_path / "t.json", result, program())
    tracks = defaultdict(list)
    for event in read(tmp_path / "t.json")["traceEvents"]:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for spans in tracks.values():
        spans.sort()
        assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    ends = [max(end for (pid, _), spans in tracks.items() if pid == phase for _, end in spans) for phase in (0, 1)]
    starts = [
        min(start for (pid, _), spans in tracks.items() if pid == phase for start, _ in spans) for phase in (0, 1)
    ]
    assert starts[0] == 0.0
    assert starts[1] >= ends[0]


def test_evaluating_with_a_trace_writes_the_same_timeline(tmp_path: Path) -> None:
    write_trace(tmp_path / "direct.json", simulate_events(program(), record=True), program())
    result = evaluate_events(program(), trace=tmp_path / "evaluated.json")
    assert read(tmp_path / "evaluated.json") == read(tmp_path / "direct.json")
    assert result.fidelity == "event"
    assert result.latency_s == pytest.approx(simulate_events(program()).latency_s)


def test_a_limit_keeps_the_first_slices_and_says_so(tmp_path: Path) -> None:
    result = simulate_events(program(), record=True)
    write_trace(tmp_path / "t.json", result, program(), limit=5)
    document = read(tmp_path / "t.json")
    starts = [event["ts"] for event in document["traceEvents"] if event["ph"] == "X"]
    assert len(starts) == 5
    assert starts == sorted(starts)
    assert document["otherData"]["slices"] == 5
    assert document["otherData"]["recorded_slices"] == 48


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "t.json"
    target.write_text("old")
    result = simulate_events(program(), record=True)

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simulator.trace.json.dumps", full)
    with pytest.raises(EinsightError, match=r"cannot be written: no space left"):
        write_trace(target, result, program())
    assert [path.name for path in tmp_path.iterdir()] == ["t.json"]
    assert target.read_text() == "old"


def test_a_missing_folder_and_an_unrecorded_result_are_said(tmp_path: Path) -> None:
    with pytest.raises(EinsightError, match="cannot be written: no such file"):
        write_trace(tmp_path / "missing" / "t.json", simulate_events(program(), record=True), program())
    with pytest.raises(EinsightError, match="record=True"):
        write_trace(tmp_path / "t.json", simulate_events(program()), program())
    assert not list(tmp_path.iterdir())
