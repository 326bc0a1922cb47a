"""Recurrences and tile latencies: by hand, and against a brute-force search over closed walks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsum.errors import EinsightError
from mappings.program import Dependence, Step, Stream
from simulator.critical_path import MAX_CYCLES, recurrence_s, recurrences, tile_latency_s


def stream(*steps: Step, counts: object = ((1.0,),)) -> Stream:
    return Stream(
        "s", steps, np.asarray(counts, dtype=float), lambda point, instance, limit=None: np.zeros(1, np.int32)
    )


def test_a_step_alone_lasts_its_busy_time_and_its_latency() -> None:
    assert tile_latency_s(stream(Step("a", "r", 2.0, 3.0))) == 5.0


def test_a_step_that_follows_itself_is_work_of_its_resource_and_a_recurrence_only_without_one() -> None:
    assert recurrence_s(stream(Step("a", "r", 2.0, 3.0))) == 0.0
    assert recurrence_s(stream(Step("a", None, 2.0, 3.0))) == 2.0
    assert recurrence_s(stream(Step("a", None, 0.0, 3.0))) == 0.0


def test_a_running_maximum_recurs_after_all_of_its_chain() -> None:
    chain = stream(
        Step("max", "alu", 1.0, 0.5, (Dependence("rescale", 1),)),
        Step("exp", "sfu", 2.0, 0.25, (Dependence("max"),)),
        Step("rescale", "alu", 0.5, 0.0, (Dependence("exp"),)),
    )
    assert recurrence_s(chain) == 1.0 + 0.5 + 2.0 + 0.25 + 0.5
    assert [sorted(found.steps) for found in recurrences(chain)] == [["exp", "max", "rescale"]]
    assert tile_latency_s(chain) == 4.25


def test_a_buffer_of_depth_d_divides_the_loop_through_it_for_all_points_and_classes() -> None:
    depth = np.array([1, 2, 4])
    busy = np.array([[1.0, 0.0], [1.0, 3.0], [2.0, 3.0]])
    looped = stream(
        Step("load", "mem", busy, 1.0, (Dependence("use", depth),)),
        Step("use", "mac", 4.0, 0.0, (Dependence("load"),)),
        counts=((5.0, 5.0),),
    )
    loop = np.where(busy > 0, busy + 1.0, 0.0) + 4.0
    np.testing.assert_allclose(recurrence_s(looped), loop / depth[:, None])
    np.testing.assert_allclose(tile_latency_s(looped), loop)


def test_a_distance_that_is_zero_at_some_points_lies_inside_the_tile_only_there() -> None:
    both = stream(Step("a", "r", 1.0), Step("b", "q", 2.0, after=(Dependence("a", np.array([0, 1])),)))
    np.testing.assert_allclose(tile_latency_s(both), [[3.0], [2.0]])


def test_steps_in_any_order_give_the_longest_path() -> None:
    backwards = stream(
        Step("c", None, 3.0, after=(Dependence("b"),)),
        Step("b", None, 2.0, after=(Dependence("a"),)),
        Step("a", None, 1.0),
    )
    assert tile_latency_s(backwards) == 6.0


def test_a_loop_without_distance_is_refused_by_name() -> None:
    stuck = stream(Step("a", "r", 1.0, after=(Dependence("b"),)), Step("b", "q", 1.0, after=(Dependence("a"),)))
    with pytest.raises(EinsightError, match=r"a -> b -> a|b -> a -> b"):
        recurrence_s(stuck)
    with pytest.raises(EinsightError, match="within one tile"):
        tile_latency_s(stuck)


def test_an_unknown_step_is_refused_with_the_closest_one() -> None:
    with pytest.raises(EinsightError, match=r"unknown step 'laod' \(did you mean 'load'\?\)"):
        recurrence_s(stream(Step("load", "r", 1.0), Step("use", "r", 1.0, after=(Dependence("laod"),))))


def test_a_negative_distance_is_refused() -> None:
    with pytest.raises(EinsightError, match="negative"):
        recurrence_s(stream(Step("a", "r", 1.0, after=(Dependence("a", -1),))))


def test_two_steps_of_one_name_are_refused() -> None:
    with pytest.raises(EinsightError, match="same name"):
        recurrence_s(stream(Step("a", "r", 1.0), Step("a", "r", 1.0)))


def test_more_cycles_than_can_be_enumerated_are_refused() -> None:
    names = [f"s{index}" for index in range(9)]  # a complete graph of 9 steps has over 100,000 simple cycles
    tangled = stream(*(Step(name, None, 1.0, after=tuple(Dependence(other, 1) for other in names)) for name in names))
    with pytest.raises(EinsightError, match=f"more than {MAX_CYCLES:,} dependence cycles"):
        recurrence_s(tangled)


@settings(max_examples=60)
@given(st.data())
def test_recurrence_equals_the_growth_rate_of_the_longest_walk(data: st.DataObject) -> None:
    """Brute force: the best ratio over every cyclic sequence of distinct steps that the dependences allow."""
    size = data.draw(st.integers(1, 4))
    times = data.draw(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), min_size=size, max_size=size))
    pairs = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1), st.integers(1, 3))
    edges = data.draw(st.lists(pairs, max_size=8))
    steps = [
        Step(f"s{i}", "r", busy, latency, tuple(Dependence(f"s{first}", d) for first, then, d in edges if then == i))
        for i, (busy, latency) in enumerate(times)
    ]
    best = 0.0
    for length in range(1, size + 1):
        for cycle in itertools.permutations(range(size), length):
            around = list(zip(cycle, (*cycle[1:], cycle[0]), strict=True))
            choices = [[d for first, then, d in edges if (first, then) == pair] for pair in around]
            for chosen in itertools.product(*choices):
                best = max(best, sum(sum(times[i]) for i in cycle) / sum(chosen))
    assert recurrence_s(stream(*steps)).item() == pytest.approx(best, rel=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=14))
def test_the_cycles_of_a_graph_are_those_that_networkx_finds(edges: set[tuple[int, int]]) -> None:
    import networkx as nx

    steps = tuple(
        Step(str(then), "r", 1.0, 0.0, tuple(Dependence(str(first), 1) for first, other in edges if other == then))
        for then in range(7)
    )
    found = sorted(tuple(int(name) for name in cycle.steps) for cycle in recurrences(stream(*steps)))
    expected = [cycle[cycle.index(min(cycle)) :] + cycle[: cycle.index(min(cycle))] for cycle in
                nx.simple_cycles(nx.DiGraph(sorted(edges)))]  # fmt: skip
    assert found == sorted(tuple(cycle) for cycle in expected)
