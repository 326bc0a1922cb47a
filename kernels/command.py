"""What the commands `einsight measure` and `einsight calibrate` do, apart from reading arguments and printing."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from einsum.errors import EinsightError
from einsum.files import check_ending
from einsum.specfile import find_spec
from kernels.calibrate import calibrate
from kernels.calibrated import write_architecture
from kernels.measure import CudaBench, measure, provenance_path
from kernels.plan import MeasurementPlan

LIKE = "h100-sxm"
"""The architecture that a calibrated one is like, unless told otherwise."""


def run_measure(plan: str | Path, out: str | Path, *, counters: bool = False, quiet: bool = False) -> dict[str, Any]:
    """Measure a plan (library name or YAML path) into the CSV file `out`; a summary for printing or JSON.

    plan, file, provenance   what was measured and where it stands
    rows                     rows in the file by status
    counted                  rows with hardware counters

    Raises EinsightError for a bad plan, a machine without CUDA, or a file from another GPU. Progress goes to stderr.
    """
    loaded = MeasurementPlan.load(plan)
    path = check_ending(out, ".csv")
    bench = CudaBench()
    table = measure(loaded, path, bench, counters=counters, progress=None if quiet else _ProgressLine())
    return {
        "plan": loaded.name,
        "file": str(path),
        "provenance": str(provenance_path(path)),
        "rows": dict(Counter(row.status for row in table.rows.values())),
        "counted": sum(row.dram_read_bytes is not None for row in table.rows.values()),
    }


def run_calibrate(
    out: str | Path, architecture: str | Path | None = None, like: str = LIKE, *, quiet: bool = False
) -> dict[str, Any]:
    """Measure the current GPU's hardware into the YAML file `out`; the file's content.

    `architecture`: a YAML file for the architecture that the facts describe, which else is `like` another. Raises
    EinsightError on a machine without CUDA. Progress goes to stderr.
    """
    path = check_ending(out, ".yaml", ".yml")
    described = check_ending(architecture, ".yaml", ".yml") if architecture is not None else None
    if described is not None:
        find_spec("architecture", like)
        if described == path:
            raise EinsightError(
                f"facts and the architecture that they describe need a file each, found {path} for both"
            )
    document = calibrate(path, None if quiet else _say)
    if described is not None:
        write_architecture(document, described, like, path.name)
    return document


def _say(section: str) -> None:
    print(f"calibrating: {section}", file=sys.stderr)


class _ProgressLine:
    """A line on stderr every few seconds, with the time that the stage still needs."""

    INTERVAL_S = 5.0

    def __init__(self) -> None:
        self._stage, self._start, self._spoke = "", 0.0, 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """See `kernels.measure.Progress`."""
        current = time.monotonic()
        if stage != self._stage:
            self._stage, self._start, self._spoke = stage, current, 0.0
        if done not in (0, total) and current - self._spoke < self.INTERVAL_S:
            return
        self._spoke = current
        left = (current - self._start) / done * (total - done) if done else 0.0
        rest = f", {left:.0f} s left" if done and done < total else ""
        print(f"{stage}: {done} of {total} rows{rest}", file=sys.stderr)
