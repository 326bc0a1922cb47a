"""Schedules of the backward pass: executed word by word, gradients as by their formulas, never below a bound."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds.engine import lower_bound
from bounds.gradient_schedules import gradient_schedules, star_of, star_schedules
from bounds.reader import read_problem
from bounds.staircase import Staircase
from einsum import Cascade
from tests.bounds.cases import random_case
from tests.bounds.gradient_runs import FAMILIES, Backward
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
    return name.removeprefix("two passes: ").split(", ")


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
        every = listed(star_schedules(star))
    for name, words, footprint in every:
        run = Backward(inputs, case.keys, footprint)
        for step in steps(name):
            family, _, size = step.rpartition(" ")
            FAMILIES[family](run, int(size))
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
