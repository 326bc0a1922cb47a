"""What `run`, `sweep` and `report` print with `--json`."""

from __future__ import annotations

from typing import Literal

from pydantic import RootModel

from einsight.documents.base import Document, Setting


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
    front_by: list[str]
    """Inputs for each of whose values there is a Pareto front; empty: one of all points."""
    front_size: int
    """Points on the Pareto front, or on all of them."""
    front_places: int
    """Of those that tie in all objectives one is counted."""
    front: list[dict[str, Setting | None]]
    """Some of them, from end to end: their inputs and columns."""


class Results(Document):
    """The results that a sweep's expressions may use (`--results`)."""

    sweep: str
    """Its name."""
    results: dict[str, float | str]
    """Result -> its value at one of the points."""


class Sweeping(RootModel[SweepRun | Forecast | Results]):
    """What was stored, with `--dry-run` what would be done, or with `--results` what there is to store."""


class Report(Document):
    """The files of a report."""

    page: str
    """The HTML page."""
    exports: list[str]
    """Files with all points."""
    mappings: list[str]
    """Files with mappings that were found."""
