"""Samplers: what they draw, that they draw it again, and which constraints leave nothing."""

from __future__ import annotations

import numpy as np
import pytest

from einsum.errors import SpecError
from einsum.expressions import Expression
from explorer.sampling import Sample, distinct, draw_sample, unit_points
from explorer.space import Range, Space, list_axis
from explorer.sweep import Draw, Grid

SPACE = Space((list_axis({"x": list(range(1, 51))}, ""), list_axis({"y": list(range(1, 41))}, "")))
OPEN = Space((
    Range.model_validate({"from": 0.5, "to": 2.5, "continuous": True}).axis("x", ""),
    list_axis({"y": ["a", "b"]}, ""),
))  # fmt: skip


def draw(space: Space, sampler: Grid | Draw, *constraints: str) -> Sample:
    return draw_sample(space, sampler, [Expression.parse(text) for text in constraints], {"limit": 60})


def pairs(sample: Sample) -> list[tuple[float, float]]:
    inputs = sample.inputs(np.arange(sample.size))
    return list(zip(inputs["x"].tolist(), inputs["y"].tolist(), strict=True))


def test_the_grid_is_every_point_that_keeps_the_constraints() -> None:
    expected = [(x, y) for x in range(1, 51) for y in range(1, 41) if x * y <= 60 and x % 2 == 0]
    assert pairs(draw(SPACE, Grid(), "x * y <= limit", "x % 2 == 0")) == expected


@pytest.mark.parametrize("kind", ["sobol", "latin-hypercube"])
def test_drawn_points_repeat_with_their_seed_and_keep_the_constraints(kind: str) -> None:
    first, again, other = (pairs(draw(SPACE, Draw(kind=kind, points=300, seed=s), "x < y")) for s in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == len(first) > 100
    assert all(x < y for x, y in first)


@pytest.mark.parametrize("points", [1, 63, 64, 65])
def test_a_sobol_sequence_has_as_many_points_as_asked_for(points: int) -> None:
    assert unit_points(Draw(kind="sobol", points=points), 3).shape == (points, 3)


def test_a_latin_hypercube_has_one_point_in_each_slice() -> None:
    unit = unit_points(Draw(kind="latin-hypercube", points=50, seed=4), 2)
    assert [sorted(column.tolist()) for column in np.floor(unit.T * 50)] == [list(range(50))] * 2


def test_repeated_points_are_left_out_in_order() -> None:
    inputs = {"x": np.array([3, 1, 3, 1, 2]), "y": np.array(["a", "a", "a", "b", "a"])}
    assert distinct(inputs).tolist() == [0, 1, 3, 4]


@pytest.mark.parametrize("space", [SPACE, OPEN])
def test_a_constraint_that_excludes_all_is_named(space: Space) -> None:
    sampler = Grid() if space is SPACE else Draw(kind="sobol", points=64)
    with pytest.raises(SpecError, match=r"no point of the space satisfies 'x > 60'$"):
        draw(space, sampler, "x >= 1", "x > 60")


def test_constraints_that_contradict_each_other_are_named_together() -> None:
    with pytest.raises(SpecError, match="'x > y' and 'y > x' together"):
        draw(SPACE, Grid(), "x > y", "y > x")


def test_a_grid_beyond_counting_is_refused() -> None:
    axes = tuple(list_axis({name: list(range(1000))}, "") for name in "abcd")
    with pytest.raises(SpecError, match=r"the grid has 1,000,000,000,000 points.*sobol"):
        draw(Space(axes), Grid())
