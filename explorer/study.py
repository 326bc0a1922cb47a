"""A study: all that is needed to evaluate a sweep's points in any process, and the evaluation of a batch of them.

A batch of points is one call of the simulator with arrays for each combination of descriptions. Where that call fails,
the batch is divided until the points that fail are found; each is reported with its own error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from architectures import Architecture
from einsum.cascade import Cascade
from einsum.errors import EinsightError, SpecError
from einsum.expressions import Expression
from explorer.identity import point_keys
from explorer.mapped import DOCUMENT, Find
from explorer.points import Cells
from explorer.settings import Setting
from explorer.space import Inputs, take
from explorer.sweep import MODELS, Quantity
from mappings import Mapping as Plan
from simulator.point_program import PointProgram
from simulator.result import result_values
from workloads import Workload

Combination = tuple[str | bool | None, ...]
"""Names of cascade, architecture, mapping and workload, and whether linear layers are included."""


@dataclass(frozen=True)
class Models:
    """Loaded descriptions of one combination.

    mapping  a mapping, or how one is found for each point
    digest   hash of what the descriptions say
    missing  quantities whose results do not exist for this combination; they stay empty
    """

    cascade: Cascade
    architecture: Architecture
    mapping: Plan | Find
    workload: Workload | None
    end_to_end: bool
    digest: str
    missing: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Study:
    """What to do with a sweep's points; it can be sent to another process.

    constants    inputs with one value for all points
    varying      names of the inputs that vary, in the order of the space
    conditions   constraints on results
    version      of the model, as in `identity.model_version`
    programs     point programs of each combination, for sweeps of many points
    """

    models: Mapping[Combination, Models]
    constants: Mapping[str, Setting | None]
    varying: tuple[str, ...]
    columns: Mapping[str, Quantity]
    conditions: tuple[Expression, ...]
    fidelity: Literal["analytic", "event"]
    version: str
    programs: Mapping[Combination, tuple[PointProgram, ...]] = field(default_factory=dict)

    def combinations(self, inputs: Inputs) -> list[tuple[Combination, NDArray[np.intp]]]:
        """The combinations of descriptions among some points, each with the places of its points."""
        count = len(next(iter(inputs.values()), [None]))
        chosen = [name for name in MODELS if name in inputs]
        code = np.zeros(count, dtype=np.int64)
        for name in chosen:
            values, codes = np.unique(inputs[name], return_inverse=True)
            code = code * len(values) + codes
        groups = []
        for kind in np.unique(code):
            places = np.flatnonzero(code == kind)
            first = {name: inputs[name][places[0]].item() for name in chosen}
            groups.append((combination({**self.constants, **first}), places))
        return groups

    def settings(self, inputs: Inputs) -> dict[str, Any]:
        """What the simulator is to set at some points: constants as they are, variables as arrays."""
        fixed = {name: value for name, value in self.constants.items() if name not in MODELS}
        return {**fixed, **{name: values for name, values in inputs.items() if name not in MODELS}}

    def keys(self, inputs: Inputs) -> list[bytes]:
        """The key of each point: a hash of all its inputs, of what the descriptions say, and of the model."""
        keys: list[bytes] = [b""] * len(next(iter(inputs.values()), [None]))
        for chosen, places in self.combinations(inputs):
            about = (self.version, self.models[chosen].digest, self.fidelity)
            settings = self.settings(take(inputs, places))
            for place, key in zip(places.tolist(), point_keys(about, settings, len(places)), strict=True):
                keys[place] = key
        return keys


def combination(inputs: Mapping[str, Any]) -> Combination:
    """The combination of descriptions that some inputs name."""
    return tuple(inputs.get(name) for name in MODELS)


@dataclass(frozen=True)
class Task:
    """A batch: its number, and the numbers and the varying inputs of its points."""

    batch: int
    points: NDArray[np.int64]
    inputs: Inputs


@dataclass(frozen=True)
class Outcome:
    """What came out of a batch, point by point.

    columns   quantity -> values; NaN or None where it does not exist or the point failed
    feasible  whether all constraints hold, None for a failed point
    errors    why a point failed, or None
    mappings  number of a point -> the mapping that was found for it, as YAML
    """

    task: Task
    keys: list[bytes]
    columns: Mapping[str, Cells]
    feasible: list[bool | None]
    errors: list[str | None]
    version: str
    mappings: Mapping[int, str] = field(default_factory=dict)


def evaluate(study: Study, task: Task) -> Outcome:
    """Evaluate a batch. Points that fail are reported, they raise nothing."""
    count = len(task.points)
    batch = _Batch(study, task, [None] * count, [None] * count, {}, {})
    for chosen, places in study.combinations(task.inputs):
        rest = batch.run_programs(chosen, places)
        # Mappings are found point by point, so a point that has none must not have others evaluated twice.
        alone = isinstance(study.models[chosen].mapping, Find)
        for part in np.split(rest, len(rest)) if alone and len(rest) else [rest]:
            batch.attempt(chosen, part)
    columns = {name: batch.columns.get(name, np.full(count, np.nan)) for name in study.columns}
    return Outcome(task, study.keys(task.inputs), columns, batch.feasible, batch.errors, study.version, batch.mappings)


@dataclass
class _Batch:
    """A batch while it is evaluated."""

    study: Study
    task: Task
    feasible: list[bool | None]
    errors: list[str | None]
    columns: dict[str, Cells]
    mappings: dict[int, str]

    def run_programs(self, chosen: Combination, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """Evaluate the points at `places` that a point program holds for; the places of the others."""
        for program in self.study.programs.get(chosen, ()):
            if not len(places):
                break
            results, holds = program.run(take(self.task.inputs, places), len(places))
            own, results = places[holds], take(results, holds)
            if program.failure is not None:
                for place, sentence in zip(own.tolist(), program.failure.sentences(results, len(own)), strict=True):
                    self.errors[place] = sentence
            else:
                self.attempt(chosen, own, results)
            places = places[~holds]
        return places

    def attempt(
        self, chosen: Combination, places: NDArray[np.intp], results: dict[str, Cells] | None = None, depth: int = 0
    ) -> None:
        """Evaluate the points at `places`, whose results may be known; when that fails, each part of them."""
        if not len(places):
            return
        inputs = take(self.task.inputs, places)
        try:
            known = simulated(self.study, chosen, inputs) if results is None else results
            values, holds = quantities(self.study, chosen, inputs, len(places), known)
        # Any exception: whatever is wrong with one point must not cost the others.
        except Exception as error:
            if len(places) > 1:
                for part in _divide(inputs, len(places), depth):
                    self.attempt(chosen, places[part], None if results is None else take(results, part), depth + 1)
            else:
                self.errors[places[0]] = _sentence(error)
            return
        for name, cells in values.items():
            self._column(name, cells)[places] = cells
        if DOCUMENT in known:
            documents = known[DOCUMENT].tolist()
            self.mappings.update(zip(self.task.points[places].tolist(), documents, strict=True))
        if len(places) == len(self.feasible):
            self.feasible[:] = holds.tolist()
            return
        for place, fits in zip(places.tolist(), holds.tolist(), strict=True):
            self.feasible[place] = fits

    def _column(self, name: str, cells: Cells) -> Cells:
        text = cells.dtype.kind not in "biuf"
        column = self.columns.get(name)
        if column is None:
            count = len(self.task.points)
            column = np.full(count, None, dtype=object) if text else np.full(count, np.nan)
        elif text and column.dtype != object:
            empty = np.isnan(column)
            column = column.astype(object)
            column[empty] = None
        self.columns[name] = column
        return column


def quantities(
    study: Study, chosen: Combination, inputs: Inputs, count: int, results: Mapping[str, Cells]
) -> tuple[dict[str, Cells], NDArray[np.bool_]]:
    """The quantities of some points of one combination, and whether they keep the constraints on results.

    results  of the simulator at these points, by dotted name
    """
    models = study.models[chosen]
    known: dict[str, Any] = {**study.constants, **dict(zip(MODELS, chosen, strict=True)), **inputs}
    known = {name: value for name, value in known.items() if value is not None}
    known |= results
    values: dict[str, Cells] = {}
    varied = isinstance(models.mapping, Find)

    def exists(name: str, expression: Expression) -> bool:
        # Which Einsums run together, and so some names of results, may differ between mappings that are found.
        return name not in models.missing and (not varied or expression.names <= {*known, *values})

    for name, column in study.columns.items():
        if exists(name, column.value):
            values[name] = _evaluated(column.value, {**known, **values}, count, f"columns.{name}")
    known |= values
    holds = np.ones(count, dtype=bool)
    for condition in study.conditions:
        if condition.names.isdisjoint(models.missing) and exists("", condition):
            holds &= _evaluated(condition, known, count, "constraints") != 0
    return values, holds


def simulated(study: Study, chosen: Combination, inputs: Inputs) -> dict[str, Cells]:
    """The simulator's results at some points of one combination, by dotted name."""
    from simulator.simulate import simulate

    models = study.models[chosen]
    if isinstance(models.mapping, Find):
        return models.mapping.values(
            models.cascade,
            models.architecture,
            models.workload,
            study.settings(inputs),
            end_to_end=models.end_to_end,
            fidelity=study.fidelity,
        )
    result = simulate(
        models.cascade,
        models.architecture,
        models.mapping,
        models.workload,
        study.settings(inputs),
        end_to_end=models.end_to_end,
        fidelity=study.fidelity,
    )
    return result_values(result)


