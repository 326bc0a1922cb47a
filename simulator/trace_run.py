"""Simulation of a run whose sizes a trace gives: a plan with a phase over the rows of a trace."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from architectures import Architecture
from einsum.cascade import Cascade
from einsum.errors import SpecError, refuse_unknown
from mappings import Mapping, TileProgram
from simulator.analytic import evaluate
from simulator.result import Result
from simulator.simulate import Design, Settings, check_timeline, plan_program
from workloads import HeadTrace, Workload

Progress = Callable[[int, int], None]


def simulate_trace(
    trace: str | Path | HeadTrace | None = None,
    *,
    mapping: str | Path | Mapping | None = None,
    architecture: str | Path | Architecture | None = None,
    workload: str | Path | Workload | None = None,
    cascade: str | Path | Cascade | None = None,
    settings: Settings | None = None,
    fidelity: Literal["analytic", "event"] = "analytic",
    timeline: str | Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Result:
    """Cost of a traced run.

    trace       the run: a CSV file or its rows; without one, the run that the workload's pruning schedule gives
    mapping     a plan with a phase over rows; without one, the architecture's own
    settings    values of variables of architecture, mapping and workload; arrays have one value per design point
    timeline    file for a timeline in Chrome trace format (event fidelity, one design point)
    progress    called with the number of parts done and wanted: reading, lowering, evaluating

    Raises SpecError for bad input, with the row of the trace.
    """
    given = dict(settings or {})
    progress(0, 3)
    plan, machine = _mapping(mapping, architecture)
    chosen_workload = workload if workload is None or isinstance(workload, Workload) else Workload.load(workload)
    rows = _rows(trace, chosen_workload, given)
    progress(1, 3)
    chosen = Design(_cascade(cascade, plan), machine, plan, chosen_workload, given)
    check_timeline(timeline, fidelity, chosen.points)
    program = trace_program(chosen, rows)
    progress(2, 3)
    if fidelity == "analytic":
        result = evaluate(program)
    else:
        from simulator.event import evaluate_events

        result = evaluate_events(program, trace=timeline)
    progress(3, 3)
    return result.point(0) if chosen.scalar else result


def trace_program(chosen: Design, rows: HeadTrace) -> TileProgram:
    """The tile program of a trace under a design whose mapping is a plan over its rows."""
    known = {*chosen.architecture.known_names, *chosen.mapping.known_names}
    known |= chosen.workload.known_names if chosen.workload else frozenset()
    refuse_unknown(chosen.settings, known)
    return plan_program(chosen, rows)


def _mapping(
    mapping: str | Path | Mapping | None, architecture: str | Path | Architecture | None
) -> tuple[Mapping, Architecture]:
    """The mapping and the architecture, each found through the other when only one is named."""
    machine = architecture if isinstance(architecture, Architecture) else None
    if isinstance(architecture, str | Path):
        machine = Architecture.load(architecture)
    if mapping is None:
        if machine is None:
            raise SpecError("a trace needs an architecture or a mapping to run on")
        if machine.mapping is None:
            raise SpecError(f"the architecture '{machine.name}' names no mapping for traces", file=machine.file)
        mapping = machine.mapping
    plan = mapping if isinstance(mapping, Mapping) else Mapping.load(mapping)
    if plan.plan is None or not plan.plan.traced:
        found = "a loop nest" if plan.plan is None else "a plan without phases over the rows of a trace"
        raise SpecError(f"the mapping '{plan.name}' is {found}; a trace needs a plan with such a phase", file=plan.file)
    if machine is None:
        if plan.header.architecture is None:
            raise SpecError("the mapping names no architecture, so one has to be given", file=plan.file)
        machine = Architecture.load(plan.header.architecture)
    return plan, machine


def _cascade(cascade: str | Path | Cascade | None, plan: Mapping) -> Cascade:
    named = cascade if cascade is not None else plan.header.cascade
    if named is None:
        raise SpecError("the mapping names no cascade, so one has to be given", file=plan.file)
    return named if isinstance(named, Cascade) else Cascade.load(named)


def _rows(trace: str | Path | HeadTrace | None, workload: Workload | None, settings: dict[str, Any]) -> HeadTrace:
    if isinstance(trace, HeadTrace):
        return trace
    if trace is not None:
        return HeadTrace.load(trace)
    if workload is None:
        raise SpecError("a plan over rows needs a trace, or a workload with a pruning schedule")
    varied = next((name for name in workload.variables if np.ndim(settings.get(name, 0)) > 0), None)
    if varied is not None:
        raise SpecError(f"the trace of a schedule has one size; '{varied}' is an array")
    return workload.head_trace(settings)
