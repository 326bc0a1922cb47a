"""Plans over the rows of a trace: what rows become, how stages wait, and what cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from architectures import Architecture
from architectures.topk import expected_quick_select
from einsum import SpecError
from mappings import Mapping, TileProgram
from mappings.plan_lowering import lower_plan
from simulator.analytic import evaluate
from simulator.event import simulate_events
from workloads import HeadTrace
from workloads.traces import FLAGS, NUMBERS

MACHINE = """
architecture: bench
variables: {width: 4, tokens: 512}
clock: 1 GHz
word_bits: 8
memories:
  DRAM: {bandwidth: 16 GB/s, channels: 2, transaction: 16 B, access_bits: 8, read_energy: 1 pJ, latency: 5 ns}
  SRAM: {capacity: tokens * 64 B, access_bits: 8, read_energy: 0.1 pJ, write_energy: 0.2 pJ}
units:
  multiply: {dims: {lanes: 64}, depth: 2, ops: {mac: {energy: 1 pJ}, add: {cycles: 2}}}
selectors:
  pick: {parallelism: width, pass_cycles: 3, fifo_rows: 128, compare_energy: 1 pJ}
"""
PLAN = """
mapping: bench
variables:
  dense: 0
  keys: where(dense, sentence_length_L, key_fetch_num)
plan:
  phases:
  - phase: attention
    rows:
      serial: layer_id
      queries: query_num
    require:
      - {that: keys * 64 <= SRAM.capacity_bytes, else: "{keys} keys are more than the SRAM holds"}
    stages:
    - stage: load
      on: DRAM
      when: first_query
      moves: {DRAM: {K: {read: keys * 24, pieces: keys}}, SRAM: {K: {write: keys * 64}}}
      after: {scores: 2}
    - stage: scores
      on: multiply
      ops: {mac: keys * 64}
      along: load
    - stage: select
      on: pick
      when: value_fetch_num < keys
      select: {from: keys, keep: value_fetch_num}
      after: [scores]
    - stage: outputs
      on: multiply
      ops: {mac: value_fetch_num * 64, add: 1}
      after: [scores, select]
