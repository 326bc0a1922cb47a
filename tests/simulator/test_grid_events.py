"""Thread blocks spelled out for the event evaluator: work is conserved, and small grids come out as worked by hand."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from architectures import Architecture
from kernels.case import Case
from kernels.predict import arguments_of, description, predict
from mappings.gpu.lowering import lower
from mappings.program import Dependence, Droop, Phase, Residency, Resource, Step, Stream, TileProgram, Traffic
from simulator.analytic import evaluate
from simulator.event import evaluate_events, simulate_events

READ, WRITE = {("L2", "K"): Traffic(read_bytes=1.0)}, {("L2", "O"): Traffic(write_bytes=1.0)}
MULTIPROCESSORS = 2


def grid(steps: list[Step], tiles: int, blocks: int, slots: int = 1, residency: Residency | None = None) -> TileProgram:
    """Blocks of equal tiles on two multiprocessors; the DRAM is shared."""

    def order(point: int, instance: int, limit: int | None = None) -> np.ndarray:
        return np.zeros(tiles, dtype=np.int32)[:limit]

    counts = np.array([[float(tiles)]])
    arrays = [replace(step, busy_s=np.array([[float(step.busy_s)]])) for step in steps]
    stream = Stream("blocks", tuple(arrays), counts, order, blocks, slots, residency=residency or Residency())
    private = {name: Resource(name, MULTIPROCESSORS) for name in ("port", "tensor", "vector")}
    return TileProgram(
        phases=(Phase("grid", (stream,)),),
        resources={**private, "DRAM": Resource("DRAM")},
        points=1,
        energy_j={},
        peak_per_s={},
        clock_hz=np.ones((1, 1)),
    )


def latency_s(*arguments: object, **more: object) -> float:
    return simulate_events(grid(*arguments, **more)).latency_s  # type: ignore[arg-type]


COMPUTE = [Step("mma", "tensor", 2.0, 1.0), Step("exp", "vector", 3.0, 0.0, (Dependence("mma"),))]


def test_a_team_works_through_its_tiles_one_after_another() -> None:
    assert latency_s(COMPUTE, 10, 2) == 10 * (2 + 1 + 3)


FORKED = [
    COMPUTE[0],
    Step("mma operands", "port", 5.0, beside="mma"),
    Step("mma issue", "vector", 1.0, beside="mma"),
    COMPUTE[1],
]


@pytest.mark.parametrize("steps", [COMPUTE, FORKED])
@pytest.mark.parametrize("residency", [Residency(), Residency(teams=2), Residency(in_flight=2), Residency(free=True)])
@pytest.mark.parametrize(("blocks", "slots"), [(2, 1), (4, 2), (8, 2)])
def test_a_tile_takes_what_the_closed_form_says(
    steps: list[Step], residency: Residency, blocks: int, slots: int
) -> None:
    """Nothing is shared by the multiprocessors: the two evaluators have nothing to differ in."""
    program = grid(steps, 10, blocks, slots, residency)
    assert simulate_events(program).latency_s == pytest.approx(float(evaluate(program).latency_s[0]), rel=1e-9)


def played_s(steps: list[Step], tiles: int, blocks: int, slots: int) -> float:
    """The same blocks with their units played one step after another, without what a `Residency` knows."""
    program = grid(steps, tiles, blocks, slots)
    (stream,) = program.phases[0].streams
    begin = (Dependence("tile", 1),)
    after = {"mma": begin, "mma operands": begin, "mma issue": begin}
    made = [
        replace(step, beside="", after=after.get(step.name, tuple(map(Dependence, after.keys() & names))))
        for names in [{each.name for each in steps}] for step in stream.steps
    ]  # fmt: skip
    tile = Step("tile", None, 0.0, 0.0, tuple(Dependence(step.name) for step in made))
    spelled = replace(stream, steps=(*made, tile), residency=None)
    return simulate_events(replace(program, phases=(Phase("grid", (spelled,)),))).latency_s


def test_the_network_is_near_what_units_played_step_by_step_take() -> None:
    """Mean values count customers in front of a station as if they could not arrange themselves."""
    assert played_s(COMPUTE, 10, 2, 1) == 10 * (2 + 1 + 3) == latency_s(COMPUTE, 10, 2)
    assert played_s(COMPUTE, 40, 4, 2) == pytest.approx(2 * 40 * 3, rel=0.05)  # each hides the other's latency
    assert played_s(FORKED, 40, 4, 2) == pytest.approx(2 * 40 * 5, rel=0.1)  # the busiest unit
    for steps in (COMPUTE, FORKED):
        played = played_s(steps, 40, 4, 2)
        assert played < latency_s(steps, 40, 4, slots=2) < 1.4 * played


def test_blocks_start_one_by_one_and_set_up() -> None:
    slow = Residency(start_s=5.0, setup_s=7.0)
    assert latency_s([Step("mma", "tensor", 1.0)], 4, 2, residency=slow) == 2 * 5.0 + 7.0 + 4.0


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        (2, 4 * (1 + 10 + 3) + 3),  # two tiles, then the loads that wait for their buffers
        (9, 11 + 8 * 3),
    ],
)
def test_loads_run_ahead_by_the_stages_of_their_pipeline(stages: int, expected: float) -> None:
    ahead = (Dependence("use", stages),)
    steps = [Step("load", "port", 1.0, 10.0, ahead, READ), Step("use", "tensor", 3.0)]
    assert latency_s(steps, 8, 1) == pytest.approx(expected, rel=0.03)


def test_loads_that_run_ahead_hide_the_queue_of_the_memory() -> None:
    """The DRAM takes 4 s for each of two blocks' tiles, the tiles 9 s: only the first ones wait for it."""
    ahead = (Dependence("use", 3),)
    steps = [Step("load DRAM", "DRAM", 4.0), Step("load", "port", 1.0, 0.0, ahead, READ), Step("use", "tensor", 9.0)]
    assert latency_s(steps, 10, 2) == pytest.approx(4 + 4 + 10 * 9, rel=1e-9)


