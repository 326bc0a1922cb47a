"""Fibers that a cascade traverses more than once, from its pass analysis."""

from __future__ import annotations

from collections.abc import Mapping

from bounds.classes import Classes
from bounds.problem import Coupling, FiberPasses, ValueClass
from einsum.cascade import Cascade
from einsum.passes import analyse_passes


def fiber_passes(
    cascade: Cascade,
    classes: Classes,
    found: Mapping[str, ValueClass],
    extents: Mapping[str, int],
    coupling: Coupling | None,
) -> tuple[FiberPasses, ...]:
    """Classes whose members are touched in several passes over one of their ranks; masked ranks are left out."""
    masked = {coupling.row, coupling.column} if coupling else set()
    result = []
    for rank, extent in extents.items():
        if rank in masked:
            continue
        report = analyse_passes(cascade, rank)
        if report.passes < 2 or report.per_iteration:
            continue
        for name, value in found.items():
            touched = {
                report.pass_of[e.name]
                for e in cascade.einsums
                if e.name in report.pass_of
                for tensor in (e.name, *(access.tensor for access in e.inputs))
                if tensor in value.members
            }
            has_rank = all(rank in map(cascade.base, cascade.tensors[member].ranks) for member in value.members)
            if len(touched) > 1 and has_rank and classes.place(value.members[0]) is not None:
                result.append(FiberPasses(name, rank, float(extent), value.elements / extent, len(touched)))
    return tuple(result)
