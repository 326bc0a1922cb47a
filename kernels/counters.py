"""Hardware counters of measured cases, through Nsight Compute (`ncu`) where it is installed.

`ncu` runs this module as a program. For each case it warms up outside the profiled region and flushes the L2 as the
stopwatch does; inside it runs the case's kernels once, then a flush that shows what they left unwritten in the L2.
Application replay runs the whole program once for each set of counters, so no saving and restoring of memory between
passes disturbs the caches; the clocks are left alone.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from einsum.errors import EinsightError
from kernels.case import Case
from kernels.families import family

SECTOR_BYTES = 32  # an L2 sector, the unit of its request counters (CUDA C++ Best Practices Guide, "L2 cache")
TIME = "gpu__time_duration.sum"
SUMS = {
    "dram_read_bytes": ("dram__bytes_read.sum", 1),
    "dram_write_bytes": ("dram__bytes_write.sum", 1),
    "l2_read_bytes": ("lts__t_sectors_srcunit_tex_op_read.sum", SECTOR_BYTES),
    "l2_write_bytes": ("lts__t_sectors_srcunit_tex_op_write.sum", SECTOR_BYTES),
}
SHARES = {
    "tensor_activity": "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed",
    "xu_activity": "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_elapsed",
}
FLUSH_KERNEL = "_read"
DRAM_WRITES = SUMS["dram_write_bytes"][0]
METRICS = (TIME, *(name for name, _ in SUMS.values()), *SHARES.values())
_SEED = 1
_TIMEOUT_S = 1800


def find_ncu() -> str:
    """The path of `ncu`, or EinsightError."""
    found = shutil.which("ncu")
    candidates = sorted(Path("/usr/local").glob("cuda*/bin/ncu")) + sorted(Path("/opt/nvidia").glob("*/*/ncu"))
    path = found or next((str(candidate) for candidate in candidates), None)
    if path is None:
        raise EinsightError("counters need Nsight Compute, and there is no program 'ncu' on this machine")
    return path


def count(cases: Sequence[Case]) -> dict[Case, dict[str, float]]:
    """Counters of each case, by the names of `Measurement`'s fields; cases that did not run are left out.

    Raises EinsightError where `ncu` is missing or fails, with the last thing that it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        log, listed, launched = (Path(folder) / name for name in ("ncu.csv", "cases.json", "launched.json"))
        listed.write_text(json.dumps([case.fields() for case in cases]))
        command = [
            find_ncu(), "--csv", "--page", "raw", "--print-units", "base", "--metrics", ",".join(METRICS),
            "--replay-mode", "application", "--cache-control", "none", "--clock-control", "none",
            "--profile-from-start", "off", "--log-file", str(log),
            sys.executable, "-m", "kernels.counters", str(listed), str(launched),
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise EinsightError(f"ncu did not finish {len(cases)} rows in {_TIMEOUT_S} s") from None
        text = log.read_text() if log.exists() else ""
        if done.returncode != 0 or not launched.exists():
            said = (text + done.stdout + done.stderr).strip().splitlines()
            raise EinsightError(f"ncu failed: {' / '.join(said[-3:])[-500:]}")
        ran = [case for case, did in zip(cases, json.loads(launched.read_text()), strict=True) if did]
    profiles = parse_report(text)
    if len(profiles) != len(ran):
        raise EinsightError(f"ncu profiled {len(profiles)} rows where {len(ran)} were run")
    return {case: summarise(profile) for case, profile in zip(ran, profiles, strict=True)}


def parse_report(text: str) -> list[list[dict[str, float]]]:
    """For each profiled case its kernels in order, each a mapping from metric to number, from ncu's raw CSV page.

    A case's last kernel is the flush, which is how its end shows.
    """
    lines = [line for line in text.splitlines() if line.startswith('"')]
    profiles: list[list[dict[str, float]]] = [[]]
    for row in csv.DictReader(io.StringIO("\n".join(lines))):
        if row["ID"]:  # the row behind the header holds the units
            profiles[-1].append({name: _number(row.get(name)) for name in METRICS})
            if row["Kernel Name"].startswith(FLUSH_KERNEL):
                profiles.append([])
    return profiles[:-1]


def summarise(profiled: Sequence[dict[str, float]]) -> dict[str, float]:
    """Sums over a case's kernels, all but the last of `profiled`: the last is the flush, which writes nothing itself.

    Shares of busy cycles are weighted by each kernel's time (nanoseconds).
    """
    *kernels, flush = profiled
    total_ns = sum(kernel[TIME] for kernel in kernels)
    result = {name: sum(kernel[metric] for kernel in kernels) * unit for name, (metric, unit) in SUMS.items()}
    for name, metric in SHARES.items():
        result[name] = sum(kernel[metric] * kernel[TIME] for kernel in kernels) / total_ns / 100
    result["dram_drain_bytes"] = flush[DRAM_WRITES]
    result["profiled_ms"] = total_ns / 1e6
    return result


def _number(text: str | None) -> float:
    """A number as ncu prints it; nan for a metric that the GPU lacks."""
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return float("nan")


def _run_under_profiler(listed: Path, launched: Path) -> None:
    """The program that `ncu` watches: run every case once, write down which ones ran."""
    import torch

    from kernels.timing import Stopwatch

    flush = Stopwatch().flush
    ran = []
    for fields in json.loads(listed.read_text()):
        case = Case.from_fields(fields)
        kernels = family(case.kernel)
        try:
            tensors = kernels.make_inputs(case, "cuda", _SEED)
            kernels.run(case, tensors)
            flush()
            torch.cuda.synchronize()
        except torch.OutOfMemoryError:
            ran.append(False)
            torch.cuda.empty_cache()
            continue
        torch.cuda.profiler.start()
        kernels.run(case, tensors)
        flush()
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
        ran.append(True)
    launched.write_text(json.dumps(ran))


if __name__ == "__main__":
    _run_under_profiler(Path(sys.argv[1]), Path(sys.argv[2]))
