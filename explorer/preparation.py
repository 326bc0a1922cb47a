"""From a sweep to its study: descriptions loaded, every name checked, quantities and constraints sorted out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from architectures import Architecture
from einsum.cascade import Cascade
from einsum.errors import EinsightError, SpecError, nearest
from einsum.expressions import Expression
from explorer.identity import model_version, models_digest
from explorer.mapped import DOCUMENT, FOUND, Find, missing_model
from explorer.points import Cells
from explorer.space import Inputs, Space, take
from explorer.study import Combination, Models, Study, combination, quantities, simulated
from explorer.sweep import MODELS, Objective, Quantity, Sweep
from mappings import Mapping as Plan
from mappings.mapping import Header
from workloads import Workload

PROBES = 32
FOUND_PROBES = 8
"""Points of each combination that are simulated at most to see which results there are; fewer where a mapping has to
be found for each."""
Probe = tuple[Inputs, dict[str, Cells]]
"""A point and the simulator's results there."""


def input_constraints(sweep: Sweep) -> tuple[Expression, ...]:
    """The constraints that inputs alone decide."""
    known = set(sweep.input_names())
    return tuple(condition for condition in sweep.constraints if condition.names <= known)


def _bare(sweep: Sweep) -> Study:
    """The study of a sweep without quantities and constraints; SpecError for unknown descriptions and variables."""
    constants, finds = sweep.fixed(), sweep.finds()
    models = {chosen: _load(chosen, finds) for chosen in _combinations(sweep.space(), constants)}
    study = Study(models, constants, sweep.space().names, {}, (), sweep.fidelity, model_version())
    for chosen in models:
        _check_variables(study, chosen)
    return study


def results_of(sweep: Sweep, candidates: Inputs) -> dict[str, float | str]:
    """All results that expressions may use, with their values at one of a sweep's points of each combination."""
    study = _bare(sweep)
    found: dict[str, float | str] = {}
    for chosen in study.models:
        _, results = next(_probes(study, chosen, candidates), (None, {}))
        found = {**{name: cells[0].item() for name, cells in results.items() if name != DOCUMENT}, **found}
    if not found:
        raise SpecError("none of the points tried can be simulated, so their results are not known")
    return found


def prepare(sweep: Sweep, candidates: Inputs) -> tuple[Study, tuple[Objective, ...]]:
    """The study of a sweep, and its objectives; `candidates` are some of its points, which show the results there are.

    Raises SpecError for unknown descriptions, variables, results and quantities, with the nearest name.
    """
    study = _bare(sweep)
    objectives = sweep.objectives
    columns = dict(sweep.columns)
    if not columns:
        columns = _usual_columns(study.models.values())
        objectives = objectives or (Objective(minimize="latency_s"), Objective(minimize="energy_j"))
    usual = frozenset() if sweep.columns else frozenset(columns) - {objective.name for objective in objectives}
    for objective in objectives:
        if objective.name not in columns and objective.name not in sweep.space().names:
            columns[objective.name] = _result(objective.name)
    conditions = tuple(condition for condition in sweep.constraints if condition not in input_constraints(sweep))
    study = replace(study, columns=columns, conditions=conditions)
    probes = {chosen: _probes(study, chosen, candidates) for chosen in study.models}
    first = {chosen: next(probe, None) for chosen, probe in probes.items()}
    study = _checked(
        study, {chosen: None if probe is None else set(probe[1]) for chosen, probe in first.items()}, usual
    )
    tried = {chosen: chain([probe], probes[chosen]) for chosen, probe in first.items() if probe is not None}
    _check_kinds(study, tried, objectives)
    return study, objectives


def _combinations(space: Space, constants: Mapping[str, Any]) -> list[Combination]:
    """All combinations of descriptions in the space."""
    axes = Space(tuple(axis for axis in space.axes if set(axis.names) & set(MODELS)))
    if not axes.axes:
        return [combination(constants)]
    inputs = axes.grid(np.arange(axes.size))
    rows = zip(*(inputs[name].tolist() for name in axes.names), strict=True)
    return list(dict.fromkeys(combination({**constants, **dict(zip(axes.names, row, strict=True))}) for row in rows))


def _load(chosen: Combination, finds: Mapping[str, Find]) -> Models:
    cascade_name, architecture_name, mapping_name, workload_name, end_to_end = chosen
    mapping = finds.get(str(mapping_name)) or Plan.load(str(mapping_name))
    if not isinstance(mapping, Find):
        cascade_name = cascade_name or mapping.header.cascade
        architecture_name = architecture_name or mapping.header.architecture
    for kind, name in (("cascade", cascade_name), ("architecture", architecture_name)):
        if name is None and isinstance(mapping, Find):
            raise missing_model(kind)
        if name is None:
            raise SpecError(f"the mapping '{mapping_name}' names no {kind}, so one has to be given")
    cascade = Cascade.load(Path(str(cascade_name)) if _is_path(cascade_name) else str(cascade_name))
    architecture = Architecture.load(str(architecture_name))
    workload = None if workload_name is None else Workload.load(str(workload_name))
    digest = models_digest(cascade, architecture, mapping, workload, bool(end_to_end))
    return Models(cascade, architecture, mapping, workload, bool(end_to_end), digest)


def _is_path(name: Any) -> bool:
    return Path(str(name)).suffix in (".yaml", ".yml")


