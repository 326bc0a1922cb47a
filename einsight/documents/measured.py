"""What `measure`, `calibrate` and `compare` print with `--json`."""

from __future__ import annotations

from typing import Any

from pydantic import RootModel

from einsight.documents.base import Document


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
