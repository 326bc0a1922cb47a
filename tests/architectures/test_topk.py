"""Top-k engines: what they select, how long it takes, and that the closed forms are the means of the simulation."""

from __future__ import annotations

import itertools
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import Architecture
from architectures.topk import (
    batcher_comparators,
    batcher_stages,
    eliminate,
    expected_batcher,
    expected_on_softmax,
    expected_on_values,
    expected_quick_select,
    quick_select,
    simulate_mean,
)
from einsum import SpecError

VALUES = st.lists(st.integers(-5, 5), min_size=1, max_size=40)


@given(values=VALUES, data=st.data(), seed=st.integers(0, 100))
@settings(max_examples=80, deadline=None)
def test_quick_select_keeps_the_k_largest_whatever_the_pivots(
    values: list[int], data: st.DataObject, seed: int
) -> None:
    k = data.draw(st.integers(1, len(values)))
    found = quick_select(values, k, 4, rng=np.random.default_rng(seed))
    assert len(found.kept) == k
    assert sorted(np.array(values)[found.kept]) == sorted(values)[-k:]
    lowest = min(np.array(values)[found.kept])
    tied = [place for place, value in enumerate(values) if value == lowest]
    assert [place for place in found.kept if values[place] == lowest] == tied[
        : sum(values[p] == lowest for p in found.kept)
    ]
    assert found.pass_sizes[0] == len(values)
    assert found.cycles == sum(-(-size // 4) + 3 for size in found.pass_sizes)


@given(row=st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=1, max_size=70))
@settings(max_examples=60, deadline=None)
def test_a_zero_eliminator_moves_what_passed_together(row: list[tuple[int, bool]]) -> None:
    values, passed = np.array([value for value, _ in row], float), np.array([keep for _, keep in row])
    assert eliminate(values, passed).tolist() == values[passed].tolist()


def mean_by_recursion(n: int, k: int, parallelism: int, pass_cycles: int) -> float:
    """The definition: a pass over n, then with each pivot as likely the side of the k-th smallest."""

    @cache
    def cycles(size: int, rank: int) -> float:
        here = -(-size // parallelism) + pass_cycles
        rest = [
            cycles(p - 1, rank) if rank < p else cycles(size - p, rank - p) for p in range(1, size + 1) if p != rank
        ]
        return here + sum(rest) / size

    return cycles(n, k)


@pytest.mark.parametrize(("n", "k", "parallelism"), [(1, 1, 4), (7, 3, 1), (40, 40, 16), (60, 12, 8), (33, 17, 5)])
def test_the_closed_form_is_the_mean_over_all_pivots(n: int, k: int, parallelism: int) -> None:
    expected = mean_by_recursion(n, k, parallelism, 3)
    assert float(expected_quick_select(n, k, parallelism).cycles) == pytest.approx(expected, rel=1e-12)
    distinct = expected_on_values(np.arange(n), n - k + 1, parallelism)  # the k-th smallest
    assert distinct[2] + 3 * distinct[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("k", "parallelism"), [(512, 16), (205, 16), (205, 1), (32, 64)])
def test_the_simulated_mean_agrees_with_the_closed_form(k: int, parallelism: int) -> None:
    simulated = simulate_mean("uniform", 1024, k, parallelism, samples=300)
    expected = expected_quick_select(1024, k, parallelism)
    for name in ("cycles", "candidates", "passes"):
        assert float(getattr(simulated, name)) == pytest.approx(float(getattr(expected, name)), rel=0.05)


def test_equal_values_leave_together() -> None:
    values = np.repeat([5.0, 3.0, 1.0], [2, 5, 9])
    found = [quick_select(values, 6, 4, rng=np.random.default_rng(seed)) for seed in range(4000)]
    passes, candidates, rows = expected_on_values(values, 6, 4)
    assert np.mean([len(each.pass_sizes) for each in found]) == pytest.approx(passes, rel=0.02)
    assert np.mean([sum(each.pass_sizes) for each in found]) == pytest.approx(candidates, rel=0.02)
    assert np.mean([each.cycles for each in found]) == pytest.approx(rows + 3 * passes, rel=0.02)
    assert expected_on_values(np.ones(100), 40, 16) == (1.0, 100.0, 7.0)


def test_twelve_bit_probabilities_take_fewer_passes_than_distinct_ones() -> None:
    simulated = simulate_mean("softmax-12bit", 1024, 205, 16, samples=300)
    expected = expected_on_softmax(1024, 205, 16, 3, 1.0, 12)
    assert float(expected.cycles) == pytest.approx(float(simulated.cycles), rel=0.05)
    assert float(expected.cycles) < 0.75 * float(expected_quick_select(1024, 205, 16).cycles)
    fine = expected_on_softmax(1024, 205, 16, 3, 1.0, 40)
    assert float(fine.cycles) == pytest.approx(float(expected_quick_select(1024, 820, 16).cycles), rel=1e-9)


def test_arguments_broadcast_and_nothing_takes_no_time() -> None:
    table = expected_quick_select(np.array([[0, 100, 1024]]), np.array([[1, 20, 205]]), np.array([[1], [16]]))
    assert table.cycles.shape == (2, 3)
    assert table.cycles[:, 0].tolist() == [0, 0]
    assert table.cycles[1, 2] == float(expected_quick_select(1024, 205, 16).cycles)
    softmax = expected_on_softmax(np.array([[0, 100]]), 20, np.array([[1], [16]]), 3, 1, 12)
    assert softmax.cycles[:, 0].tolist() == [0, 0]
    assert softmax.cycles[0, 1] > softmax.cycles[1, 1]


def test_selecting_from_1024_takes_a_linear_number_of_comparisons_and_few_passes() -> None:
    work = expected_quick_select(1024, 512, 16)
    # Median of n: (2 + 2 ln 2) n comparisons (Knuth 1971); about 1024/16 + 3 cycles for the first pass alone.
    assert float(work.candidates - work.passes) == pytest.approx((2 + 2 * np.log(2)) * 1024, rel=0.02)
    gains = [float(expected_quick_select(1024, 205, p).cycles / expected_quick_select(1024, 205, 2 * p).cycles)
             for p in (1, 2, 4, 8, 16, 32)]  # fmt: skip
    assert all(later < earlier for earlier, later in itertools.pairwise(gains))
    assert gains[0] > 1.9
    assert gains[-1] < 1.6


def batcher_network(n: int) -> list[tuple[int, int]]:
    """Compare-exchanges of the odd-even merge sort of n values, by its definition."""

    def merge(low: int, size: int, step: int) -> list[tuple[int, int]]:
        if step * 2 >= size:
            return [(low, low + step)]
        halves = merge(low, size, step * 2) + merge(low + step, size, step * 2)
        return halves + [(i, i + step) for i in range(low + step, low + size - step, step * 2)]

    def sort(low: int, size: int) -> list[tuple[int, int]]:
        if size == 1:
            return []
        half = size // 2
        return sort(low, half) + sort(low + half, half) + merge(low, size, 1)

    return sort(0, n)


@pytest.mark.parametrize("n", [1, 2, 4, 8, 64, 1024])
def test_batchers_network_has_as_many_comparators_as_its_construction(n: int) -> None:
    network = batcher_network(n)
    values = np.random.default_rng(n).permutation(n)
    ready = np.zeros(n, int)
    for low, high in network:
        values[[low, high]] = sorted(values[[low, high]])
        ready[[low, high]] = max(ready[low], ready[high]) + 1
    assert values.tolist() == sorted(values.tolist())
    assert float(batcher_comparators(n)) == len(network)
    assert float(batcher_stages(n)) == ready.max()


def test_quick_select_beats_a_sorter_of_twice_its_comparators_by_the_published_factor() -> None:
    # Published: 1.4 times the throughput of a Batcher sorter at n = 1024, whose width is not given.
    engine = float(expected_quick_select(1024, 512, 16).cycles)  # two arrays of 16 comparators
    assert float(expected_batcher(1024, 512, 64).cycles) / engine == pytest.approx(1.4, rel=0.1)
    assert float(expected_batcher(1024, 512, 32).cycles) / engine == pytest.approx(2.9, rel=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda: quick_select([1, 2], 3, 4), "cannot select 3 of 2 values"),
        (lambda: quick_select([1, 2], 0, 4), "cannot select 0 of 2 values"),
        (lambda: quick_select([1, float("nan")], 1, 4), "needs a list of numbers"),
        (lambda: quick_select(range(9), 1, 4, fifo_rows=2), "9 values do not fit into a FIFO of 2 x 4 = 8"),
        (lambda: quick_select([1], 1, 0), "at least 1 value a cycle"),
        (lambda: simulate_mean("norml", 4, 1, 2), "unknown distribution 'norml' .did you mean 'normal'"),
    ],
)
def test_what_cannot_be_selected_is_refused(change: object, message: str) -> None:
    assert callable(change)
    with pytest.raises(SpecError, match=message):
        change()