def _evaluated(expression: Expression, known: Mapping[str, Any], count: int, key: str) -> Cells:
    try:
        return np.broadcast_to(np.asarray(expression.evaluate(known)), (count,))
    except EinsightError as error:
        raise error.located(key=key) from None


def _divide(inputs: Inputs, count: int, depth: int) -> Sequence[NDArray[np.intp]]:
    """Two parts of some points, told apart by one input: what fails mostly does so from some value of an input on.

    Each depth takes another input, so that boxes form; they soon lie on one side of the border.
    """
    varying = [name for name, values in inputs.items() if (values != values[0]).any()]
    if not varying:
        return np.arange(count // 2), np.arange(count // 2, count)
    values, codes = np.unique(inputs[varying[depth % len(varying)]], return_inverse=True)
    low = codes < len(values) // 2
    return np.flatnonzero(low), np.flatnonzero(~low)


def _sentence(error: Exception) -> str:
    """The error of a single point; the simulator counts the points of its call, which is of no interest here."""
    if isinstance(error, EinsightError):
        return re.sub(r" at design point 0\b", "", str(error))
    return f"{type(error).__name__}: {error}"


def constrained(constraints: Sequence[Expression], inputs: Mapping[str, Any], count: int) -> NDArray[np.bool_]:
    """Which points keep the constraints on inputs. SpecError for a constraint that cannot be evaluated."""
    holds = np.ones(count, dtype=bool)
    for number, condition in enumerate(constraints):
        try:
            value = np.broadcast_to(np.asarray(condition.evaluate(inputs)), (count,))
        except EinsightError as error:
            raise error.located(key=f"constraints[{number}]") from None
        if value.dtype.kind == "U":
            raise SpecError(f"'{condition}' is text, expected a condition", key=f"constraints[{number}]")
        holds &= value != 0
    return holds