"""


def rows(**columns: Any) -> HeadTrace:
    size = max(np.size(value) for value in columns.values())
    blank = {name: float(whole.least > 0) for name, whole in NUMBERS.items()} | dict.fromkeys(FLAGS, 0.0)
    blank |= {"auto_requant_thres": -1.0, "sentence_length_L": 400.0, "head_id": 0.0}
    return HeadTrace.of({name: np.broadcast_to(np.asarray(columns.get(name, value), float), (size,)) * 1.0
                         for name, value in blank.items()}, "trace.csv")  # fmt: skip


def lowered(trace: HeadTrace, plan: str = PLAN, points: int = 1, **settings: Any) -> TileProgram:
    mapping = Mapping.parse(plan)
    assert mapping.plan is not None
    machine = Architecture.parse(MACHINE).evaluate(settings)
    definitions = {name: each for name, each in mapping.variables.items() if name not in settings}
    given = {**machine.names(), **machine.variables, **settings}
    return lower_plan(mapping.plan, None, machine, definitions, given, points, trace)


def test_alike_rows_share_a_class_and_alike_layers_a_phase() -> None:
    trace = rows(layer_id=[0, 0, 0, 1, 1, 2], key_fetch_num=[10, 20, 10, 20, 20, 10], count=[1, 2, 1, 1, 1, 1])
    program = lowered(trace)
    assert [phase.name for phase in program.phases] == ["layer_id 0", "layer_id 1", "layer_id 2"]
    first, second, third = (phase.streams[0] for phase in program.phases)
    assert first.counts.tolist() == [[2, 2]]
    assert first.order(0, 0).tolist() == [0, 1, 1, 0]
    assert first.order(0, 0, limit=2).tolist() == [0, 1]
    assert (second.counts.tolist(), third.counts.tolist()) == ([[2]], [[1]])
    again = rows(layer_id=[0, 1, 2, 2], key_fetch_num=[10, 10, 20, 10])
    assert [float(phase.repeat[0]) for phase in lowered(again).phases] == [2, 1]


def test_only_the_first_query_of_a_head_loads_its_keys() -> None:
    stream = lowered(rows(key_fetch_num=[10, 20], query_num=[3, 2], count=[2, 1])).phases[0].streams[0]
    load = next(step for step in stream.steps if step.name == "load")
    order = stream.order(0, 0)
    busy = np.broadcast_to(load.busy_s, stream.counts.shape)[0][order]
    assert (busy > 0).tolist() == [True, False, False, True, False, False, True, False]
    assert np.bincount(order).tolist() == stream.counts[0].tolist()
    assert stream.order(0, 0, limit=4).tolist() == order[:4].tolist()


def test_stages_take_the_time_of_what_they_occupy() -> None:
    program = lowered(rows(key_fetch_num=100, value_fetch_num=20))
    steps = {step.name: step for step in program.phases[0].streams[0].steps}

    def cycles(name: str) -> float:
        return float(np.max(steps[name].busy_s)) * 1e9

    assert cycles("load") == pytest.approx(100 * 32 / 16)  # 24 bytes are two transactions of 16
    assert cycles("scores") == pytest.approx(100)
    assert cycles("outputs") == pytest.approx(20 + 2)
    assert cycles("select") == pytest.approx(float(expected_quick_select(100, 20, 4).cycles))
    assert float(np.max(steps["load"].latency_s)) == pytest.approx(5e-9)
    assert float(np.max(steps["scores (end)"].latency_s)) == pytest.approx(2e-9)
    result = evaluate(program)
    assert result.traffic_bytes["DRAM"]["K"]["read"].tolist() == [2400]
    assert result.energy_by_component_j["DRAM"][0] == pytest.approx(3200e-12)
    assert result.energy_by_component_j["SRAM"][0] == pytest.approx(6400 * 0.2e-12)
    assert result.energy_by_component_j["pick"][0] == pytest.approx(
        float(expected_quick_select(100, 20, 4).candidates) * 1e-12
    )


def test_a_stage_along_another_ends_with_it_or_after_its_own_work() -> None:
    fast = simulate_events(lowered(rows(key_fetch_num=100, value_fetch_num=100))).latency_s
    # Loading takes 200 cycles and 5 of latency, the scores 100 beside it and 2 of depth, the outputs 100 + 2 and 2.
    assert fast == pytest.approx((200 + 5 + 2 + 102 + 2) * 1e-9)
    slow = PLAN.replace("mac: keys * 64}", "mac: keys * 64 * 5}")
    latency = simulate_events(lowered(rows(key_fetch_num=100, value_fetch_num=100), slow)).latency_s
    assert latency == pytest.approx((500 + 2 + 102 + 2) * 1e-9)


def test_many_tiles_run_at_the_pace_of_the_busiest_part() -> None:
    many = rows(key_fetch_num=100, value_fetch_num=20, count=400)
    program = lowered(many)
    select = float(expected_quick_select(100, 20, 4).cycles)
    busiest = max(200.0, 100 + 22, select) * 400 * 1e-9
    for latency in (float(evaluate(program).latency_s[0]), simulate_events(program).latency_s):
        assert busiest <= latency <= busiest * 1.01
    layers = replace(many, columns=many.columns)
    assert evaluate(lowered(layers, width=np.array([1, 64]), points=2)).bound_by.tolist() == ["pick", "DRAM"]


def test_design_points_are_evaluated_together() -> None:
    trace = rows(layer_id=[0, 0, 1], key_fetch_num=[100, 50, 30], value_fetch_num=[20, 10, 30], count=[3, 1, 2])
    widths, dense = np.array([1, 4, 16]), np.array([0, 1, 0])
    together = evaluate(lowered(trace, points=3, width=widths, dense=dense))
    for point in range(3):
        alone = evaluate(lowered(trace, width=int(widths[point]), dense=int(dense[point])))
        assert together.latency_s[point] == pytest.approx(alone.latency_s[0])
        assert together.energy_j[point] == pytest.approx(alone.energy_j[0])


@pytest.mark.parametrize(
    ("columns", "settings", "message"),
    [
        ({"key_fetch_num": [9, 300]}, {"tokens": 256}, "trace.csv: row 2: 300 keys are more than the SRAM holds"),
        (
            {"key_fetch_num": [9, 300], "value_fetch_num": 5},
            {"width": 2},
            "row 2: the top-k engine 'pick' holds 256 values",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused_with_their_number(
    columns: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        lowered(rows(**columns), **settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("on: pick", "on: pik", r"stages\[2\].on: .*no part 'pik' .did you mean 'pick'"),
        (
            "after: [scores]",
            "after: [score]",
            r"plan.phases\[0\].stages\[2\].after: unknown stage 'score' .did you mean 'scores'",
        ),
        ("stage: outputs", "stage: load", "the stage 'load' occurs twice"),
        (
            "queries: query_num",
            "queries: query_num / 2",
            "trace.csv: row 1: queries 'query_num / 2' must be a whole number",
        ),
        ("mac: keys * 64}", "mac: kys * 64}", r"stages\[1\].ops.mac: unknown name 'kys'|kys"),
        ("mac: keys * 64}", "mac: 0 - keys}", "expected a number of at least 0"),
        ("mac: keys * 64}", "exp: keys}", "the unit 'multiply' cannot run 'exp'"),
        ("DRAM: {K: {read", "DARM: {K: {read", "no memory 'DARM'"),
        ("serial: layer_id", "serial: layer", "rows.serial: unknown column 'layer'"),
        ("    rows:", "    tiles: 3\n    rows:", "either a series of tiles or those of a trace's rows"),
        ("where(dense, s", "where(dens, s", "variables.keys: unknown name 'dens' .did you mean 'dense'"),
        ("dense: 0", "count: 0", "the variable 'count' has the name of a column"),
        ("on: multiply\n      ops: {mac: keys * 64}", "ops: {mac: 1}", "needs `on`"),
        ("select: {from: keys, keep: value_fetch_num}", "latency: 1", "selects nothing"),
        ("on: pick\n", "on: multiply\n      ops: {mac: 1}\n", "the stage selects, but 'multiply' is no top-k engine"),
        ("keep: value_fetch_num", "keep: keys + 1", "row 1: the stage 'select' cannot select 11 of 10 values"),
        ("ops: {mac: value_fetch_num * 64, add: 1}", "latency: 2", "has no operations"),
        ("plan:", "nest: [{compute: QK, on: x}]\nplan:", "a mapping is a nest, a plan or a GPU kernel, found two of them"),
        ("    - stage: select", "    - stage: select\n      op: 1", "op"),
    ],
)
def test_mistakes_in_a_plan_over_rows_are_refused(old: str, new: str, message: str) -> None:
    assert old in PLAN
    with pytest.raises(SpecError, match=message):
        lowered(rows(key_fetch_num=10), PLAN.replace(old, new))