ENGINE = """
architecture: engines
variables: {w: 16}
clock: 1 GHz
word_bits: 12
memories:
  HBM: {bandwidth: 512 GB/s, channels: 16, transaction: 32 B}
  DDR: {bandwidth: 10 GB/s}
selectors:
  fast: {parallelism: w, pass_cycles: 3, fifo_rows: 64, compare_energy: 1 pJ}
  sorter: {algorithm: batcher, parallelism: 64}
"""


def test_an_architecture_has_top_k_engines_by_name() -> None:
    machine = Architecture.parse(ENGINE).evaluate({"w": np.array([1, 16])})
    fast = machine.selectors["fast"]
    assert np.asarray(fast.capacity).tolist() == [64, 1024]
    assert fast.work(1024, 205).cycles.tolist() == expected_quick_select(1024, 205, [1, 16]).cycles.tolist()
    assert float(machine.selectors["sorter"].work(1024, 205).cycles) == pytest.approx(24063 / 64)
    assert machine.action_energies_j()["fast", "compare"] == 1e-12
    assert machine.names()["fast.pass_cycles"] == 3


def test_scattered_pieces_move_in_whole_transactions_spread_over_the_channels() -> None:
    machine = Architecture.parse(ENGINE).evaluate({})
    hbm, ddr = machine.memories["HBM"], machine.memories["DDR"]
    # 48 bytes take two transactions; 10 pieces 20 of them, two on the busiest of 16 channels.
    assert float(hbm.fetched_bytes(10, 48)) == 20 * 32
    assert float(hbm.bus_bytes(20 * 32)) == 2 * 16 * 32
    assert hbm.fetched_bytes(np.array([0, 1, 204]), np.array([48, 256, 256])).tolist() == [0, 256, 204 * 256]
    assert hbm.bus_bytes(np.array([0, 256, 204 * 256])).tolist() == [0, 512, 204 * 256]
    assert float(hbm.fetched_bytes(1.5, 96)) == 4.5 * 32  # half of the second piece is another tile's
    assert float(ddr.bus_bytes(ddr.fetched_bytes(10, 48))) == 480


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batcher", "bubble", "quick-select.*batcher"),
        ("parallelism: 64", "parallelism: 1.5", "whole number"),
        ("sorter:", "HBM:", "the name 'HBM' is taken by a memory"),
        ("fifo_rows: 64", "fifo_row: 64", "fifo_rows"),
    ],
)
def test_mistakes_in_an_engine_are_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Architecture.parse(ENGINE.replace(old, new))
