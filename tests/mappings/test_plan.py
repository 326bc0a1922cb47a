"""Plans: phases over a system against sums worked out token by token, and one clear sentence for every mistake."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from architectures import Architecture
from einsum import SpecError
from einsum.cascade import Cascade
from mappings import Mapping
from simulator.result import Result
from simulator.simulate import build_program, design, simulate

MACHINE = """
architecture: box
clock: 1 GHz
word_bits: 16
variables: {drives: 2}
memories:
  host: {capacity: 1 MB, bandwidth: 4 GB/s}
  near: {capacity: 1 kB, bandwidth: 8 GB/s}
units:
  engine: {dims: {lanes: 4}, copies: drives, ops: {mac: {}}}
flash:
  disk: {channels: 2, dies: 2, page: 1 KiB, read_time: 20 us, program_time: 80 us, channel_bandwidth: 1 GB/s,
         queue_depth: 1, capacity: 12 kB, copies: drives}
links:
  pcie: {lanes: 1, lane_rate: 1 GB/s, line_code: 1, overhead: 256, latency: 1 us, copies: drives}
  bus: {lanes: 1, lane_rate: 4 GB/s, line_code: 1, overhead: 256}
paths: {over_host: {over: [pcie, host, bus]}}
"""
CASCADE = "cascade: product\nranks: {m: M}\ninputs: {A: [m], X: [m]}\noutputs: [Z]\neinsums: ['Z[] = A[m] * X[m]']"
PLAN = """
mapping: tokens
variables: {width: 64, first: 10, tokens: 5, layers: 3, heads: 4, kept: t // 2}
plan:
  memory:
    near: {state: 2 * heads * width}
    disk: {cache: layers * (first + tokens) * heads * width * 2}
  phases:
    - phase: run
      series: {t: {from: first, count: tokens}}
      tiles: layers
      stages:
        - {stage: fetch, on: over_host, after: {work: 1}, spread: heads,
           moves: {over_host: {X: {read: t * heads * width}}}}
        - stage: read
          on: disk
          after: fetch
          spread: heads
          touches: {A: {vectors: t, vector_bytes: 2 * width, kept: kept, sets: heads}}
        - {stage: work, on: engine, after: read, computes: [Z], spread: heads, ops: {mac: heads * t * width}}
"""
RATES = {"pcie": 0.5e9, "host": 4e9, "bus": 2e9}


def plan(text: str = PLAN) -> Mapping:
    return Mapping.parse(text)


def run(settings: dict[str, Any] | None = None, text: str = PLAN, fidelity: Any = "analytic") -> Result:
    cascade = Cascade.parse(CASCADE)
    return simulate(cascade, Architecture.parse(MACHINE), plan(text), None, {"M": 1, **(settings or {})},
                    fidelity=fidelity)  # fmt: skip


def pages(t: int, kept: int, per_page: int) -> float:
    """Expected pages of an even draw, page by page."""
    from math import comb

    sizes = [min(per_page, t - start) for start in range(0, t, per_page)]
    return sum(1 - comb(t - size, kept) / comb(t, kept) for size in sizes)


def by_hand(first: int, tokens: int, layers: int, heads: int, width: int, drives: int) -> dict[str, float]:
    """Sums over tokens and layers, one by one."""
    share = -(-heads // drives) / heads
    found = {"pcie": 0.0, "bus": 0.0, "disk": 0.0, "read_bytes": 0.0, "link_bytes": 0.0}
    for t in range(first, first + tokens):
        moved = t * heads * width
        touched = pages(t, t // 2, 1024 // (2 * width)) * heads
        found["link_bytes"] += layers * moved
        found["pcie"] += layers * moved * share / RATES["pcie"]
        found["bus"] += layers * moved / RATES["bus"]
        found["read_bytes"] += layers * touched * 1024
        found["disk"] += layers * touched * share * (20e-6 + 1024 / 1e9)
    return found


@pytest.mark.parametrize("drives", [1, 2, 3, 4])
def test_sums_over_growing_contexts_are_those_of_a_loop_over_tokens(drives: int) -> None:
    result = run({"drives": drives})
    expected = by_hand(10, 5, 3, 4, 64, drives)
    assert result.traffic_bytes["disk"]["A"]["read"][0] == pytest.approx(expected["read_bytes"])
    for part in ("pcie", "host", "bus"):
        assert result.traffic_bytes[part]["X"]["read"][0] == pytest.approx(expected["link_bytes"])
    assert result.traffic_bytes["host"]["X"]["write"][0] == pytest.approx(expected["link_bytes"])
    share = -(-4 // drives) / 4
    for part in ("pcie", "disk"):  # all copies together
        assert result.utilization[part][0] * result.latency_s[0] * drives == pytest.approx(expected[part] / share)


def test_stages_in_sequence_take_the_sum_of_their_times() -> None:
    result = run({"drives": 1})
    expected = by_hand(10, 5, 3, 4, 64, 1)
    work = sum(3 * np.ceil(4 * t * 64 / 4) / 1e9 for t in range(10, 15))
    # A path's slowest part takes the time, and each link its latency once a tile.
    assert result.latency_s[0] == pytest.approx(expected["pcie"] + expected["disk"] + work, rel=0.05)


def test_the_event_evaluator_agrees() -> None:
    assert run(fidelity="event").latency_s[0] == pytest.approx(run().latency_s[0], rel=0.01)


def test_design_points_with_different_numbers_of_tokens_are_those_of_single_ones() -> None:
    cases = {"tokens": [1, 7, 4], "first": [3, 12, 30], "drives": [1, 2, 4]}
    together = run({name: np.array(values) for name, values in cases.items()})
    for place in range(3):
        alone = run({name: values[place] for name, values in cases.items()})
        assert together.latency_s[place] == pytest.approx(alone.latency_s[0], rel=1e-9)
        assert together.traffic_bytes["disk"]["A"]["read"][place] == pytest.approx(
            alone.traffic_bytes["disk"]["A"]["read"][0]
        )


def test_tiles_follow_the_series_value_by_value() -> None:
    chosen = design(Cascade.parse(CASCADE), Architecture.parse(MACHINE), plan(), None, {"M": 1, "tokens": 3})
    (stream,) = build_program(chosen).phases[0].streams
    assert stream.order(0, 0).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert stream.order(0, 0, limit=4).tolist() == [0, 0, 0, 1]
    assert stream.counts.tolist() == [[3, 3, 3]]


def test_memory_that_does_not_fit_is_a_result_with_its_numbers() -> None:
    fitting = run()
    assert bool(fitting.fits[0])
    assert fitting.memory_bytes["disk"]["needed"][0] == 3 * 15 * 4 * 64 * 2
    assert fitting.memory_bytes["disk"]["capacity"][0] == 2 * 12e3
    many = run({"tokens": np.array([5, 500]), "drives": 2})
    assert many.fits.tolist() == [True, False]
    assert many.latency_s[1] > many.latency_s[0]
    document = run({"tokens": 500}).to_dict()
    assert document["fits"] is False
    assert document["memory_bytes"]["disk"] == {"needed": 3 * 510 * 4 * 64 * 2, "capacity": 24e3}


def test_work_is_dealt_out_in_whole_pieces() -> None:
    """Four heads on three drives take as long as on two."""
    by_drives = {drives: run({"drives": drives}).latency_s[0] for drives in (1, 2, 3, 4)}
    assert by_drives[1] > by_drives[2] > by_drives[4]
    two, three = run({"drives": 2}), run({"drives": 3})
    assert two.utilization["disk"][0] * two.latency_s[0] * 2 == pytest.approx(
        three.utilization["disk"][0] * three.latency_s[0] * 3
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("on: disk", "on: dsk", "no part 'dsk'.*'disk'"),
        ("computes: [Z]", "computes: [Y]", "no Einsum 'Y'"),
        ("computes: [Z], ", "", "no stage computes Z"),
        ("after: fetch", "after: fetsch", "unknown stage 'fetsch'.*'fetch'"),
        ("kept: kept", "kept: kpt", "unknown name 'kpt'.*'kept'"),
        ("tiles: layers", "tiles: layers / 2", "1.5, expected a whole number"),
        ("count: tokens", "count: 0 * tokens", "expected at least 1"),
        ("{t: {from", "{width: {from", "'width' is a variable already"),
        ("near: {state", "nera: {state", "'nera' is no memory and no drive.*'near'"),
        ("sets: heads", "set: heads", "unknown field 'set'.*'sets'"),
        ("moves: {over_host:", "moves: {bus:", "on the path 'over_host' moves"),
        ("ops: {mac: heads * t * width}", "ops: {exp: 1}", "cannot run 'exp'"),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, message: str) -> None:
    assert PLAN.count(old) == 1
    with pytest.raises(SpecError, match=f"(?s){message}") as caught:
        run(text=PLAN.replace(old, new))
    assert "plan" in str(caught.value)


def test_a_plan_survives_saving(tmp_path: Any) -> None:
    plan().save(tmp_path / "tokens.yaml")
    assert Mapping.load(tmp_path / "tokens.yaml").plan == plan().plan
