"""Attention whose scores are computed once: prices of levels, the bound against schedules, its certificate."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from bounds.attention_schedules import Heads, best_schedules
from bounds.engine import lower_bound
from bounds.gradient_schedules import columns_at_once, rows_at_once, spilled, star_of
from bounds.pattern import Blocks, Intervals
from bounds.problem import Problem
from bounds.reader import read_problem
from bounds.staircase import Staircase
from bounds.turnover import full_rectangle, least_words, turnover
from bounds.verify import _paid, verify
from einsum.cascade import Cascade
from tests.bounds.cases import attention_problem, random_case


def dense(n: int, d: int, **other: int) -> Heads:
    return Heads(Intervals.dense(n, n), d, d, **other)


RECORD = lower_bound(attention_problem(dense(16384, 16)), np.array([65536.0]), "no-recompute").certificates[0]

# The game of levels: what the proof says of each batch, against the cheapest of all ways to play it


@njit
def cheapest(memory, length, level, price, row, column):  # pragma: no cover (compiled)
    """Least waste less prices, over all plays from an empty memory: by relaxing all states until nothing changes.

    A state counts row words that no segment has seen at the level or above it, other row words, and the same of column
    words (at the level or below it). Between segments any words leave; a segment begins `length` words.
    """
    n = memory + length + 1
    least = np.full((n, n, n, n), np.inf)
    least[0, 0, 0, 0] = 0.0
    changed = True
    while changed:
        changed = False
        for f in range(n - 1, -1, -1):
            for o in range(n - 1 - f, -1, -1):
                for u in range(n - 1 - f - o, -1, -1):
                    for v in range(n - 1 - f - o - u, -1, -1):
                        here = least[f, o, u, v]
                        if here == np.inf:
                            continue
                        for k in range(4):
                            g = (f - (k == 0), o - (k == 1), u - (k == 2), v - (k == 3))
                            if min(g) >= 0 and here < least[g] - 1e-9:
                                least[g] = here
                                changed = True
        for f in range(memory + 1):
            for o in range(memory + 1 - f):
                for u in range(memory + 1 - f - o):
                    for v in range(memory + 1 - f - o - u):
                        here, unused = least[f, o, u, v], memory - f - o - u - v
                        if here == np.inf:
                            continue
                        for a in range(length + 1):
                            b = length - a
                            cost = here + a * (f + o + price * unused) + b * (u + v + price * unused) - a * b
                            w, x, y, z = f + a, o, u + b, v
                            if f + o + a >= level:
                                cost, w, x = cost - row * w, 0, x + w
                            if f + o + a <= level:
                                cost, y, z = cost - column * y, 0, z + y
                            if cost < least[w, x, y, z] - 1e-9:
                                least[w, x, y, z] = cost
                                changed = True
                            if cost < -1e-6:
                                return cost
    return 0.0


def pays(memory: int, length: int, level: int, price: float, row: float, column: float) -> bool:
    """The conditions of a certificate for one level."""
    rows = _paid(np.array([memory - level + length]), np.array([level - length]), row, column, length, price, memory)
    columns = _paid(np.array([level]), np.array([memory - level]), column, row, length, price, memory)
    return bool(rows.all() and columns.all())


def test_no_play_gains_from_the_prices_that_a_certificate_may_claim() -> None:
    generator = np.random.default_rng(5)
    tried, loose = 0, 0
    while tried < 25:
        memory, length = int(generator.integers(6, 14)), int(generator.integers(1, 4))
        price, level = float(generator.choice([1.0, 0.9, 0.75, 0.63])), int(generator.integers(0, memory + 1))
        column = generator.random() * price * (memory - level) * generator.integers(0, 2)
        rows = [row for row in np.linspace(0, memory, 200) if pays(memory, length, level, price, row, column)]
        if length * (2 + 1 / price) > memory or not rows or not rows[-1] + column:
            continue
        tried += 1
        assert cheapest(memory, length, level, price, rows[-1], column) >= 0
        loose += cheapest(memory, length, level, price, 1.6 * rows[-1], 1.6 * column) < 0
    assert loose >= 5  # prices that are too high are found out


# The bound


@given(st.integers(0, 10**6))
@settings(max_examples=60)
def test_no_schedule_beats_the_bound(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows, columns = (int(n) for n in np.exp(generator.uniform(3, 8, 2)))
    d, dv = (int(n) for n in generator.integers(1, 4, 2))
    pattern = Intervals.band(rows, rows, None, 0) if generator.random() < 0.4 else Intervals.dense(rows, columns)
    heads = Heads(pattern, d, dv, group=int(generator.integers(1, 4)), copies=2, statistics=0)
    around = turnover(attention_problem(heads))
    assert around is not None
    stairs = best_schedules(heads, recompute=False)
    for memory in np.exp(generator.uniform(np.log(10 * d * dv), np.log(2 * (rows + columns) * (d + dv)), 12)):
        found, best = least_words(around, memory), stairs.at(np.array([memory]))[0][0]
        assert found is None or not best < 2 * found.words


@pytest.mark.parametrize(("m", "words"), [(128, 32.706), (256, 16.938), (512, 9.017), (1024, 5.077)])
def test_it_adds_most_of_the_compulsory_words_to_the_leading_term(m: int, words: float) -> None:
    n, d = 131072, 128
    problem, memory = attention_problem(dense(n, d)), np.array([float(m * d * d)])
    found = lower_bound(problem, memory, "no-recompute")
    assert found.theorems == ("turnover",)
    assert found.words[0] / (n * d) == pytest.approx(words, rel=2e-3)
    assert found.words[0] > lower_bound(problem, memory).words[0]


@pytest.mark.parametrize("name", ["attention-1pass", "attention-2pass", "attention-3pass"])
def test_it_is_found_for_cascades_of_the_library(name: str) -> None:
    problem = read_problem(Cascade.load(name), {"B": 2, "H": 3, "P": 16384, "M": 16384, "E": 16, "F": 16})
    memory = np.array([65536.0])
    found = lower_bound(problem, memory, "no-recompute")
    assert found.theorems == ("turnover",)
    assert found.words[0] == pytest.approx(6 * RECORD["value"])


def backward(n: int, m: int, d: int, dv: int) -> Problem:
    return read_problem(Cascade.load("attention-backward"), {"B": 1, "H": 1, "P": n, "M": m, "E": d, "F": dv})


def test_the_backward_pass_has_the_constant_twelve() -> None:
    """Three words of width d for each row (Q, dO, dQ), four for each column (K, V, dK, dV)."""
    n, d = 16384, 128
    memory = np.array([24.0, 48.0]) * d**2
    found = lower_bound(backward(n, n, d, d), memory, "no-recompute")
    assert found.words == pytest.approx(12 * n * n * d**2 / memory, rel=3e-3)
    assert all(verify(certificate) for certificate in found.certificates)


@given(st.integers(0, 10**6))
@settings(max_examples=30)
def test_no_backward_pass_that_computes_scores_once_beats_the_bound(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows, columns = (int(n) for n in np.exp(generator.uniform(3, 7, 2)))
    problem = backward(rows, columns, *(int(n) for n in generator.integers(1, 4, 2)))
    around, shape = turnover(problem), star_of(problem)
    assert around is not None and shape is not None
    stairs = Staircase.merged([rows_at_once(shape), columns_at_once(shape), spilled(shape)])
    words = [around.row_words, around.column_words]
    largest = rows * words[0] + columns * words[1]
    for memory in np.exp(generator.uniform(np.log(3 * around.own), np.log(max(largest, 4 * around.own)), 8)):
        found, best = least_words(around, memory), stairs.at(np.array([memory]))[0][0]
        assert found is None or not best < found.words


def test_with_long_rows_and_narrow_words_it_tends_to_the_root_of_two_times_the_words_of_one_side() -> None:
    """4 N^2 d^2 / M + sqrt(2) N d, the limit of the prices for large memories, and a little for the empty start."""
    n, d = 2**22, 1
    memory = 2.0**19
    around = turnover(attention_problem(dense(n, d)))
    found = least_words(around, memory)
    more = (found.words - 4.0 * n**2 / memory) / n
    assert 1.35 < more < 1.45


def test_the_rectangle_of_a_pattern_is_full() -> None:
    for seed in range(200):
        case = random_case(seed, most=12)
        pattern, group = case.heads.pattern, case.heads.group
        rows, columns = full_rectangle(pattern, group)
        kept = np.zeros((pattern.rows, pattern.columns), bool)
        for i in range(pattern.rows):
            kept[i, pattern.row(i)] = True
        if isinstance(pattern, Blocks) and not kept.all():
            assert (rows, columns) == (0, 0)
            continue
        full = [
            (a, b)
            for a in range(pattern.rows)
            for b in range(a, pattern.rows)
            if (b - a + 1) * group == rows and kept[a : b + 1].all(axis=0).sum() >= columns
        ]
        assert full


def renamed(problem: Problem, old: str, new: str) -> Problem:
    """The problem with one tensor read in place of another."""
    statements = tuple(
        replace(s, operands=tuple(replace(a, tensor=new) if a.tensor == old else a for a in s.operands))
        for s in problem.statements
    )
    return replace(problem, statements=statements)


def test_words_that_keys_and_values_share_count_once_and_those_of_rows_and_columns_not_at_all() -> None:
    problem = attention_problem(dense(512, 2))
    around, shared = turnover(problem), turnover(renamed(problem, "V", "K"))
    assert around is not None and (around.row_words, around.column_words) == (4, 4)
    assert shared is not None and (shared.row_words, shared.column_words) == (4, 2)
    assert turnover(renamed(problem, "K", "Q")) is None


# Certificates


def test_the_certificate_is_checked() -> None:
    assert RECORD["theorem"] == "turnover"
    assert verify(json.loads(json.dumps(RECORD))) == RECORD["value"]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(value=r["value"] * 1.001),
        lambda r: r.update(memory_words=r["memory_words"] * 2),
        lambda r: r.update(pairs=r["pairs"] * 0.9),
        lambda r: r.update(rows=r["rows"] * 0.5, columns=r["columns"] * 0.5),
        lambda r: r.update(length=r["length"] + 0.5),
        lambda r: r.update(excess=1.0),
        lambda r: r["prices"].pop(),
        lambda r: r["prices"].pop(len(r["prices"]) // 2),
        lambda r: [line.__setitem__(2, line[2] * 1.01) for line in r["prices"] if line[2]],
        lambda r: [line.__setitem__(3, line[3] * 1.3) for line in r["prices"] if line[3]],
        lambda r: r["prices"][0].__setitem__(3, -1.0),
    ],
)
def test_tampering_is_refused(change) -> None:
    record = json.loads(json.dumps(RECORD))
    change(record)
    with pytest.raises(ValueError, match="refused"):
        verify(record)
