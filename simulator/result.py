"""The result of a simulation: what the tile program cost, in SI units, at every design point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mappings.program import Array

Values = Array | NDArray[np.str_]


@dataclass(frozen=True)
class PhaseResult:
    """One phase: its latency and what bounds it, (points,)."""

    name: str
    latency_s: Array
    bound_by: NDArray[np.str_]


@dataclass(frozen=True)
class Result:
    """Costs at one or many design points. Every array is (points,); with `scalar`, the one point's values are floats.

    latency_s               wall-clock time
    cycles                  the same in cycles of the architecture's clock
    energy_j                all components
    energy_by_component_j   component -> energy: memories, units, and the units' register files (`unit.registers`)
    traffic_bytes           memory level -> tensor, and "total" -> "read", "write"
    utilization             unit -> share of its operation slots that did work, 0 to 1
    utilization_by_einsum   unit -> leaf (Einsums computed together) -> its part of the utilization
    area_mm2                silicon area; None when the architecture does not say
    bound_by                what limits the longest phase: a resource, or "dependences"
    phases                  phase by phase
    assumptions             what the evaluation took for granted
    memory_bytes            memory or drive -> "needed", "capacity", where the mapping says what has to be held
    """

    latency_s: Array
    cycles: Array
    energy_j: Array
    energy_by_component_j: Mapping[str, Array]
    traffic_bytes: Mapping[str, Mapping[str, Mapping[str, Array]]]
    utilization: Mapping[str, Array]
    utilization_by_einsum: Mapping[str, Mapping[str, Array]]
    area_mm2: Array | None
    bound_by: NDArray[np.str_]
    phases: tuple[PhaseResult, ...]
    fidelity: str
    assumptions: tuple[str, ...]
    scalar: bool = False
    memory_bytes: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)

    @property
    def fits(self) -> NDArray[np.bool_]:
        """Whether everything that has to be held fits, (points,); true where the mapping does not say."""
        found = np.ones(self.points, dtype=bool)
        for memory in self.memory_bytes.values():
            found &= memory["needed"] <= memory["capacity"]
        return found

    @property
    def points(self) -> int:
        """Number of design points."""
        return int(self.latency_s.shape[0])

    def energy_without_registers_j(self) -> Array:
        """Energy of everything but the register files of the processing elements."""
        return np.asarray(
            sum(value for name, value in self.energy_by_component_j.items() if not name.endswith(".registers"))
        )

    def point(self, index: int) -> Result:
        """The result at one design point, scalar."""
        return _mapped(self, lambda array: array[index : index + 1], scalar=True)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: numbers when scalar, else lists over the points."""

        def plain(value: Any) -> Any:
            if isinstance(value, np.ndarray):
                return value[0].item() if self.scalar else value.tolist()
            if isinstance(value, Mapping):
                return {key: plain(inner) for key, inner in value.items()}
            return value

        return {
            "latency_s": plain(self.latency_s),
            "cycles": plain(self.cycles),
            "energy_j": plain(self.energy_j),
            "energy_by_component_j": plain(self.energy_by_component_j),
            "traffic_bytes": plain(self.traffic_bytes),
            "utilization": plain(self.utilization),
            "utilization_by_einsum": plain(self.utilization_by_einsum),
            "area_mm2": plain(self.area_mm2),
            "bound_by": plain(self.bound_by),
            "phases": [
                {"name": phase.name, "latency_s": plain(phase.latency_s), "bound_by": plain(phase.bound_by)}
                for phase in self.phases
            ],
            "fits": plain(self.fits),
            "memory_bytes": plain(self.memory_bytes),
            "fidelity": self.fidelity,
            "assumptions": list(self.assumptions),
        }


def result_values(result: Result) -> dict[str, Values]:
    """The arrays of a result by dotted name, such as `traffic_bytes.DRAM.total.read`."""
    found: dict[str, Values] = {}
    pending: list[tuple[str, Any]] = [(part.name, getattr(result, part.name)) for part in reversed(fields(result))]
    while pending:
        name, value = pending.pop()
        if isinstance(value, Mapping):
            pending += [(f"{name}.{inner}", part) for inner, part in reversed(list(value.items()))]
        elif isinstance(value, np.ndarray):
            found[name] = value
    return found


def merge_points(parts: Sequence[tuple[NDArray[np.intp], Result]], points: int) -> Result:
    """One result from results of disjoint groups of design points, each with the places of its points."""
    first = parts[0][1]
    if len(parts) == 1:
        return first

    def joined(arrays: Sequence[Any]) -> Any:
        kind = np.result_type(*arrays)
        whole = np.zeros(points, dtype=kind)
        for (places, _), array in zip(parts, arrays, strict=True):
            whole[places] = array
        return whole

    results = [result for _, result in parts]
    merged = _merge_values([_arrays(result) for result in results], joined, [result.points for result in results])
    phases = _merged_phases(results, joined)
    notes = tuple(dict.fromkeys(note for result in results for note in result.assumptions))
    return Result(**merged, phases=phases, fidelity=first.fidelity, assumptions=notes)


def _merged_phases(results: Sequence[Result], joined: Any) -> tuple[PhaseResult, ...]:
    if len({len(result.phases) for result in results}) > 1:
        return ()
    return tuple(
        PhaseResult(
            group[0].name, joined([phase.latency_s for phase in group]), joined([phase.bound_by for phase in group])
        )
        for group in zip(*(result.phases for result in results), strict=True)
    )


def _arrays(result: Result) -> dict[str, Any]:
    names = ("latency_s", "cycles", "energy_j", "energy_by_component_j", "traffic_bytes", "utilization",
             "utilization_by_einsum", "area_mm2", "bound_by", "memory_bytes")  # fmt: skip
    return {name: getattr(result, name) for name in names}


def _merge_values(values: Sequence[Any], joined: Any, counts: Sequence[int]) -> Any:
    """Merge equal nests of mappings; a key that one group lacks counts as zero there."""
    if all(isinstance(value, Mapping) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: _merge_values([value.get(key) for value in values], joined, counts) for key in keys}
    if all(value is None for value in values):
        return None
    nested = next((value for value in values if isinstance(value, Mapping)), None)
    if nested is not None:
        return _merge_values([{} if value is None else value for value in values], joined, counts)
    return joined([np.zeros(count) if value is None else value for value, count in zip(values, counts, strict=True)])


def _mapped(result: Result, change: Any, scalar: bool) -> Result:
    def walk(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return change(value)
        return {key: walk(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value

    arrays = {name: walk(value) for name, value in _arrays(result).items()}
    phases = tuple(PhaseResult(phase.name, change(phase.latency_s), change(phase.bound_by)) for phase in result.phases)
    return Result(**arrays, phases=phases, fidelity=result.fidelity, assumptions=result.assumptions, scalar=scalar)
