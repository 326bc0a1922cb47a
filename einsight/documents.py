"""The documents that `--json` prints, one model for each subcommand: their reference, their schema and their test.

Only `einsight schema` and the reference pages import this module; the subcommands write plain data, and tests hold
that data to these models.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel, TypeAdapter

Setting = bool | int | float | str


class Document(BaseModel):
    """Base of all documents and their parts: what is not named here does not occur."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class LibraryEntry(Document):
    """One description of the libraries."""

    kind: Literal["cascade", "architecture", "mapping", "workload"]
    """What it describes."""
    name: str
    """Its name in the library."""
    description: str
    """Its first sentence."""
    source: str
    """Where its numbers come from."""


class Description(Document):
    """One description, as `einsight show` found it."""

    kind: Literal["cascade", "architecture", "mapping", "workload"]
    """What it describes."""
    file: str
    """Where it lies."""
    data: dict[str, Any]
    """What the YAML file says; see the reference of its kind."""


class PassEinsum(Document):
    """Where one Einsum falls."""

    in_pass: int | None = Field(alias="pass")
    """The pass in which it traverses the rank; none where it does not."""
    runs_at: float
    """In pass p: p - 0.5; between passes: a whole number."""
    chain: list[str]
    """Einsums that force it there, the last one being itself."""
    reason: str
    """The same in words."""


class LiveValues(Document):
    """What has to be kept from one pass to the next."""

    tensor: str
    """The tensor."""
    after_pass: int
    """It is kept from this pass to the next."""
    words: int | str
    """Words, or an expression of the sizes that are not set."""
    per: list[str]
    """Ranks for each of whose coordinates so many words are kept."""


class RankPasses(Document):
    """The passes over one rank."""

    passes: int
    """Passes that every mapping must make."""
    traversed_by: list[str]
    """The rank, or the parts that it is cut into."""
    per_iteration: list[str]
    """Iterative ranks in each of whose iterations the passes occur."""
    einsums: dict[str, PassEinsum]
    """Einsum -> where it falls and why."""
    live: list[LiveValues]
    """What has to be kept between passes."""


class Passes(Document):
    """The passes of a cascade."""

    cascade: str
    """Its name."""
    ranks: dict[str, RankPasses]
    """Rank -> its passes."""


class Spread(Document):
    """Counts over the row tiles."""

    least: int
    """The smallest."""
    mean: float
    """Their mean."""
    most: int
    """The largest."""


class TileVisits(Document):
    """What a mask leaves to a kernel that works tile by tile."""

    cascade: str
    """The cascade whose mask it is."""
    row_tile: dict[str, int]
    """Extent of the tile that stays, by rank."""
    column_tile: dict[str, int]
    """Extent of the tiles that it visits, by rank."""
    row_tiles: int
    """Row tiles in all."""
    column_tiles: int
    """Column tiles in all."""
    visited: Spread
    """Column tiles with a kept point, for a row tile."""
    whole: Spread
    """Column tiles among these whose points are all kept."""
    density: float
    """Share of the points that are kept."""
    perfectly_sparse: bool
    """Whether all visited tiles are whole."""
    speedup_bound: float
    """All column tiles over those of the busiest row tile."""
    mean_speedup: float
    """The same where row tiles share their work evenly."""
    end_to_end_bound: float | None
    """Bound for the whole of which the share given is made faster; none without a share."""


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
    front: list[FoundMapping] = []
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


class Measurement(Document):
    """What a measuring session left."""

    plan: str
    """The plan's name."""
    file: str
    """The CSV file with the rows."""
    provenance: str
    """The YAML file with the GPU, versions and times."""
    rows: dict[str, int]
    """Status -> rows in the file."""
    counted: int
    """Rows with hardware counters."""


class Calibration(Document):
    """What the GPU of this machine can do."""

    gpu: dict[str, Any]
    """The GPU as its driver describes it."""
    session: dict[str, Any]
    """Time and versions."""
    facts: dict[str, list[dict[str, Any]]]
    """Section (docs/measuring.md) -> what was done and how long it took."""


class ExperimentRun(Document):
    """The points of an experiment."""

    experiment: str
    """Its name."""
    description: str
    """What it shows."""
    source: str
    """Where the published values come from."""
    points: list[dict[str, Setting | None]]
    """Inputs and columns of every point; compared columns also as `NAME_reference` and `NAME_difference`."""


