"""Measuring a plan: every case timed and appended to a file, then the chosen ones profiled with hardware counters.

A run that was interrupted goes on where it stopped and repeats nothing: rows that the file has are skipped. Beside the
CSV stands its provenance (`.yaml`): the GPU, the software and the time of every session that added rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import yaml

from einsum.errors import EinsightError
from einsum.specfile import load_yaml
from kernels.case import Case
from kernels.measurement import Measurement, MeasurementFile
from kernels.plan import MeasurementPlan, TimingPlan

Progress = Callable[[str, int, int], None]
"""Called with a stage (`compile`, `time`, `count`), rows done and rows in all."""

COUNTER_CHUNK = 128
_SEED = 1


class Bench(Protocol):
    """What measuring needs of a machine; `CudaBench` is the real one."""

    def provenance(self) -> dict[str, Any]:
        """Facts about the device (`gpu`) and the software (`software`)."""

    def prepare(self, cases: Sequence[Case]) -> None:
        """Compile what the cases need."""

    def time(self, case: Case, timing: TimingPlan) -> Measurement:
        """Run one case; a case that cannot run gives a measurement with its status and reason."""

    def count(self, cases: Sequence[Case]) -> Mapping[Case, Mapping[str, float]]:
        """Hardware counters of cases that ran."""


def measure(
    plan: MeasurementPlan, path: Path, bench: Bench, *, counters: bool = False, progress: Progress | None = None
) -> MeasurementFile:
    """Measure what `path` (a CSV file) does not have yet of `plan`, adding counters where `counters` asks for them.

    Raises EinsightError when the file holds another GPU's rows, or when the profiler fails.
    """
    report = progress or _silent
    table = MeasurementFile(path)
    record_session(path, plan, counters, bench.provenance())
    pending = [case for case in plan.cases if case not in table.rows]
    if pending:
        report("compile", 0, len(pending))
        bench.prepare(pending)
    for done, case in enumerate(pending, start=1):
        table.append(case, bench.time(case, plan.timing))
        report("time", done, len(pending))
    if counters:
        _add_counters(plan, table, bench, report)
    return table


def _add_counters(plan: MeasurementPlan, table: MeasurementFile, bench: Bench, report: Progress) -> None:
    """Profile the plan's counted rows that have a time but no counters, a chunk at a time."""
    pending = [case for case in plan.cases if case in plan.counted and _lacks_counters(table.rows[case])]
    for start in range(0, len(pending), COUNTER_CHUNK):
        chunk = pending[start : start + COUNTER_CHUNK]
        counted = bench.count(chunk)
        missing = {"counters_reason": "the row did not run under the profiler"}
        table.update({case: counted.get(case, missing) for case in chunk})
        report("count", min(start + COUNTER_CHUNK, len(pending)), len(pending))


def _lacks_counters(row: Measurement) -> bool:
    return row.status == "ok" and row.dram_read_bytes is None and not row.counters_reason


def provenance_path(path: Path) -> Path:
    """Where the provenance of a measurement file stands."""
    return path.with_suffix(".yaml")


def record_session(path: Path, plan: MeasurementPlan, counters: bool, facts: Mapping[str, Any]) -> None:
    """Add this run to the file's provenance; EinsightError if its rows come from another GPU."""
    from kernels.gpu import now
    from kernels.timing import WARMUP_MS

    beside = provenance_path(path)
    recorded: dict[str, Any] = load_yaml(beside) if beside.exists() else {"gpu": facts["gpu"], "sessions": []}
    held, found = recorded["gpu"].get("device"), facts["gpu"].get("device")
    if held != found:
        raise EinsightError(f"the rows were measured on {held}, and this machine has {found}", file=str(path))
    session = {"time": now(), "plan": plan.name, "counters": counters, **asdict(plan.timing), "warmup_ms": WARMUP_MS}
    recorded["sessions"].append({**session, **facts["software"]})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = beside.with_name(beside.name + ".partial")
    partial.write_text(yaml.safe_dump(recorded, sort_keys=False))
    partial.replace(beside)


def _silent(stage: str, done: int, total: int) -> None:
    """No progress wanted."""


class CudaBench:
    """Measures on the current CUDA GPU."""

    def __init__(self) -> None:
        """Raises EinsightError where there is no GPU, torch or Triton."""
        from kernels.gpu import require_cuda

        require_cuda()
        from kernels.timing import Stopwatch

        self._stopwatch = Stopwatch()

    def provenance(self) -> dict[str, Any]:
        """See `Bench`."""
        from kernels.gpu import device_facts, software_facts

        return {"gpu": device_facts(), "software": software_facts()}

    def prepare(self, cases: Sequence[Case]) -> None:
        """See `Bench`."""
        from kernels.precompile import precompile

        precompile(cases)

    def count(self, cases: Sequence[Case]) -> Mapping[Case, Mapping[str, float]]:
        """See `Bench`."""
        import torch

        from kernels.counters import count

        torch.cuda.empty_cache()  # the profiled program needs the memory
        return count(cases)

    def time(self, case: Case, timing: TimingPlan) -> Measurement:
        """See `Bench`."""
        import torch
        from triton.runtime.errors import OutOfResources

        from kernels.families import family

        kernels = family(case.kernel)
        reason = kernels.unsupported(case)
        if reason is not None:
            return Measurement(status="unsupported", reason=reason)
        try:
            return self._time(kernels, case, timing)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return Measurement(status="out_of_memory", reason="the tensors do not fit the GPU's memory")
        except OutOfResources as error:
            kind = "shared_memory" if "shared" in str(error) else "unsupported"
            return Measurement(status=kind, reason=str(error)[:200])
        except Exception as error:  # any other failure of compiler or driver is this row's result, not the run's end
            self._recover(error)
            return Measurement(status="failed", reason=f"{type(error).__name__}: {error}"[:200])

    def _time(self, kernels: Any, case: Case, timing: TimingPlan) -> Measurement:
        from kernels.launch import recording

        tensors = kernels.make_inputs(case, "cuda", _SEED)
        with recording() as launches:
            kernels.run(case, tensors)
        measured = self._stopwatch.time(lambda: kernels.run(case, tensors), timing)
        return Measurement(
            ms=measured.ms,
            ms_p10=measured.ms_p10,
            ms_p90=measured.ms_p90,
            repetitions=measured.repetitions,
            **asdict(measured.readings),
            registers=max((one.registers for one in launches), default=None),
            spills=max((one.spills for one in launches), default=None),
            shared_bytes=max((one.shared_bytes for one in launches), default=None),
        )

    @staticmethod
    def _recover(error: Exception) -> None:
        """Go on after a row that failed, unless it took the CUDA context with it."""
        import torch

        try:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
        except RuntimeError:
            raise EinsightError(f"the GPU stopped working ({error}); run again to continue with the next row") from None
