"""Spaces: ranges, axes, and points by number and by place."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsum.errors import SpecError
from explorer.space import Axis, Range, Space, list_axis


def values(**fields: Any) -> list[Any]:
    found: list[Any] = Range.model_validate(fields).axis("x", "variables.x").columns["x"].tolist()
    return found


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"from": 1, "to": 5}, [1, 2, 3, 4, 5]),
        ({"from": 1, "to": 6, "step": 2}, [1, 3, 5]),
        ({"from": "1 KiB", "to": "8Ki", "scale": "log2"}, [1024, 2048, 4096, 8192]),
        ({"from": 3, "to": 50, "scale": "log2", "step": 4}, [3, 12, 48]),
        ({"from": 0.1, "to": 0.3, "step": 0.1}, pytest.approx([0.1, 0.2, 0.3])),
        ({"from": 1, "to": 2.5, "count": 4}, [1, 1.5, 2, 2.5]),
        ({"from": 1, "to": 1000, "scale": "log2", "count": 4}, [1, 10, 100, 1000]),
        ({"from": 1, "to": 4, "count": 7}, [1, 2, 3, 4]),
        ({"from": 7, "to": 7}, [7]),
    ],
)
def test_a_range_lists_its_values(fields: dict[str, Any], expected: Any) -> None:
    assert values(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"from": 5, "to": 1}, "the range is empty"),
        ({"from": 0, "to": 4, "scale": "log2"}, "positive start"),
        ({"from": 0.5, "to": 4}, "a step or a count"),
        ({"from": 1, "to": 4, "step": 0}, "a step above 0"),
        ({"from": 1, "to": 4, "step": 1, "scale": "log2"}, "a step above 1"),
        ({"from": 1, "to": 4, "step": 1, "count": 3}, "not both"),
        ({"from": 1, "to": 1e9}, "more than"),
        ({"from": 1, "to": "causal"}, "expected a number, found 'causal'"),
        ({"from": 1, "to": 4, "continuous": True, "count": 3}, "no step and no count"),
    ],
)
def test_a_range_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        values(**fields)
    assert caught.value.key and caught.value.key.startswith("variables.x")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"x": []}, "the list is empty"),
        ({"x": [1, 2], "y": [1]}, "the same length: x has 2, y has 1"),
        ({"x": [1, 2, 1]}, "the value 1 is listed twice"),
        ({"x": [1, "a"]}, "different kinds"),
    ],
)
def test_lists_that_make_no_sense_are_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        list_axis(columns, "variables")


def test_points_of_the_grid_are_the_product_in_order() -> None:
    space = Space(
        (
            list_axis({"mapping": ["a", "b"]}, ""),
            list_axis({"x": [1, 2, 3], "y": [10, 20, 30]}, ""),
            list_axis({"z": [0.5, 1.5]}, ""),
        )
    )
    inputs = space.grid(np.arange(space.size))
    found = list(zip(*(inputs[name].tolist() for name in space.names), strict=True))
    assert found == [(m, x, y, z) for m, (x, y), z in product("ab", [(1, 10), (2, 20), (3, 30)], [0.5, 1.5])]


@settings(max_examples=50)
@given(st.integers(-20, 20), st.integers(0, 30), st.booleans())
def test_whole_numbers_of_an_interval_have_equal_shares(low: int, width: int, log: bool) -> None:
    low = abs(low) + 1 if log else low
    scale = "log2" if log else "linear"
    axis = Range.model_validate({"from": low, "to": low + width, "scale": scale, "continuous": True}).axis("x", "")
    drawn = axis.at((np.arange(60_000) + 0.5) / 60_000)["x"]
    assert sorted(set(drawn.tolist())) == list(range(low, low + width + 1))
    if not log:
        assert np.bincount(drawn - low) == pytest.approx(60_000 / (width + 1), abs=1)


def test_an_interval_reaches_its_ends() -> None:
    axis = Range.model_validate({"from": 0.5, "to": 8.0, "scale": "log2", "continuous": True}).axis("x", "")
    drawn = axis.at(np.array([0.0, 0.5, 1 - 1e-12]))["x"]
    assert drawn == pytest.approx([0.5, 2, 8])
    assert isinstance(axis, Axis) and axis.size == 0
