"""A small machine for the tests: memories without limits, arrays of a few elements, energies of one joule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from architectures import Architecture
from einsum import Cascade
from mappings import Mapping as Plan
from mappings import TileProgram
from simulator.simulate import build_program, design

OPS = ("mac", "mul", "add", "sub", "max", "exp", "div")


def machine(
    sizes: Mapping[str, int] | None = None, capacity: Mapping[str, str] | None = None, **memory: Any
) -> Architecture:
    """DRAM, L2 and L1 over a 2D array `grid` and a 1D array `row` of the given sizes (rows, columns, lanes)."""
    sizes = {"rows": 2, "columns": 3, "lanes": 4} | dict(sizes or {})
    ops = {kind: {"cycles": cycles, "energy": "1 J"} for cycles, kind in enumerate(OPS, start=1)}
    registers = {"words": 8, "read_energy": "1 J", "write_energy": "1 J"}
    level = {"read_energy": "1 J", "write_energy": "1 J", **memory}
    capacity = capacity or {}
    return Architecture.parse(
        {
            "architecture": "small",
            "clock": "1 GHz",
            "word_bits": 16,
            "memories": {
                name: {**level, **({"capacity": capacity[name]} if name in capacity else {})}
                for name in ("DRAM", "L2", "L1")
            },
            "units": {
                "grid": {
                    "dims": {"rows": sizes["rows"], "columns": sizes["columns"]}, "ops": ops, "registers": registers
                },
                "row": {"dims": {"lanes": sizes["lanes"]}, "ops": ops, "registers": registers},
            },
        }
    )  # fmt: skip


def units(architecture: Architecture) -> dict[str, dict[str, Any]]:
    """What the oracle wants to know of the units."""
    evaluated = architecture.evaluate({})
    return {
        name: {
            "dims": {dim: int(size) for dim, size in unit.dims.items()},
            "ops": {kind: int(op.cycles) for kind, op in unit.ops.items()},
        }
        for name, unit in evaluated.units.items()
    }


def plan(nest: list[Any], **header: Any) -> Plan:
    """A mapping of a nest."""
    return Plan.parse({"mapping": "test", "nest": nest, **header})


def program(cascade: Cascade, architecture: Architecture, nest: list[Any], values: Mapping[str, Any]) -> TileProgram:
    """The tile program of a nest."""
    return build_program(design(cascade, architecture, plan(nest), None, values))


def totals(lowered: TileProgram) -> dict[str, Counter[Any]]:
    """Sums over all tiles: words read and written by (level, tensor), busy cycles and actions."""
    found: dict[str, Counter[Any]] = {name: Counter() for name in ("read", "write", "cycles", "actions")}
    for phase in lowered.phases:
        for stream in phase.streams:
            for step in stream.steps:
                for key, traffic in step.traffic.items():
                    found["read"][key] += _sum(traffic.read_bytes, stream.counts) / 2
                    found["write"][key] += _sum(traffic.write_bytes, stream.counts) / 2
                for action, count in step.actions.items():
                    found["actions"][action] += _sum(count, stream.counts)
                if step.resource is not None:
                    found["cycles"][step.resource] += _sum(step.busy_s, stream.counts) * 1e9
    return {name: Counter({k: round(v, 6) for k, v in c.items() if abs(v) > 1e-9}) for name, c in found.items()}


def _sum(values: Any, counts: Any) -> float:
    return float(np.sum(np.asarray(values) * counts))
