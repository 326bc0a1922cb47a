"""Small tile programs with answers worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from mappings.program import Dependence, Phase, Resource, Step, Stream, TileProgram, Traffic
from simulator.analytic import evaluate


def in_a_row(point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
    raise AssertionError("the analytic evaluator never asks for the order of tiles")


def stream(*steps: Step, counts: Any = 10.0, **options: Any) -> Stream:
    return Stream("stream", steps, np.atleast_2d(np.asarray(counts, dtype=float)), in_a_row, **options)


def program(
    *phases: Phase | Stream, points: int = 1, copies: dict[str, int] | None = None, **options: Any
) -> TileProgram:
    whole = tuple(part if isinstance(part, Phase) else Phase(part.name, (part,)) for part in phases)
    used = {step.resource for phase in whole for part in phase.streams for step in part.steps if step.resource}
    fields = {"energy_j": {}, "peak_per_s": {}, "clock_hz": np.full((1, 1), 1e9)} | options
    return TileProgram(
        whole, {name: Resource(name, (copies or {}).get(name, 1)) for name in used}, points=points, **fields
    )


def latency(*phases: Phase | Stream, **options: Any) -> float:
    return float(evaluate(program(*phases, **options)).latency_s[0])


def after(*names: str, distance: Any = 0) -> tuple[Dependence, ...]:
    return tuple(Dependence(name, distance) for name in names)


LOAD = Step("load", "memory", 2.0)
WORK = Step("work", "array", 3.0, after=after("load"))


def test_tiles_overlap_and_the_busiest_resource_sets_the_pace() -> None:
    result = evaluate(program(stream(LOAD, WORK, hidden_fill=True)))
    assert result.latency_s[0] == 30
    assert result.bound_by[0] == "array"
    assert result.cycles[0] == 30e9


def test_a_single_buffer_makes_load_and_work_take_turns() -> None:
    load = Step("load", "memory", 2.0, after=after("work", distance=1))
    result = evaluate(program(stream(load, WORK, hidden_fill=True)))
    assert result.latency_s[0] == 50
    assert result.bound_by[0] == "dependences"


def test_tiles_in_turn_need_no_time_to_fill() -> None:
    load = Step("load", "memory", 2.0, after=after("work", distance=1))
    assert latency(stream(load, WORK)) == latency(stream(load, WORK, hidden_fill=True)) == 50


def test_two_buffers_hide_the_shorter_of_load_and_work() -> None:
    load = Step("load", "memory", 2.0, after=after("work", distance=2))
    assert latency(stream(load, WORK, hidden_fill=True)) == 30


@pytest.mark.parametrize(("distance", "expected"), [(1, 70), (2, 35), (3, 30)])
def test_a_recurrence_takes_its_seconds_over_its_distance(distance: int, expected: float) -> None:
    first = Step("first", "a", 3.0, latency_s=1.0, after=after("second", distance=distance))
    second = Step("second", "b", 3.0, after=after("first"))
    assert_allclose(latency(stream(first, second, hidden_fill=True)), expected)


def test_distances_may_differ_between_points() -> None:
    first = Step("first", "a", 3.0, after=after("second", distance=np.array([1, 2, 4])))
    second = Step("second", "b", 5.0, after=after("first"))
    result = evaluate(program(stream(first, second, hidden_fill=True), points=3))
    assert_allclose(result.latency_s, [80, 50, 50])


def test_a_stall_in_a_sequence_lengthens_every_tile() -> None:
    stall = Step("stall", None, 0.0, latency_s=4.0, after=after("work"))
    work = Step("work", "array", 3.0, after=after("stall", distance=1))
    assert latency(stream(work, stall, hidden_fill=True)) == 70


def test_classes_of_tiles_add_up() -> None:
    busy = np.array([[2.0, 0.0, 5.0]])
    both = stream(Step("load", "memory", busy), Step("work", "array", 1.0), counts=[4, 10, 2], hidden_fill=True)
    result = evaluate(program(both))
    assert result.latency_s[0] == 4 * 2 + 2 * 5
    assert result.bound_by[0] == "memory"


def test_rare_long_loads_overlap_with_the_tiles_that_need_none() -> None:
    load = Step("load", "memory", np.array([[9.0, 0.0]]))
    assert latency(stream(load, Step("work", "array", 1.0), counts=[1, 9], hidden_fill=True)) == 10


def test_phases_follow_one_another_and_repeat() -> None:
    one = Phase("one", (stream(LOAD, hidden_fill=True),), repeat=3)
    two = Phase("two", (stream(Step("work", "array", 5.0), hidden_fill=True),))
    result = evaluate(program(one, two))
    assert result.latency_s[0] == 3 * 20 + 50
    assert [(phase.name, phase.latency_s[0]) for phase in result.phases] == [("one", 60), ("two", 50)]
    assert result.bound_by[0] == "memory"


def test_streams_of_a_phase_share_what_they_both_use() -> None:
    a, b = (stream(Step("load", "memory", 2.0), hidden_fill=True) for _ in range(2))
    c = stream(Step("work", "array", 3.0), hidden_fill=True)
    assert latency(Phase("all", (a, b, c))) == 40


@pytest.mark.parametrize(("instances", "waves"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_instances_run_on_private_copies_in_waves(instances: int, waves: int) -> None:
    blocks = stream(Step("work", "core", 3.0), instances=instances, hidden_fill=True)
    assert latency(blocks, copies={"core": 4}) == waves * 30


def test_two_slots_of_a_copy_hide_the_waits_of_its_instances() -> None:
    wait = Step("wait", None, 0.0, latency_s=3.0, after=after("work"))
    work = Step("work", "core", 3.0, after=after("wait", distance=1))
    one = stream(work, wait, instances=4, slots=1, hidden_fill=True)
    two = stream(work, wait, instances=4, slots=2, hidden_fill=True)
    assert latency(one, copies={"core": 2}) == 120
    assert latency(two, copies={"core": 2}) == 60


def test_shared_resources_serve_all_instances() -> None:
    blocks = stream(Step("load", "memory", 1.0), Step("work", "core", 3.0), instances=8, hidden_fill=True)
    result = evaluate(program(blocks, copies={"core": 8}))
    assert result.latency_s[0] == 80
    assert result.bound_by[0] == "memory"


def test_totals_of_traffic_energy_and_work() -> None:
    step = Step(
        "work", "array", np.array([[1.0, 2.0]]),
        traffic={("DRAM", "Q"): Traffic(np.array([[8.0, 4.0]]), 1.0), ("DRAM", "K"): Traffic(2.0)},
        actions={("array", "mac"): np.array([[10.0, 20.0]]), ("array.registers", "read"): 1.0},
        work={"array": np.array([[6.0, 12.0]])},
    )  # fmt: skip
    both = stream(step, counts=[3, 2], instances=2, hidden_fill=True)
    energy = {("array", "mac"): np.full((1, 1), 0.5), ("array.registers", "read"): np.full((1, 1), 2.0)}
    peak = {"array": np.full((1, 1), 10.0), "idle": np.full((1, 1), 1.0)}
    result = evaluate(program(Phase("phase", (both,), repeat=5), energy_j=energy, peak_per_s=peak)).point(0)
    data = result.to_dict()
    assert data["latency_s"] == 2 * 5 * (3 * 1 + 2 * 2)
    assert data["traffic_bytes"]["DRAM"] == {
        "total": {"read": 420.0, "write": 50.0}, "Q": {"read": 320.0, "write": 50.0}, "K": {"read": 100.0, "write": 0.0}
    }  # fmt: skip
    assert data["energy_by_component_j"] == {"array": 10 * 70 * 0.5, "array.registers": 10 * 5 * 2.0}
    assert data["energy_j"] == 450
    assert result.energy_without_registers_j()[0] == 350
    assert data["utilization"] == {"array": 10 * (3 * 6 + 2 * 12) / (10 * 70), "idle": 0.0}
    assert data["utilization_by_einsum"]["array"] == {"work": 0.6}
    assert data["area_mm2"] is None


def test_points_are_evaluated_side_by_side() -> None:
    load = Step("load", "memory", np.array([[1.0], [4.0]]))
    work = Step("work", "array", np.array([[3.0], [2.0]]))
    result = evaluate(program(stream(load, work, counts=[[10.0], [20.0]], hidden_fill=True), points=2))
    assert_allclose(result.latency_s, [30, 80])
    assert result.bound_by.tolist() == ["array", "memory"]
    assert result.point(1).to_dict()["latency_s"] == 80