def test_loads_of_a_tile_are_asked_for_together_and_all_are_waited_for() -> None:
    steps = [
        Step("load K", "port", 1.0, 10.0, (), READ),
        Step("load V", "port", 1.0, 10.0, (Dependence("load K"),), READ),
        Step("use", "tensor", 3.0, 0.0, (Dependence("load V"),)),
    ]
    assert latency_s(steps, 5, 1) == 5 * (2 + 10 + 3)


def test_blocks_contend_for_the_memory_that_they_share() -> None:
    steps = [
        Step("load DRAM", "DRAM", 4.0),
        Step("load", "port", 1.0, 2.0, (), READ),
        Step("use", "tensor", 1.0, 0.0, (Dependence("load"),)),
    ]
    assert latency_s(steps, 10, 1) == 10 * (4 + 1 + 2 + 1)
    assert latency_s(steps, 10, 2) == pytest.approx(2 * 10 * 4 + 4, rel=0.05)


def test_a_store_does_not_hold_back_the_next_tile() -> None:
    """Posted: its way is not waited for; the memory takes 2 s for what the last tile stores."""
    steps = [Step("use", "tensor", 3.0), Step("store DRAM", "DRAM", 2.0), Step("store", "port", 1.0, -1.0, (), WRITE)]
    assert latency_s(steps, 6, 1) == 6 * 3 + 2


def test_a_busy_unit_lowers_the_clock() -> None:
    droop = Residency(droop=Droop("tensor", 0.1, 0.2))
    assert latency_s([Step("mma", "tensor", 1.0)], 10, 2, residency=droop) == pytest.approx(10 / (0.9 * 0.8))


def test_both_evaluators_slow_down_alike_at_the_limit_of_power() -> None:
    """A large product draws more than 400 W: the clock falls until what it draws on average is that."""
    case = Case(
        "matmul", batch=1, heads=1, kv_heads=1, q_len=4096, kv_len=4096, head_dim=1024, block_m=128, block_n=256,
        block_k=64, warps=8, stages=3,
    )  # fmt: skip
    cool, warm = (
        lower(
            description(case.kernel),
            Architecture.load("h100-sxm").evaluate({"power_limit_w": limit_w}),
            arguments_of(case),
        )
        for limit_w in (1e6, 400.0)
    )
    slower = [float(run(warm).latency_s[0] / run(cool).latency_s[0]) for run in (evaluate, evaluate_events)]
    assert min(slower) > 1.2
    assert slower[0] == pytest.approx(slower[1], rel=0.03)
    (stream,) = warm.phases[0].streams
    limit = stream.residency.power if stream.residency else None
    assert limit is not None
    actions = [(warm.energy_j[name], count) for step in stream.steps for name, count in step.actions.items()]
    dynamic = sum(float(np.sum(each * count * stream.counts)) for each, count in actions) * float(stream.instances)
    shortest_s, run_s = (simulate_events(program).latency_s for program in (cool, warm))
    undrooped_s = simulate_events(_without_droop(cool)).latency_s
    drawn_j = limit.idle_w * run_s + dynamic * (undrooped_s / run_s) ** limit.exponent
    assert run_s > shortest_s > undrooped_s
    drawn_w = (drawn_j + limit.pause_w * limit.pause_s) / (run_s + limit.pause_s)
    assert drawn_w == pytest.approx(400, rel=0.05)  # the L2 keeps its rate: times do not tell the clock exactly


