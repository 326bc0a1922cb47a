"""Tilings of one sum of products, executed word by word: words, footprint, result."""

from __future__ import annotations

from itertools import product as cartesian

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds.product_schedules import Order, ProductTiling, product_schedules
from bounds.reader import read_problem
from einsum import Cascade
from tests.bounds.machine import Machine
from tests.bounds.test_soundness import product, product_problem
from tests.bounds.traces import word_addresses


def execute(
    problem, tiling: ProductTiling, order: Order, tile: dict[str, int], capacity: float, slow: dict | None = None
) -> Machine:
    """Run the tile loops in order; tiles stay while no loop of theirs moves, one array comes word by word.

    `slow` holds the operands, random numbers where nothing is given.
    """
    statement = problem.statements[0]
    loops = list(statement.loops)
    address = word_addresses(statement)
    generator = np.random.default_rng(0)
    points = list(cartesian(*(range(problem.extents[loop]) for loop in loops)))
    if slow is None:
        slow = {a(p): float(generator.normal()) for a in address[:-1] for p in points}
    machine = Machine(slow, capacity)
    held: list[set] = [set() for _ in address]
    tiles = [range(-(-tiling.extents[loop] // tile[loop])) for loop in order.loops]
    for at in cartesian(*tiles):
        place = dict(zip(order.loops, at, strict=True))
        spans = [
            range(place.get(x, 0) * tile[x], min((place.get(x, 0) + 1) * tile[x], tiling.extents[x])) for x in loops
        ]
        inside = list(cartesian(*spans))
        for k, a in enumerate(address):
            own = {a(p) for p in inside}
            key = tuple(place[x] for x in order.loops if x in (*statement.operands, statement.output)[k].loops)
            if k != order.streamed and getattr(machine, "keys", {}).get(k) != key:
                _swap(machine, held[k], own, is_output=k == len(address) - 1)
                held[k] = own
                machine.keys = {**getattr(machine, "keys", {}), k: key}
        streamed = address[order.streamed]
        for word in sorted({streamed(p) for p in inside}):
            _fetch(machine, word, is_output=order.streamed == len(address) - 1)
            for p in inside:
                if streamed(p) == word:
                    words = [a(p) for a in address]
                    machine[words[-1]] = machine[words[-1]] + np.prod([machine[w] for w in words[:-1]])
            if order.streamed == len(address) - 1:
                machine.store(word)
            machine.drop(word)
    for k, words in enumerate(held):
        _swap(machine, words, set(), is_output=k == len(address) - 1)
    return machine


def _fetch(machine: Machine, word, is_output: bool) -> None:
    if is_output and word not in machine.slow:
        machine[word] = 0.0
    else:
        machine.load(word)


def _swap(machine: Machine, old: set, new: set, is_output: bool) -> None:
    for word in old:
        if is_output:
            machine.store(word)
        machine.drop(word)
    for word in new:
        _fetch(machine, word, is_output)


@given(st.integers(0, 10**6))
@settings(max_examples=40)
def test_words_and_footprint_are_those_of_the_execution(seed: int) -> None:
    generator = np.random.default_rng([seed, 3])
    problem = product_problem(generator)
    statement = problem.statements[0]
    tiling = ProductTiling.of(problem, statement)
    assert tiling is not None
    expected = np.zeros(1)
    for order in tiling.orders():
        tile = {loop: int(generator.integers(1, extent + 1)) for loop, extent in tiling.extents.items()}
        arrays = {loop: np.array(size) for loop, size in tile.items()}
        machine = execute(problem, tiling, order, tile, float(tiling.footprint(order, arrays)))
        assert machine.words == float(tiling.words(order, arrays))
        result = np.array([value for word, value in sorted(machine.slow.items()) if word[0] == "C"])
        assert expected.size == 1 or np.allclose(result, expected)
        expected = result


def test_a_square_product_comes_close_to_its_bound() -> None:
    from bounds.engine import lower_bound

    problem = product(1024, 1024, 1024)
    stairs = product_schedules(problem, problem.statements[0])
    assert stairs is not None
    memory = np.geomspace(200, 2e5, 12)
    gap = stairs.at(memory)[0] / lower_bound(problem, memory).words
    assert np.all(gap < 1.35)
    assert gap.min() < 1.06


@pytest.mark.parametrize(
    ("m", "n", "k", "memory"), [(5000, 3000, 700, 20_000), (10**5, 10**5, 10**5, 10**6), (777, 333, 1111, 4000)]
)
def test_no_rectangle_of_results_beats_what_is_found(m: int, n: int, k: int, memory: int) -> None:
    """All rectangles of a x b results of every size, a column of one factor and one number of the other beside them."""
    problem = read_problem(Cascade.load("matmul"), {"M": m, "N": n, "K": k})
    found = product_schedules(problem, problem.statements[0])
    assert found is not None
    best = np.inf
    for rows, columns in ((m, n), (n, m)):
        a = np.arange(1, min(rows, memory // 3) + 1)
        b = np.minimum(columns, (memory - 1 - a) // a)
        a, b = a[b > 0], b[b > 0]
        best = min(best, float((-(-columns // b) * rows * k - (-rows // a) * k * columns + rows * columns).min()))
    assert found.at(np.array([float(memory)]))[0][0] <= best
