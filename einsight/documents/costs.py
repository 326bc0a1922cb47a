"""What `simulate`, `map` and `bounds` print with `--json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, RootModel

from einsight.documents.base import Document


class Moved(Document):
    """Bytes that a tensor moves in a memory."""

    read: float
    """Bytes read."""
    write: float
    """Bytes written."""


class Held(Document):
    """What a memory has to hold."""

    needed: float
    """Bytes to hold."""
    capacity: float
    """Bytes that there are."""


class Phase(Document):
    """A phase of the run."""

    name: str
    """Its name."""
    latency_s: float
    """Its time, all repetitions together."""
    bound_by: str
    """What limits it."""


class Simulation(Document):
    """What a run costs."""

    latency_s: float
    """Wall-clock time."""
    cycles: float
    """The same in cycles of the architecture's clock."""
    energy_j: float
    """Energy of all components."""
    energy_by_component_j: dict[str, float]
    """Component -> energy; the register files of a unit are `UNIT.registers`."""
    traffic_bytes: dict[str, dict[str, Moved]]
    """Memory, drive or link -> tensor, and `total` -> bytes."""
    utilization: dict[str, float]
    """Unit -> share of its operation slots that did work, 0 to 1."""
    utilization_by_einsum: dict[str, dict[str, float]]
    """Unit -> Einsums computed together -> their part of its utilization."""
    area_mm2: float | None
    """Silicon area; `null` where the architecture does not say."""
    bound_by: str
    """What limits the longest phase: a resource, or `dependences`."""
    phases: list[Phase]
    """Phase by phase."""
    fits: bool
    """Whether all that has to be held fits; true where the mapping does not say."""
    memory_bytes: dict[str, Held]
    """Memory or drive -> what it has to hold, where the mapping says so."""
    fidelity: Literal["analytic", "event"]
    """The evaluator."""
    assumptions: list[str]
    """What the evaluation took for granted."""


class FoundMapping(Document):
    """A mapping and what it costs."""

    latency_s: float
    """Time."""
    energy_j: float
    """Energy."""
    edp_js: float
    """Energy times time."""
    dram_traffic_bytes: float
    """Bytes read and written in the outermost memory."""
    mapping: dict[str, Any]
    """The mapping as YAML would say it."""


class Search(FoundMapping):
    """The best mapping found."""

    objective: Literal["edp", "latency", "energy", "dram", "pareto"]
    """What was made small."""
    exact: bool
    """Whether no mapping of the space moves less."""
    dram_bytes: float
    """Traffic of the outermost memory as the search counts it."""
    compulsory_bytes: float
    """Traffic that no algorithm avoids: inputs and outputs, once each."""
    gap_to_compulsory: float
    """How many times as much the mapping moves."""
    lower_bound_bytes: float | None
    """The proven bound for all memories on chip together; `null` where there is none."""
    lower_bound_theorem: str | None
    """The theorem behind it."""
    gap_to_lower_bound: float | None
    """How many times as much the mapping moves."""
    candidates: int
    """Mappings that were evaluated."""
    front: list[FoundMapping] = Field(default=[])
    """Objective `pareto`: all that no other one beats in both time and energy."""


class ScheduleCost(Document):
    """What a named schedule moves."""

    words: float
    """Words between fast and slow memory."""
    fits: bool
    """Whether its smallest tiles fit."""
    blocks: str | None
    """The tiles that were chosen."""


class Bound(Document):
    """The bound for one size of the fast memory."""

    fast_memory_words: float
    """Words that the fast memory holds."""
    lower_bound_words: float
    """Words that any schedule of the class must move."""
    label: str
    """The class of algorithms that it holds for."""
    theorem: str
    """The theorem behind it."""
    certificate: dict[str, Any]
    """What the verifier needs to check it again (docs/bounds.md)."""
    best_schedule_words: float | None
    """Words that the best schedule known moves; `null` where none is known."""
    best_schedule: str | None
    """That schedule."""
    gap: float | None
    """Best schedule over bound."""
    schedules: dict[str, ScheduleCost]
    """Named schedule -> what it moves."""


class Bounds(RootModel[list[Bound]]):
    """A list with one bound for each size of the fast memory."""
