"""Multi-objective evolutionary search (NSGA-II of pymoo): it proposes points, one generation after another.

Each axis of the space is one gene between 0 and 1, its place along the axis; axes of names are genes too. The search
is a function of its seed and of the values that it is told, so a search that was interrupted repeats itself exactly as
long as the stored values are there, and then goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.errors import SpecError
from einsum.expressions import Expression
from explorer.space import Inputs, Space, take
from explorer.study import constrained
from explorer.sweep import Evolution

_WORST = 1e300
"""The value of an objective at a point that has none; points that keep the constraints always come first."""


class Search:
    """Generations of points. After each, `tell` it the points' values before asking for the next."""

    def __init__(
        self, space: Space, sampler: Evolution, objectives: int, constraints: Sequence[Expression],
        constants: Mapping[str, Any],
    ) -> None:  # fmt: skip
        """constraints: those on inputs; a point that breaks one is proposed but not evaluated."""
        self._space = space
        self._sampler = sampler
        self._objectives = objectives
        self._constraints = constraints
        self._constants = {name: value for name, value in constants.items() if value is not None}
        self._algorithm = _nsga2(len(space.axes), objectives, sampler)
        self._population: Any = None

    def generations(self) -> Iterator[tuple[Inputs, NDArray[np.bool_]]]:
        """The points of each generation, and which of them keep the constraints on inputs."""
        proposed = 0
        while proposed < self._sampler.points:
            self._population = self._algorithm.ask()
            unit = np.asarray(self._population.get("X"), dtype=np.float64)
            if not len(unit):
                return
            proposed += len(unit)
            inputs = self._space.cube(unit)
            yield inputs, constrained(self._constraints, {**self._constants, **inputs}, len(unit))

    def tell(self, values: NDArray[np.float64], holds: NDArray[np.bool_]) -> None:
        """The values of the points last proposed, (points, objectives), all to be made small, and whether each is a
        point that keeps all constraints; values of those that are not do not count."""
        values = np.where(holds[:, None] & np.isfinite(values), values, _WORST)
        self._population.set("F", values, "G", np.where(holds, 0.0, 1.0)[:, None])
        self._algorithm.evaluator.n_eval += len(values)
        self._algorithm.tell(infills=self._population)

    def some(self, count: int) -> Inputs:
        """Some points of the space that keep the constraints on inputs. Raises SpecError when none can be found."""
        rng = np.random.default_rng(self._sampler.seed)
        for _ in range(64):
            inputs = self._space.cube(rng.random((4096, len(self._space.axes))))
            holds = np.flatnonzero(constrained(self._constraints, {**self._constants, **inputs}, 4096))
            if len(holds):
                return take(inputs, holds[:count])
        shown = " and ".join(f"'{condition}'" for condition in self._constraints)
        raise SpecError(f"none of 262,144 points of the space satisfies {shown}", key="constraints")


def _nsga2(genes: int, objectives: int, sampler: Evolution) -> Any:
    try:
        from pymoo.algorithms.moo.nsga2 import NSGA2
        from pymoo.core.problem import Problem
        from pymoo.operators.sampling.lhs import LHS
    except ImportError:
        message = "an evolutionary search needs pymoo: pip install 'einsight[search]'"
        raise SpecError(message, key="sampler") from None
    problem = Problem(n_var=genes, n_obj=objectives, n_ieq_constr=1, xl=0.0, xu=1.0)
    algorithm = NSGA2(pop_size=sampler.population, sampling=LHS())
    generations = -(-sampler.points // sampler.population)
    algorithm.setup(problem, termination=("n_gen", generations + 1), seed=sampler.seed, verbose=False)
    return algorithm
