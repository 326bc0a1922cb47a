"""Samplers: which points of a space a sweep evaluates, the same ones whenever they are asked for again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.errors import SpecError
from einsum.expressions import Expression
from explorer.space import Inputs, Space, take
from explorer.study import constrained
from explorer.sweep import Draw, Grid

MAX_GRID = 200_000_000
"""Points of a grid that are enumerated at most; beyond, drawing points or searching serves better."""
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Sample:
    """The points of a sweep that are known beforehand, numbered from 0.

    numbers  of a grid: which of its points, or None for all
    drawn    else: the inputs themselves
    size     number of points
    """

    space: Space
    numbers: NDArray[np.int64] | None
    drawn: Inputs | None
    size: int

    def inputs(self, places: NDArray[np.int64]) -> Inputs:
        """The varying inputs of some points."""
        if self.drawn is not None:
            return take(self.drawn, places)
        return self.space.grid(places if self.numbers is None else self.numbers[places])

    def some(self, count: int) -> Inputs:
        """At most `count` of the points, spread over all."""
        return self.inputs(np.unique(np.linspace(0, self.size - 1, min(count, self.size)).astype(np.int64)))


def draw_sample(
    space: Space, sampler: Grid | Draw, constraints: Sequence[Expression], constants: Mapping[str, Any]
) -> Sample:
    """The points that a sampler takes from a space, without those that break a constraint on inputs.

    Raises SpecError when no point is left, and says which constraint excludes them.
    """
    fixed = {name: value for name, value in constants.items() if value is not None}
    if isinstance(sampler, Grid):
        sample = _grid(space, constraints, fixed)
    else:
        sample = _drawn(space, sampler, constraints, fixed)
    if not sample.size:
        raise SpecError(_why_empty(space, constraints, fixed), key="constraints")
    return sample


def unit_points(sampler: Draw, dimensions: int) -> NDArray[np.float64]:
    """Points of the unit cube, (points, dimensions), spread evenly by scipy's quasi-Monte Carlo generators."""
    from scipy.stats import qmc

    rng = np.random.default_rng(sampler.seed)
    if sampler.kind == "latin-hypercube":
        return np.asarray(qmc.LatinHypercube(dimensions, rng=rng).random(sampler.points))
    # A Sobol sequence is balanced over powers of two; the first points of one are what is asked for.
    power = max(sampler.points - 1, 0).bit_length()
    sequence = qmc.Sobol(dimensions, rng=rng).random_base2(power)
    return np.asarray(sequence[: sampler.points])


def distinct(inputs: Inputs) -> NDArray[np.intp]:
    """Places of the first occurrence of every point, in order."""
    codes = [np.unique(values, return_inverse=True)[1] for values in inputs.values()]
    _, first = np.unique(np.column_stack(codes), axis=0, return_index=True)
    return np.sort(first)


def _grid(space: Space, constraints: Sequence[Expression], constants: Mapping[str, Any]) -> Sample:
    if space.size > MAX_GRID:
        raise SpecError(
            f"the grid has {space.size:,} points, more than {MAX_GRID:,}; choose the sampler sobol, latin-hypercube or "
            "evolutionary",
            key="sampler",
        )
    if not constraints:
        return Sample(space, None, None, space.size)
    kept = []
    for start in range(0, space.size, _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, space.size))
        kept.append(numbers[constrained(constraints, {**constants, **space.grid(numbers)}, len(numbers))])
    numbers = np.concatenate(kept)
    return Sample(space, numbers, None, len(numbers))


def _drawn(space: Space, sampler: Draw, constraints: Sequence[Expression], constants: Mapping[str, Any]) -> Sample:
    unit = unit_points(sampler, len(space.axes))
    inputs = space.cube(unit)
    inputs = take(inputs, constrained(constraints, {**constants, **inputs}, len(unit)))
    inputs = take(inputs, distinct(inputs))
    return Sample(space, None, inputs, len(next(iter(inputs.values()))))


def _why_empty(space: Space, constraints: Sequence[Expression], constants: Mapping[str, Any]) -> str:
    """Which constraint leaves nothing of the space, judged by some of its points."""
    if 0 < space.size <= _CHUNK:
        inputs, count = space.grid(np.arange(space.size)), space.size
    else:
        inputs, count = space.cube(np.random.default_rng(0).random((_CHUNK, len(space.axes)))), _CHUNK
    for condition in constraints:
        if not constrained([condition], {**constants, **inputs}, count).any():
            return f"no point of the space satisfies '{condition}'"
    shown = " and ".join(f"'{condition}'" for condition in constraints)
    return f"no point of the space satisfies {shown} together"
