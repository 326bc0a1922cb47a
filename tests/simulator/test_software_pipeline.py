"""The planned order: feasible, at the bound where any schedule is, and followed by the event evaluator."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappings.program import Dependence, Phase, Resource, Step, Stream, TileProgram
from simulator.analytic import evaluate
from simulator.critical_path import recurrence_s
from simulator.event import evaluate_events, simulate_events
from simulator.point_stream import PointStream
from simulator.software_pipeline import SoftwarePipeline, slowest_cycle_s


def program(steps: tuple[Step, ...], tiles: int) -> TileProgram:
    """One stream of equal tiles."""

    def order(point: int, instance: int, limit: int | None = None) -> np.ndarray:
        return np.zeros(tiles if limit is None else min(tiles, limit), dtype=np.int32)

    names = {step.resource for step in steps if step.resource is not None}
    return TileProgram(
        phases=(Phase("phase", (Stream("s", steps, np.array([[float(tiles)]]), order),)),),
        resources={name: Resource(name) for name in names},
        points=1,
        energy_j={},
        peak_per_s={},
        clock_hz=np.ones((1, 1)),
    )


def pipeline(whole: TileProgram) -> SoftwarePipeline:
    return PointStream.build(whole.phases[0].streams[0], whole, 0).pipeline


@st.composite
def loops(draw: st.DrawFn, most: int = 7, whole: bool = False) -> tuple[Step, ...]:
    """Steps in the order of the data, some on the same resource, with recurrences and buffers."""
    seconds = st.integers(1, 6).map(float) if whole else st.floats(0.2, 2.0)
    count = draw(st.integers(2, most))
    steps = []
    for k in range(count):
        after = {draw(st.integers(0, k - 1)): 0 for _ in range(2)} if k else {}
        for other in draw(st.lists(st.integers(0, count - 1), max_size=2)):
            after.setdefault(other, draw(st.integers(1, 4)))
        waits = tuple(Dependence(f"s{other}", distance) for other, distance in after.items())
        latency = draw(st.one_of(st.just(0.0), seconds))
        steps.append(Step(f"s{k}", draw(st.sampled_from(["r0", "r1", "r2"])), draw(seconds), latency, waits))
    return tuple(steps)


@settings(max_examples=150, deadline=None)
@given(loops())
def test_tile_steps_come_after_what_they_wait_for(steps: tuple[Step, ...]) -> None:
    plan = pipeline(program(steps, 1))
    index = {step.name: place for place, step in enumerate(steps)}
    for place, step in enumerate(steps):
        for wait in step.after:
            other = index[wait.step]
            turn = (plan.stage[place] + wait.distance, plan.place[place])
            assert turn > (plan.stage[other], plan.place[other])


@settings(max_examples=150, deadline=None)
@given(loops())
def test_the_bound_is_the_largest_load_or_the_slowest_cycle(steps: tuple[Step, ...]) -> None:
    whole = program(steps, 1)
    load: dict[str | None, float] = {}
    for step in steps:
        load[step.resource] = load.get(step.resource, 0.0) + float(step.busy_s)
    cycles = float(recurrence_s(whole.phases[0].streams[0]).item())
    assert pipeline(whole).bound_s == pytest.approx(max(cycles, *load.values()), rel=1e-9)
    edges = PointStream.build(whole.phases[0].streams[0], whole, 0).edges
    times = np.array([float(step.busy_s) + float(step.latency_s) for step in steps])
    assert slowest_cycle_s(times, edges) == pytest.approx(cycles, rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(loops())
def test_equal_tiles_agree_with_the_analytic_evaluator_where_a_plan_reaches_its_interval(
    steps: tuple[Step, ...],
) -> None:
    whole = program(steps, 200)
    plan, event = pipeline(whole), simulate_events(whole).latency_s
    analytic = float(evaluate(whole).latency_s[0])
    assert event >= plan.bound_s * 200 * (1 - 1e-9)
    assert event <= plan.interval_s * 200 + 8 * sum(float(s.busy_s) + float(s.latency_s) for s in steps)
    if plan.interval_s <= plan.bound_s * 1.001:
        assert event == pytest.approx(analytic, rel=0.01)


@settings(max_examples=60, deadline=None)
@given(loops(), st.integers(0, 6), st.floats(0.1, 1.0))
def test_a_shorter_step_in_the_same_order_is_never_slower(steps: tuple[Step, ...], place: int, factor: float) -> None:
    """With a fixed order there are no anomalies (Graham 1969): the plan of the shorter steps is at least as fast."""
    place %= len(steps)
    shorter = tuple(
        Step(step.name, step.resource, float(step.busy_s) * (factor if k == place else 1), step.latency_s, step.after)
        for k, step in enumerate(steps)
    )
    assert pipeline(program(shorter, 1)).interval_s <= pipeline(program(steps, 1)).interval_s * 1.0025


def brute_force_interval(steps: tuple[Step, ...]) -> int:
    """The least whole interval for whole times: every whole start up to twice the sum of all times is tried.

    With whole times and a whole interval, whole starts are enough: every constraint is a difference of two starts.
    """
    times = [(int(float(step.busy_s)), int(float(step.latency_s))) for step in steps]
    index = {step.name: place for place, step in enumerate(steps)}
    span = sum(busy + latency for busy, latency in times)
    for interval in range(1, span + 1):
        for starts in product(range(2 * span + 1), repeat=len(steps) - 1):
            begin = (0, *starts)
            fits = all(
                begin[k] >= begin[index[wait.step]] + sum(times[index[wait.step]]) - interval * int(wait.distance)
                for k, step in enumerate(steps)
                for wait in step.after
            )
            if (
                fits
                and all(
                    (begin[b] - begin[a]) % interval >= times[a][0] and (begin[a] - begin[b]) % interval >= times[b][0]
                    for a, b in permutations(range(len(steps)), 2)
                    if a < b and steps[a].resource == steps[b].resource
                )
                and all(busy <= interval for busy, _ in times)
            ):
                return interval
    raise AssertionError("one tile at a time always fits")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_no_plan_is_shorter_than_the_best_of_all_and_the_plan_reaches_it(data: st.DataObject) -> None:
    """Three steps of whole times, against all schedules that start them at whole times."""
    times = [(data.draw(st.integers(1, 4)), data.draw(st.integers(0, 2))) for _ in range(3)]
    back = data.draw(st.integers(1, 2))
    extra = data.draw(st.sampled_from([(), (Dependence("s2", 1),)]))
    resources = data.draw(st.lists(st.sampled_from(["x", "y"]), min_size=3, max_size=3))
    waits = ((Dependence("s2", back),), (Dependence("s0"), *extra), (Dependence("s1"),))
    steps = tuple(Step(f"s{k}", resources[k], float(times[k][0]), float(times[k][1]), waits[k]) for k in range(3))
    best = brute_force_interval(steps)
    assert best - 1 < pipeline(program(steps, 1)).interval_s <= best * 1.0021  # a broken interval may be shorter


TIGHT = (
    Step("a", "x", 2.0, 0.0, (Dependence("b", 1),)),
    Step("b", "y", 3.0, 0.0, (Dependence("a"),)),
    Step("off", "x", 3.0),
)
"""The recurrence a, b takes 5 s, and x works for 5 s: `off` just fits between two a."""


def test_a_step_off_a_tight_recurrence_waits_for_its_gap() -> None:
    assert simulate_events(program(TIGHT, 1000)).latency_s == pytest.approx(5.0 * 1000, rel=0.002)


def test_an_interval_that_no_order_reaches_is_said_in_the_result() -> None:
    """The recurrence leaves x two gaps of 2 s in each 8 s; a step of 3 s fits in neither."""
    steps = (
        Step("a", "x", 2.0, 2.0, (Dependence("b", 1),)),
        Step("b", "x", 2.0, 2.0, (Dependence("a"),)),
        Step("off", "x", 3.0),
    )
    whole = program(steps, 500)
    assert float(evaluate(whole).latency_s[0]) == pytest.approx(8.0 * 500, rel=0.01)
    result = evaluate_events(whole)
    assert float(result.latency_s[0]) == pytest.approx(9.0 * 500, rel=0.01)
    assert any("no order of its steps" in note for note in result.assumptions)
    assert not any("no order" in note for note in evaluate_events(program(TIGHT, 10)).assumptions)
