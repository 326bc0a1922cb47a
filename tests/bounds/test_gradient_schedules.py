"""Schedules of the backward pass: executed word by word, gradients as by their formulas, never below a bound."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds.engine import lower_bound
from bounds.gradient_schedules import (
    column_pass,
    columns_at_once,
    gradient_schedules,
    row_pass,
    rows_at_once,
    spilled,
    spilled_scores,
    star_of,
    star_schedules,
)
from bounds.reader import read_problem
from bounds.staircase import Staircase
from einsum import Cascade
from tests.bounds.cases import random_case
from tests.bounds.gradient_runs import Backward, run_step
from tests.bounds.test_attention_schedules import keep_all, listed

BACKWARD = Cascade.load("attention-backward")


def problem_of(case):
    heads = case.heads
    sizes = {"B": 1, "H": 1, "P": heads.pattern.rows, "M": heads.columns, "E": heads.d, "F": heads.dv}
    return read_problem(BACKWARD, sizes, heads.pattern)


def arrays_of(case) -> tuple[dict, dict]:
    """Inputs of the backward pass, and the gradients that autograd would give."""
    q, k, v = case.inputs()
    do = np.random.default_rng(case.seed + 1).normal(size=(len(q), v.shape[1]))
    kept = np.zeros((len(q), len(k)), bool)
    for i, row in enumerate(case.keys):
        kept[i, row] = True
    scores = np.where(kept, q @ k.T, -np.inf)
    gm = scores.max(axis=1)
    weights = np.exp(scores - gm[:, None])
    sd = weights.sum(axis=1)
    a = weights / sd[:, None]
    dl = np.sum((a @ v) * do, axis=1)
    g = a * (do @ v.T - dl[:, None])
    inputs = {"q": q, "k": k, "v": v, "do": do, "gm": gm, "sd": sd, "dl": dl}
    return inputs, {"dq": g @ k, "dk": g.T @ q, "dv": a.T @ do}


def steps(name: str) -> list[str]:
    if name.startswith("two passes: "):
        return name.removeprefix("two passes: ").split(", ")
    return name.split("; ")


def run_named(case, inputs: dict, name: str, capacity: float) -> Backward:
    run = Backward(inputs, case.keys, capacity)
    for step in steps(name):
        run_step(run, step)
    return run


@given(st.integers(0, 10**6))
@settings(max_examples=40)
def test_each_schedule_computes_the_gradients_in_its_footprint_with_its_words(seed: int) -> None:
    case = random_case(seed, most=7)
    if case.heads.group > 1:
        return
    inputs, expected = arrays_of(case)
    star = star_of(problem_of(case))
    assert star is not None
    with patch.object(Staircase, "of", keep_all):
        every = [one for f in (row_pass, column_pass, rows_at_once, columns_at_once) for one in listed(f(star))]
        scores = [listed(spilled_scores(star, place)) for place in (0, 1)]
    for name, words, footprint in every:
        assert run_named(case, inputs, name, footprint).machine.words == words, name
    for (first, _, _), (second, words, footprint) in zip(scores[0] * len(scores[1]), scores[1], strict=False):
        run = run_named(case, inputs, first, np.inf)
        before, run.machine.peak, run.machine.capacity = run.machine.words, 0, footprint
        run_step(run, second)
        assert run.machine.words - before == words, second
    for name, words, footprint in [*listed(star_schedules(star)), *listed(spilled(star))]:
        run = run_named(case, inputs, name, footprint)
        assert run.machine.words == words, name
        for output, array in expected.items():
            found = [run.machine.slow[output, *at] for at in np.ndindex(*array.shape)]
            assert np.allclose(found, array.ravel()), name


@pytest.mark.parametrize("label", ["recompute-safe", "no-recompute"])
@pytest.mark.parametrize("seed", range(8))
def test_no_schedule_is_below_the_bound(seed: int, label: str) -> None:
    case = random_case(seed, most=14)
    problem = problem_of(case)
    best = gradient_schedules(problem)
    assert best is not None
    memory = np.unique(np.round(np.geomspace(best.footprint[0], 2 * best.footprint[-1], 12)))
    assert np.all(lower_bound(problem, memory, label).words <= best.at(memory)[0] * (1 + 1e-9))


def test_leading_words_of_a_large_problem() -> None:
    """Two passes move 14 E d^2 / M: 6 for the queries' gradient, 8 for those of keys and values."""
    n, d = 65536, 64
    memory = 16.0 * d * d
    best = gradient_schedules(read_problem(BACKWARD, {"B": 1, "H": 1, "P": n, "M": n, "E": d, "F": d}))
    assert best is not None
    words, names = best.at(np.array([memory]))
    assert words[0] == pytest.approx(14 * n * n * d * d / memory, rel=0.06)
    assert names[0].startswith("two passes")


def test_the_queries_and_keys_gradients_are_bounded_together() -> None:
    """8.7 E d^2 / M to leading order; less where carried scores weigh in. Compared with the model's own largest sum."""
    n, d = 2**20, 64
    problem = read_problem(BACKWARD, {"B": 1, "H": 1, "P": n, "M": n, "E": d, "F": d})
    memory = np.array([16.0, 64.0, 1024.0]) * d * d
    found = lower_bound(problem, memory)
    assert all("star" in theorem for theorem in found.theorems)
    for words, m in zip(found.words, memory / (d * d), strict=True):
        expected = max((x - m) / most_products(x) for x in m * np.geomspace(1.3, 4, 60))  # d = 1: words in d^2
        assert 0.85 * 2 * n * n * expected <= words - (n * d + 3 * n) <= 2 * n * n * expected * 1.001


def most_products(x: float) -> float:
    """Products of dQ and dK by x words: p carried pairs, a rows and a columns rebuilt (4 a words), the rest outputs."""
    p, a = np.linspace(0, 0.4 * x, 400)[:, None], np.linspace(0, x / 4, 400)[None, :]
    rest = np.maximum(x - p - 4 * a, 0.0)
    return float(np.max(2 * (np.sqrt(p) + a) * np.sqrt(a * rest / 2)))