class Forecast(Document):
    """What a sweep would do (`--dry-run`)."""

    sweep: str
    """Its name."""
    sampler: str
    """Which points it takes."""
    space: int | None
    """Points before constraints; `null` where a range is continuous."""
    points: int
    """Points to evaluate."""
    stored: int
    """Points that DIR has already."""
    seconds_per_point: float
    """Measured on a few points."""
    workers: int
    """Processes."""
    estimated_s: float
    """Time that is left."""


class SweepRun(Document):
    """What a sweep has stored."""

    sweep: str
    """Its name."""
    folder: str
    """DIR."""
    elapsed_s: float
    """Time of this run."""
    points: int
    """Points that are stored."""
    added: int
    """Points that this run added."""
    failed: int
    """Points that are stored with an error."""
    infeasible: int
    """Points that break a constraint on results."""
    objectives: dict[str, Literal["minimize", "maximize"]]
    """Quantity -> what is wanted of it."""
    front_size: int
    """Points on the Pareto front."""
    front_places: int
    """Points on it with different values."""
    front: list[dict[str, Setting | None]]
    """Some of them, from end to end: their inputs and columns."""


class Sweeping(RootModel[SweepRun | Forecast]):
    """What was stored, or with `--dry-run` what would be done."""


class Report(Document):
    """The files of a report."""

    page: str
    """The HTML page."""
    exports: list[str]
    """Files with all points."""


class Errors(Document):
    """How far predictions are off: predicted over measured, less 1."""

    rows: int
    """Rows that were compared."""
    mean_error: float | None = None
    """Mean of the signed errors."""
    mean_absolute_error: float | None = None
    """Mean of their sizes."""
    median_absolute_error: float | None = None
    """Median of their sizes."""
    roofline_mean_absolute_error: float | None = None
    """The same of a plain roofline with launch overhead."""
    within_5_percent: float | None = None
    """Share of the rows that are at most 5 % off."""


class Tiles(Document):
    """How well the order of tiles is predicted."""

    shapes: int
    """Shapes with several tiles."""
    kendall_tau: float | None
    """Mean rank correlation of predicted and measured times within a shape."""
    regret: float | None
    """Mean loss from running the tile that is predicted to be best."""


class Summary(Document):
    """Errors over all rows."""

    rows: int
    """Rows of the file."""
    compared: int
    """Rows that ran and could be predicted."""
    all: Errors
    """Time, over all of them."""
    kernels: dict[str, Errors]
    """Kernel, with its variant -> time."""
    tiles: Tiles
    """Choice of tiles."""
    dram_read: Errors
    """Bytes read from DRAM."""
    dram_write: Errors
    """Bytes written to DRAM."""
    dram_total: Errors
    """Both."""


class Comparison(Document):
    """Measured rows beside their predictions."""

    architecture: str
    """The GPU."""
    rows: list[dict[str, Any]]
    """The file's columns, and `predicted_ms`, `predicted_dram_read_bytes`, `predicted_dram_write_bytes`, `bound_by`."""
    summary: Summary
    """Errors over all rows."""
    files: list[str]
    """Files that were written."""


class Comparing(RootModel[Comparison | dict[str, Comparison]]):
    """One comparison, or name -> comparison where a YAML file lists several."""


class Package(Document):
    """An optional part of Einsight."""

    feature: str
    """What it is for."""
    needs: str
    """The package or program."""
    found: str | None
    """Its version or place; `null` where it is missing."""
    get: str | None
    """How to get it; `null` where nothing is missing."""


class Checkup(Document):
    """What is installed."""

    version: str
    """Version of Einsight."""
    python: str
    """Version of Python."""
    processors: int
    """Processors that this process may use."""
    place: str
    """Folder of the packages."""
    library: dict[str, int]
    """Kind -> descriptions in the library."""
    features: list[Package]
    """Every optional part."""


DOCUMENTS: dict[str, Any] = {
    "list": list[LibraryEntry],
    "show": Description,
    "passes": Passes,
    "tiles": TileVisits,
    "simulate": Simulation,
    "map": Search,
    "bounds": Bounds,
    "run": ExperimentRun,
    "sweep": Sweeping,
    "report": Report,
    "measure": Measurement,
    "calibrate": Calibration,
    "compare": Comparing,
    "doctor": Checkup,
}
"""Subcommand -> the document that it prints with `--json`."""


def json_schema(command: str) -> dict[str, Any]:
    """The JSON Schema of a subcommand's document; a key of DOCUMENTS."""
    schema = TypeAdapter(DOCUMENTS[command]).json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": f"einsight {command} --json"}
