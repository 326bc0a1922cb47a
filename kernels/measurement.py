"""Measurement and MeasurementFile: a row of measured numbers, and the CSV file that rows are appended to.

`docs/measuring.md` says what each column means. A file is written one flushed line at a time, so that whatever
interrupts a run leaves every finished row behind; a line that was cut short is dropped when the file is opened again.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from einsum.errors import EinsightError
from kernels.case import Case

_CASE_FIELDS = tuple(field.name for field in fields(Case))


@dataclass(frozen=True)
class Measurement:
    """What was measured of one case; None where it was not.

    ms, ms_p10, ms_p90   median and quantiles of one run, all kernels of the case together, from a cold cache
    repetitions          runs that these are of
    sm_clock_mhz, mem_clock_mhz, temperature_c, power_w   read while the last repetitions ran
    status, reason       `ok`, or why there is no time: `unsupported`, `out_of_memory`, `shared_memory`, `failed`
    registers, spills    of a thread, the largest of the case's kernels; spills in bytes
    shared_bytes         shared memory of a thread block, likewise
    dram_*, l2_*         bytes by hardware counter, all kernels together; l2_* counts what the SMs ask of the L2,
                         dram_drain_bytes what the kernels left in the L2 and a flush wrote back after them
    tensor_activity, xu_activity   share of cycles in which the tensor cores and special-function units worked
    profiled_ms          time under the profiler, kernels only, without the gaps between them
    counters_reason      why there are no counters, if they were asked for
    """

    ms: float | None = None
    ms_p10: float | None = None
    ms_p90: float | None = None
    repetitions: int | None = None
    sm_clock_mhz: float | None = None
    mem_clock_mhz: float | None = None
    temperature_c: float | None = None
    status: str = "ok"
    reason: str = ""
    dram_read_bytes: float | None = None
    dram_write_bytes: float | None = None
    dram_drain_bytes: float | None = None
    l2_read_bytes: float | None = None
    l2_write_bytes: float | None = None
    tensor_activity: float | None = None
    xu_activity: float | None = None
    profiled_ms: float | None = None
    counters_reason: str = ""
    power_w: float | None = None
    registers: int | None = None
    spills: int | None = None
    shared_bytes: int | None = None


_EMPTY_IF_ZERO = ("block_m", "block_n", "warps", "stages", "block_k", "splits")
_LATE_CASE_FIELDS = ("block_k", "splits", "pattern")
_MEASURED = tuple(field.name for field in fields(Measurement))
_TEXT = ("status", "reason", "counters_reason")
_WHOLE = ("repetitions", "registers", "spills", "shared_bytes")
COLUMNS = (*(name for name in _CASE_FIELDS if name not in _LATE_CASE_FIELDS), *_MEASURED, *_LATE_CASE_FIELDS)


class MeasurementFile:
    """Measurements by case, in a CSV file that grows as rows come."""

    def __init__(self, path: Path) -> None:
        """Open `path`, reading the rows that it has. EinsightError if it is not a file of measurements."""
        self.path = path
        self.rows: dict[Case, Measurement] = {}
        if path.exists():
            self._read()

    def append(self, case: Case, measurement: Measurement) -> None:
        """Add one row and flush it to the disk."""
        new = not self.path.exists() or self.path.stat().st_size == 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as stream:
            if new:
                stream.write(_line(COLUMNS))
            stream.write(_line(_cells(case, measurement)))
            stream.flush()
            os.fsync(stream.fileno())
        self.rows[case] = measurement

    def update(self, changes: Mapping[Case, Mapping[str, Any]]) -> None:
        """Set fields of rows that exist, replacing the file in one step."""
        for case, change in changes.items():
            self.rows[case] = replace(self.rows[case], **change)
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("w", newline="") as stream:
            stream.write(_line(COLUMNS))
            stream.writelines(_line(_cells(case, row)) for case, row in self.rows.items())
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(self.path)

    def _read(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # the run was cut off in the middle of a line
            self.path.write_text(whole, encoding="utf-8")
        reader = csv.DictReader(io.StringIO(whole))
        if whole and tuple(reader.fieldnames or ()) != COLUMNS:
            raise EinsightError("the columns are not those of a measurement file", file=str(self.path))
        for number, row in enumerate(reader, start=2):
            try:
                case = Case.from_fields({name: row[name] for name in _CASE_FIELDS})
                self.rows[case] = Measurement(**{name: _value(name, row[name]) for name in _MEASURED})
            except ValueError as error:
                raise EinsightError(f"line {number}: {error}", file=str(self.path)) from None


def _line(cells: tuple[object, ...]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()


def _cells(case: Case, measurement: Measurement) -> tuple[str, ...]:
    values: dict[str, object] = {**case.fields(), **{name: getattr(measurement, name) for name in _MEASURED}}
    values.update({name: values[name] or None for name in _EMPTY_IF_ZERO})
    return tuple(_text(values[name]) for name in COLUMNS)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value == int(value) else f"{value:.6g}"
    return " ".join(str(value).split())


def _value(name: str, text: str) -> Any:
    """A cell's text as the column's type."""
    if name in _TEXT:
        return text
    if text == "":
        return None
    return int(text) if name in _WHOLE else float(text)
