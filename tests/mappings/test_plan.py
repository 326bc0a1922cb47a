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


def test_many_design_points_are_evaluated_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = {"tokens": np.arange(1, 41), "drives": np.arange(40) % 5 + 1}
    whole = run(cases).to_dict()
    monkeypatch.setattr("simulator.simulate._MOST_CLASSES", 32)
    assert run(cases).to_dict() == whole


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
        ("count: tokens", "count: 0 * tokens", "expected a whole number of at least 1"),
        ("{t: {from", "{width: {from", "'width' is a variable already"),
        ("near: {state", "nera: {state", "'nera' is no memory and no drive.*'near'"),
        ("sets: heads", "set: heads", "unknown field 'set'.*'sets'"),
        ("moves: {over_host:", "moves: {bus:", "on the path 'over_host' moves"),
        ("ops: {mac: heads * t * width}", "ops: {exp: 1}", "cannot run 'exp'"),
        ("width: 64", "width: -64", "'t . heads . width' is -3584, expected a number of at least 0"),
        ("width: 64", "width: 0", "vector_bytes: '2 . width' is 0, expected above 0"),
        ("heads: 4", "heads: 2.5", "spread: 'heads' is 2.5, expected a whole number of at least 1"),
        ("heads: 4", "heads: 0", "spread: 'heads' is 0, expected a whole number of at least 1"),
        ("tokens: 5", "tokens: 2.5", "'tokens' is 2.5, expected a whole number"),
        ("tokens: 5", "tokens: 1e9", "'tokens' is 1000000000, expected .* at most 10,000,000"),
        ("kept: t // 2", "kept: 2 * t", "kept: 'kept' is 20, expected at most the number of vectors"),
        ("kept: t // 2", "kept: kept", "depends on itself: kept -> kept"),
        ("after: {work: 1}", "after: work", "fetch over pcie, .* work wait for each other within one tile"),
        ("after: {work: 1}", "after: {work: 0.5}", "'0.5' is 0.5, expected a whole number of at least 0"),
        ("after: fetch", "along: work", "the stages read, work wait for each other within one tile"),
        (
            "touches: {A:",
            "in_flight: 0\n          touches: {A:",
            "in_flight: .0. is 0, expected a whole number",
        ),
        ("on: disk", "on: near", "only drives have pages and requests in flight, 'near' is none"),
        ("tiles: layers", "repeat: 1.5", "repeat: '1.5' is 1.5, expected a whole number"),
        ("{state: 2", "{state: -2", "memory.near.state: '-2 . heads . width' is -512, expected bytes of at least 0"),
        ("tiles: layers", "require: [{that: t > 11, else: '{t} is too short'}]", r"require\[0\]: 10 is too short"),
        ("tiles: layers", "rows: {}", "series: a phase has either a series of tiles or those of a trace's rows"),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, message: str) -> None:
    assert PLAN.count(old) == 1
    with pytest.raises(SpecError, match=f"(?s){message}") as caught:
        run(text=PLAN.replace(old, new))
    assert "plan" in str(caught.value)


def test_two_phases_have_two_names() -> None:
    with pytest.raises(SpecError, match=r"plan.phases\[1\]: the phase 'run' occurs twice"):
        plan(PLAN + PLAN.split("  phases:\n")[1])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[pcie, host, bus]", "[pcie, hst, bus]", "over: 'hst' is neither a link nor a memory .did you mean 'host'"),
        ("[pcie, host, bus]", "[pcie, disk]", "over: 'disk' is neither a link nor a memory"),
        ("[pcie, host, bus]", "[pcie, pcie]", r"over\[1\]: the path passes 'pcie' twice"),
        ("page: 1 KiB", "page: 1.5", "page: '1.5' is 1.5 bytes, expected a whole number of them"),
        ("page: 1 KiB", "page: 1 KiB, sector: 2 KiB", "sector: '2 KiB' is more than a page, '1 KiB'"),
        ("channels: 2", "channels: 0", "flash.disk.channels: 0, expected a whole number above 0"),
        ("read_time: 20 us", "read_time: -1 us", "read_time: '-1 us' is -1 us, expected a time of at least 0"),
        ("line_code: 1, overhead: 256, latency", "line_code: 2, latency", "line_code: '2' is above 1"),
        ("drives: 2", "drives: 0", "copies: 'drives' is 0, expected a whole number above 0"),
        ("  bus:", "  host:", "links.host: the name 'host' is taken by another part"),
    ],
)
def test_a_system_that_cannot_be_is_refused(old: str, new: str, message: str) -> None:
    assert old in MACHINE
    with pytest.raises(SpecError, match=message):
        simulate(Cascade.parse(CASCADE), Architecture.parse(MACHINE.replace(old, new, 1)), plan(), None, {"M": 1})


@pytest.mark.parametrize(
    ("mapping", "model", "settings", "message"),
    [
        ("instcsd-sparf", "opt-13b", {"compression": 0.5}, "step 1 reads 1 to 128 channels, found 256"),
        ("instcsd-sparf", "opt-13b", {"NK": 0}, "step 2 reads 1 to 1024 tokens, .* found 0 tokens"),
        ("instcsd-sparf", "opt-13b", {"clustering": 2}, "clustering: 'clustering' is 2, expected at most 1"),
        ("instcsd-dense", "opt-13b", {"drives": 0}, "'drives' is 0, expected a whole number above 0"),
        ("flexgen-ssd", "opt-13b", {"micro_batches": 5}, "the batch of 64 is split into equal parts, found 5"),
        ("flexgen-ssd", "opt-13b", {"part": 65}, "a GPU batch has 1 to 64 sequences, found 65"),
        ("llm-in-a-flash", "opt-6.7b", {"resident": 1.5}, "resident is a part from 0 to 1, found 1.5"),
        ("llm-in-a-flash", "opt-6.7b", {"fresh": 200}, "found 200 fresh, 100 active, 200 held"),
    ],
)
def test_library_plans_refuse_what_cannot_be(mapping: str, model: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        simulate(mapping=mapping, workload=model, settings=settings)


def test_a_plan_survives_saving(tmp_path: Any) -> None:
    plan().save(tmp_path / "tokens.yaml")
    assert Mapping.load(tmp_path / "tokens.yaml").plan == plan().plan
