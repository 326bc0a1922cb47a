"""The mapper with the costs of the analytic evaluator, and the results that mappings may leave at zero."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from architectures import Architecture
from einsum.cascade import Cascade
from mappings.binding import Issue
from mappings.mapping import Mapping as Plan
from mappings.search import Cost, Found, Objective, find
from simulator.simulate import simulate
from workloads import Workload


def find_mapping(
    cascade: str | Path | Cascade,
    architecture: str | Path | Architecture,
    workload: str | Path | Workload | None = None,
    objective: Objective = "edp",
    settings: Mapping[str, Any] | None = None,
    *,
    issue: Issue = "chained",
    hidden_fill: bool = False,
) -> Found:
    """The best mapping by `mappings.search.find`, whose arguments these are, as the analytic evaluator counts costs."""
    cascade = cascade if isinstance(cascade, Cascade) else Cascade.load(cascade)
    architecture = architecture if isinstance(architecture, Architecture) else Architecture.load(architecture)
    workload = workload if workload is None or isinstance(workload, Workload) else Workload.load(workload)

    def evaluate(mapping: Plan) -> Cost:
        result = simulate(cascade, architecture, mapping, workload, settings)
        moved = result.traffic_bytes[next(iter(architecture.memories))]["total"]
        return Cost(float(result.latency_s[0]), float(result.energy_j[0]), float(moved["read"][0] + moved["write"][0]))

    return find(
        cascade, architecture, workload, objective, settings, evaluate=evaluate, issue=issue, hidden_fill=hidden_fill
    )


def possible_results(cascade: Cascade, architecture: Architecture) -> tuple[str, ...]:
    """Results, by dotted name, that a mapping leaves out where nothing moves or runs: they are zero under it."""
    levels, units = architecture.memories, architecture.units
    names = [
        f"traffic_bytes.{level}.{tensor}.{way}"
        for level in levels
        for tensor in (*cascade.tensors, "total")
        for way in ("read", "write")
    ]
    names += [f"energy_by_component_j.{name}" for name in (*levels, *units)]
    return (*names, *(f"utilization.{unit}" for unit in units))
