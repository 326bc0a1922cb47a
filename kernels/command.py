"""What the commands `einsight measure` and `einsight calibrate` do, apart from reading arguments and printing."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from einsum.files import check_ending
from kernels.calibrate import calibrate
from kernels.measure import CudaBench, measure, provenance_path
from kernels.plan import MeasurementPlan


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


def run_calibrate(out: str | Path, *, quiet: bool = False) -> dict[str, Any]:
    """Measure the current GPU's hardware into the YAML file `out`; the file's content.

    Raises EinsightError on a machine without CUDA. Progress goes to stderr.
    """
    return calibrate(check_ending(out, ".yaml", ".yml"), None if quiet else _say)


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
