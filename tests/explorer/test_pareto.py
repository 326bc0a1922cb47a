"""Pareto fronts against the definition, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from explorer import pareto
from explorer.pareto import pareto_front


def by_definition(values: NDArray[np.float64]) -> list[bool]:
    return [not np.isnan(a).any() and not any(bool((b <= a).all() and (b < a).any()) for b in values) for a in values]


@settings(max_examples=150)
@given(st.integers(1, 4), st.integers(0, 60), st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0, 0.3))
def test_the_front_is_what_its_definition_says(
    objectives: int, points: int, levels: int, seed: int, missing: float
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, levels, (points, objectives)).astype(float)
    values[rng.random(values.shape) < missing] = np.nan
    assert pareto_front(values).tolist() == by_definition(values)


@pytest.mark.parametrize("objectives", [2, 3, 5])
def test_blocks_do_not_matter(objectives: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pareto, "_BLOCK", 8)
    monkeypatch.setattr(pareto, "_STRONG", 3)
    values = np.random.default_rng(objectives).integers(0, 9, (300, objectives)).astype(float)
    assert pareto_front(values).tolist() == by_definition(values)


def test_infinite_values_lose_and_equal_points_stay_together() -> None:
    values = np.array([[1.0, np.inf], [1.0, 2.0], [1.0, 2.0], [2.0, -np.inf]])
    assert pareto_front(values).tolist() == [False, True, True, True]
