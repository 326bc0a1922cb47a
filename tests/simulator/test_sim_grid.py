"""Grids of thread blocks: queueing bounds, waves and makespans worked out by hand."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappings.program import PowerLimit
from simulator.class_cost import ClassCost
from simulator.grid import makespan_s
from simulator.residence import residence_s


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=4), st.floats(0, 10), st.integers(1, 12))
def test_a_round_obeys_the_asymptotic_bounds(demands: list[float], latency: float, customers: int) -> None:
    """Muntz and Wong's bounds of a closed network: alone at least, all one after another at most."""
    found = residence_s(demands, latency, customers)
    alone = sum(demands) + latency
    assert found >= max(alone, customers * max(demands)) * (1 - 1e-9)
    assert found <= (customers * sum(demands) + latency) * (1 + 1e-9)


def test_one_customer_takes_the_sum_and_many_the_slowest_station() -> None:
    assert residence_s([1.0, 2.0], 3.0, 1) == 6.0
    assert residence_s([1.0, 2.0], 3.0, 400) / 400 == pytest.approx(2.0, rel=0.01)


def test_two_balanced_stations_by_hand() -> None:
    # One customer: 2 s, half a customer at each. Two: each station takes 1.5 s.
    assert residence_s([1.0, 1.0], 0.0, 2) == pytest.approx(3.0)


def test_blocks_start_in_order_where_one_has_ended() -> None:
    assert makespan_s(np.array([3.0, 1.0, 1.0, 1.0]), 2, np.ones(1)) == 3.0
    assert makespan_s(np.array([1.0, 1.0, 1.0, 3.0]), 2, np.ones(1)) == 4.0
    assert makespan_s(np.array([5.0]), 4, np.ones(1)) == 5.0
    # Two blocks beside each other, the second three times as long: alone it is twice as fast.
    assert makespan_s(np.array([1.0, 3.0]), 1, np.array([0.5, 1.0])) == 2.0


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(5, 8))
def test_blocks_start_one_by_one(durations: list[int], copies: int) -> None:
    """Against a walk over the blocks; with one place each, nobody goes on faster when others have ended."""
    ends = [0.0] * copies
    for duration in durations:
        heapq.heapreplace(ends, ends[0] + duration)
    assert makespan_s(np.array(durations, dtype=float), copies, np.ones(1)) == max(ends)


def test_a_long_grid_is_close_to_its_exact_makespan() -> None:
    durations = np.random.default_rng(1).uniform(1, 2, 2000)
    ends = np.zeros(8)
    for duration in durations:
        ends[ends.argmin()] += duration
    assert makespan_s(durations, 8, np.ones(1)) == pytest.approx(ends.max(), rel=0.01)


def test_a_pipeline_covers_the_loads_of_later_tiles() -> None:
    """By hand: work of 1 s a tile; loads come after 3 s, of which 1.5 tiles of a three-stage pipeline are covered."""
    tile = ClassCost({"tensor": 1.0}, 0.0, 1.0, 3.0, 3, lost_stages=1.5)
    seconds, late = tile.round_s(1, 1)
    assert seconds == pytest.approx(1 + late) and late == pytest.approx(3 - 1.5 * seconds, rel=0.05)
    assert ClassCost({"tensor": 1.0}, 0.0, 0.1, 0.2, 3).round_s(1, 1) == (1.0, 0.0)


def test_what_is_left_behind_overlaps_with_what_follows() -> None:
    """By hand: 1 s on the vector lanes, then a product of 2 s that is left, and 3 s of other work beside it."""
    left = {"aside_s": {"tensor": 2.0}, "beside_s": {"shared": 2.5}}
    tile = ClassCost({"vector": 1.0}, 0.0, 0.0, 0.0, 1, **left, beside_latency_s=0.5)  # type: ignore[arg-type]
    assert tile.round_s(1, 1)[0] == pytest.approx(1 + 3)
    many = tile.round_s(200, 1)[0]
    assert many == pytest.approx(200 * 2.5, rel=0.02)  # the busiest unit in the end


def test_a_fork_takes_its_longest_part_and_keeps_all_of_its_units_busy() -> None:
    """By hand: parts of 2 s and 3 s at once, then 1 s; the unit of 3 s bounds many customers."""
    assert residence_s([1.0, 0.0, 0.0], 0.0, 1, forks_s=[[0.0, 2.0, 3.0]]) == 4.0
    assert residence_s([1.0, 0.0, 0.0], 0.0, 400, forks_s=[[0.0, 2.0, 3.0]]) / 400 == pytest.approx(3.0, rel=0.01)
    assert residence_s([0.0], 0.5, 3, forks_s=[[2.0], [1.0]]) == residence_s([3.0], 0.5, 3)


def test_free_teams_are_faster_than_teams_that_meet() -> None:
    demand = {"tensor": 1.0, "vector": 1.0}
    met, free = (ClassCost(demand, 0.1, 0.0, 0.0, 2, free).round_s(1, 2)[0] for free in (False, True))
    assert free == pytest.approx(residence_s([0.5, 0.5], 0.1, 2))
    assert met == pytest.approx((free + 2.1) / 2)


def test_teams_that_wait_for_the_same_loads_are_in_step() -> None:
    """By hand: both teams wait 3 s for the tile's loads and begin together; no work of one fills that wait."""
    tile = ClassCost({"tensor": 1.0, "vector": 1.0}, 0.1, 0.0, 3.0, 2, lost_stages=2.0, filled_s=0.05)
    seconds, late = tile.round_s(1, 2)
    assert late == pytest.approx(3.0, rel=0.05) and seconds == pytest.approx(1.0 + 1.0 + 0.1 - 0.05 + late)


def test_what_is_taken_in_passing_delays_only_others() -> None:
    """By hand: 1 s of products, which take half of the vector lanes meanwhile, and 1 s on these lanes."""
    assert residence_s([1.0, 1.0], 0.0, 1, taken_s=[0.0, 0.5]) == 2.0
    # The second finds half a customer's work at each station, and a quarter of the lanes taken; its products wait for
    # half of their part of the lanes.
    assert residence_s([1.0, 1.0], 0.0, 2, taken_s=[0.0, 0.5]) == pytest.approx(1.5 + 1.75 + 0.25)
    assert residence_s([1.0, 0.0], 0.0, 50, taken_s=[0.0, 0.5]) == pytest.approx(50.0)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-5, 1e-2), st.floats(0.0, 20.0), st.floats(0.5, 1.0))
def test_the_clock_falls_until_the_limit_is_met(seconds: float, dynamic_j: float, clock: float) -> None:
    limit = PowerLimit(700, 120, 1.75, 1e-4, 500)
    stretch = limit.stretch(lambda by: seconds * by, dynamic_j, clock)
    share, run_s = clock / stretch, seconds * stretch
    drawn_w = (120 * run_s + dynamic_j * share**1.75 + 500 * 1e-4) / (run_s + 1e-4)
    assert stretch >= 1
    if stretch == 1:
        assert drawn_w <= 700 * (1 + 1e-9)
    elif stretch < 4.99:  # no lower than a fifth of the clock
        assert drawn_w == pytest.approx(700, rel=1e-3)
