"""`einsight simulate`: the document and the report of one simulation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import einsight as es
from tests.einsight.conftest import Run

MODEL = ("simulate", "--mapping", "fusemax-binding", "--workload", "bert-base", "--set", "L=4096")


def test_the_document_has_the_promised_keys(run: Run) -> None:
    document = run(*MODEL, "--json").document
    numbers = ("latency_s", "cycles", "energy_j")
    assert all(isinstance(document[name], float | int) and document[name] > 0 for name in numbers)
    assert sum(document["energy_by_component_j"].values()) == pytest.approx(document["energy_j"])
    assert all(0 <= value <= 1 + 1e-9 for value in document["utilization"].values())
    assert document["area_mm2"] == pytest.approx(247.5, abs=0.1)  # of W = 256 and 16 MiB
    assert isinstance(document["bound_by"], str)
    for tensors in document["traffic_bytes"].values():
        for direction in ("read", "write"):
            parts = sum(moved[direction] for tensor, moved in tensors.items() if tensor != "total")
            assert parts == pytest.approx(tensors["total"][direction])


def test_the_command_and_python_say_the_same(run: Run) -> None:
    result = es.simulate(mapping="fusemax-binding", workload="bert-base", settings={"L": 4096})
    assert run(*MODEL, "--json").document == json.loads(json.dumps(result.to_dict()))


def test_names_of_cascade_and_architecture_default_to_those_of_the_mapping(run: Run) -> None:
    named = run(*MODEL, "--cascade", "attention-1pass", "--architecture", "fusemax", "--json")
    assert named.document == run(*MODEL, "--json").document


def test_quantities_are_set_with_units(run: Run) -> None:
    plain = run(*MODEL, "--set", f"dram_bandwidth={2**30}", "--json").document
    assert run(*MODEL, "--set", "dram_bandwidth=1 GiB/s", "--json").document == plain
    assert plain["latency_s"] > run(*MODEL, "--json").document["latency_s"]


def test_the_report_fits_the_terminal_and_names_every_part(run: Run) -> None:
    ran = run(*MODEL, "--end-to-end")
    assert (ran.code, ran.err) == (0, "")
    assert max(map(len, ran.out.splitlines())) <= 100
    for text in ("latency", "bound by", "DRAM", "array_2d", "FFN1", "assumptions"):
        assert text in ran.out


def test_a_trace_is_written_whole(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    ran = run(*MODEL[:-1], "L=1024", "--set", "B=1", "--set", "H=1", "--fidelity", "event", "--trace", path, "--json")
    assert ran.code == 0
    events = json.loads(path.read_text())["traceEvents"]
    assert {event["ph"] for event in events} >= {"X", "M"}
    assert list(tmp_path.iterdir()) == [path]
    end_us = max(event["ts"] + event["dur"] for event in events if event["ph"] == "X")
    assert end_us * 1e-6 == pytest.approx(ran.document["latency_s"], rel=0.2)


def test_nothing_is_left_of_a_trace_that_fails(run: Run, tmp_path: Path) -> None:
    ran = run(*MODEL, "--set", "buffer=1 KiB", "--fidelity", "event", "--trace", tmp_path / "trace.json")
    assert (ran.code, ran.out) == (2, "")
    assert list(tmp_path.iterdir()) == []