def _without_droop(program: TileProgram) -> TileProgram:
    (phase,) = program.phases
    (stream,) = phase.streams
    assert stream.residency is not None
    steady = replace(stream, residency=replace(stream.residency, droop=Droop()))
    return replace(program, phases=(replace(phase, streams=(steady,)),))


@pytest.mark.parametrize("causal", [False, True])
def test_a_kernel_keeps_its_work_and_its_bounds(causal: bool, tmp_path: Path) -> None:
    machine = Architecture.load("h100-sxm").evaluate({})
    case = Case(
        "flash_attention", batch=1, heads=10, kv_heads=10, q_len=1024, kv_len=1024, head_dim=128, causal=causal,
        block_m=128, block_n=64, warps=8, stages=2,
    )  # fmt: skip
    program = lower(description(case.kernel), machine, arguments_of(case))
    found = simulate_events(program)
    (stream,) = program.phases[0].streams
    for name, resource in program.resources.items():
        work = sum(
            float(np.sum(np.asarray(step.busy_s) * stream.counts)) * int(np.max(stream.instances))
            for step in stream.steps
            if step.resource == name
        )
        assert found.busy_s.get(name, 0.0) == pytest.approx(work, rel=1e-9)
        assert found.latency_s >= work / float(np.max(resource.copies))
    timed = evaluate_events(program, trace=tmp_path / "t.json")
    analytic = evaluate(program)
    assert timed.traffic_bytes["DRAM"]["total"]["read"] == analytic.traffic_bytes["DRAM"]["total"]["read"]
    assert float(timed.latency_s[0]) == pytest.approx(predict(case, machine, "event").time_s)
    assert float(timed.latency_s[0]) == pytest.approx(float(analytic.latency_s[0]), rel=0.1)
    tracks = defaultdict(list)
    for event in json.loads((tmp_path / "t.json").read_text())["traceEvents"]:
        if event["ph"] == "X":
            tracks[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    assert len(tracks) > 80  # a track for each unit of the multiprocessors that the 80 blocks use
    for spans in tracks.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(spans)))


SHAPES = {
    "flash_attention": {"batch": 4, "heads": 16, "q_len": 2048, "head_dim": 128, "block_m": 128, "block_n": 64},
    "matmul": {"q_len": 2048, "kv_len": 4096, "head_dim": 2048, "block_m": 128, "block_n": 128, "block_k": 64},
    "flash_decode": {
        "batch": 4,
        "heads": 32,
        "kv_heads": 8,
        "kv_len": 8192,
        "head_dim": 128,
        "block_m": 16,
        "splits": 8,
    },
    "linear_attention": {"batch": 8, "heads": 16, "q_len": 2048, "head_dim": 128, "block_m": 64, "block_n": 64},
}


@pytest.mark.parametrize("stages", [2, 3])
@pytest.mark.parametrize("kernel", SHAPES)
def test_the_two_evaluators_agree_on_kernels(kernel: str, stages: int) -> None:
    machine = Architecture.load("h100-sxm").evaluate({})
    causal = kernel == "linear_attention"
    fields = {"block_n": 64, "q_len": 1, **SHAPES[kernel], "warps": 4, "stages": stages, "causal": causal}
    case = Case.from_fields({"kernel": kernel, "dtype": "fp16", **fields})
    program = lower(description(kernel), machine, arguments_of(case))
    closed, played = float(evaluate(program).latency_s[0]), float(evaluate_events(program).latency_s[0])
    assert played == pytest.approx(closed, rel=0.1)
    launches = sum(program.launch_s) if len(program.phases) > 1 else program.launch_s[0]
    in_part = simulate_events(program, max_tile_steps=100_000)
    assert in_part.latency_s + launches == pytest.approx(played, rel=0.1)
