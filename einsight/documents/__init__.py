"""The documents that `--json` prints, one model for each subcommand: their reference, their schema and their test.

Only `einsight schema` and the reference pages import these models; the subcommands write plain data, and tests hold
that data to them.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from einsight.documents.costs import Bounds, Search, Simulation
from einsight.documents.descriptions import Checkup, Description, LibraryEntry, Passes, TileVisits
from einsight.documents.measured import Calibration, Comparing, Measurement
from einsight.documents.studies import ExperimentRun, Report, Sweeping

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
