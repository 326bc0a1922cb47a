"""Point programs for a study: what makes a sweep of many analytic points fast."""

from __future__ import annotations

from dataclasses import replace

from einsum.errors import EinsightError
from explorer.mapped import Find
from explorer.space import Inputs, take
from explorer.study import Combination, Study
from explorer.sweep import MODELS
from simulator.point_program import PointProgram

FEWEST_POINTS = 5_000
"""Points of a sweep from which on programs are worth the time that finding them takes."""
CANDIDATES = 4096
"""Points of a sweep that programs are looked for at."""


def with_programs(study: Study, candidates: Inputs) -> Study:
    """A study with programs for all combinations that have any.

    The programs follow from the study and the candidates alone, so a point comes to the same wherever it is evaluated.
    """
    if study.fidelity != "analytic":
        return study
    programs = {
        chosen: _programs(study, chosen, take(candidates, places))
        for chosen, places in study.combinations(candidates)
        if chosen in study.models
    }
    return replace(study, programs=programs)


def _programs(study: Study, chosen: Combination, inputs: Inputs) -> tuple[PointProgram, ...]:
    from simulator.point_tracing import point_programs
    from simulator.simulate import design

    models = study.models[chosen]
    if isinstance(models.mapping, Find):
        return ()
    names = _results_needed(study, chosen)
    settings = {name: value for name, value in study.settings(inputs).items() if value is not None}
    try:
        found = design(models.cascade, models.architecture, models.mapping, models.workload, settings)
    except EinsightError:
        return ()
    return point_programs(found, names, models.end_to_end)


def _results_needed(study: Study, chosen: Combination) -> list[str]:
    """Results of the simulator that the quantities and constraints of a combination are computed from."""
    missing = study.models[chosen].missing
    known = {*study.varying, *study.constants, *MODELS}
    needed: dict[str, None] = {}
    for label, column in study.columns.items():
        if label not in missing:
            needed |= dict.fromkeys(sorted(column.value.names - known))
            known.add(label)
    for condition in study.conditions:
        if condition.names.isdisjoint(missing):
            needed |= dict.fromkeys(sorted(condition.names - known))
    return list(needed)