def _usual_columns(models: Iterable[Models]) -> dict[str, Quantity]:
    """Time, energy, area, traffic of each memory, utilization of each unit, and what bounds them."""
    names = ["latency_s", "energy_j", "area_mm2"]
    for model in models:
        for level in model.architecture.memories:
            names += [f"traffic_bytes.{level}.total.read", f"traffic_bytes.{level}.total.write"]
        names += [f"utilization.{unit}" for unit in model.architecture.units]
    names.append("bound_by")
    names += FOUND if any(isinstance(model.mapping, Find) for model in models) else ()
    return {name: _result(name) for name in dict.fromkeys(names)}


_DIMENSIONS = {"latency_s": "s", "energy_": "j", "traffic_bytes.": "bytes", "utilization": "fraction"}


def _result(name: str) -> Quantity:
    """A result of the simulator as a quantity; how its name begins says what it is measured in."""
    dimension = next((unit for start, unit in _DIMENSIONS.items() if name.startswith(start)), "count")
    return Quantity(value=Expression.parse(name), dimension=dimension)


_NOTHING = Plan(Header(mapping="found"), (), {})


def _check_variables(study: Study, chosen: Combination) -> None:
    """Raise SpecError for a variable that the descriptions of a combination do not have."""
    from simulator.simulate import Design, design

    models = study.models[chosen]
    # A mapping that is found has no variables of its own.
    mapping = _NOTHING if isinstance(models.mapping, Find) else models.mapping
    described = (models.cascade, models.architecture, mapping, models.workload)
    known = Design(*described, {}).known_names()
    for name in (*study.varying, *study.constants):
        if name not in known and name not in MODELS:
            shown = ", ".join(str(value) for value in chosen if isinstance(value, str))
            raise SpecError(f"unknown variable '{name}'{nearest(name, known)}; no description in {shown} has it")
    # Raises for a cascade's size that neither a description nor the sweep gives.
    design(*described, {name: 1 for name in (*study.varying, *study.constants) if name not in MODELS})


def _checked(study: Study, found: Mapping[Combination, set[str] | None], usual: frozenset[str]) -> Study:
    """The study with the results that each combination lacks; SpecError for names that no combination has.

    found  names of the results of each combination; None where no point tried can be simulated
    usual  quantities that are left out where no combination has them
    """
    results = {name for known in found.values() if known for name in known}
    complete = all(known is not None for known in found.values())
    if complete:
        columns = {
            name: column for name, column in study.columns.items() if name not in usual or column.value.names <= results
        }
        study = replace(study, columns=columns)
        _check_expressions(study, results)
    models = {
        chosen: models if (known := found[chosen]) is None else replace(models, missing=_missing(study, known))
        for chosen, models in study.models.items()
    }
    return replace(study, models=models)


def _matching(study: Study, chosen: Combination, candidates: Inputs) -> Sequence[Inputs]:
    """A few of the candidates, one by one, that belong to a combination."""
    places = dict(study.combinations(candidates)).get(chosen)
    if places is None:
        return []
    most = FOUND_PROBES if isinstance(study.models[chosen].mapping, Find) else PROBES
    spread = np.unique(np.linspace(0, len(places) - 1, most).astype(int))
    return [take(candidates, places[place : place + 1]) for place in spread.tolist()]


def _probes(study: Study, chosen: Combination, candidates: Inputs) -> Iterator[Probe]:
    """Some points of a combination that can be simulated, each when it is asked for."""
    study = replace(study, fidelity="analytic")
    for inputs in _matching(study, chosen, candidates):
        try:
            results = simulated(study, chosen, inputs)
        except EinsightError:
            continue
        yield inputs, results


def _check_expressions(study: Study, results: set[str]) -> None:
    inputs = {*study.varying, *(name for name, value in study.constants.items() if value is not None)}
    known = inputs | results
    for name, column in study.columns.items():
        if name in results and column.value.names != {name}:
            raise SpecError(f"'{name}' is a result of the simulator already; choose another name", key="columns")
        _check_names(column.value, known, f"columns.{name}")
        known.add(name)
    for condition in study.conditions:
        _check_names(condition, known, "constraints")


def _check_names(expression: Expression, known: set[str], key: str) -> None:
    for name in sorted(expression.names - known):
        if name == "area_mm2":
            raise SpecError("the area is not known: the architecture does not give that of every part", key=key)
        hint = "; `einsight sweep FILE --results` lists them all"
        raise SpecError(f"unknown input or result '{name}' in '{expression}'{nearest(name, known)}{hint}", key=key)


def _missing(study: Study, results: set[str]) -> frozenset[str]:
    """Names in quantities and constraints that a combination does not have, and the quantities that need them."""
    known = {*study.varying, *study.constants, *results}
    missing: set[str] = set()
    for name, column in study.columns.items():
        if column.value.names <= known:
            known.add(name)
        else:
            missing.add(name)
    used = {name for condition in study.conditions for name in condition.names}
    return frozenset(missing | (used - known))


def _check_kinds(study: Study, probes: Mapping[Combination, Iterable[Probe]], objectives: Sequence[Objective]) -> None:
    """Raise SpecError for an objective that is text, and for an expression that cannot be evaluated at any probe."""
    study = replace(study, fidelity="analytic")
    mistakes: list[EinsightError] = []
    for chosen, points in probes.items():
        for inputs, results in points:
            try:
                values, _ = quantities(study, chosen, inputs, 1, results)
            except EinsightError as error:
                # What the simulator finds wrong with a point lies elsewhere, and is the point's own matter.
                if error.file is None and (error.key or "").startswith(("columns.", "constraints")):
                    mistakes.append(error)
                continue
            values |= inputs
            for objective in objectives:
                if objective.name in values and values[objective.name].dtype.kind not in "biuf":
                    raise SpecError(f"'{objective.name}' is text and cannot be an objective", key="objectives")
            return
    if mistakes:
        raise mistakes[0]
