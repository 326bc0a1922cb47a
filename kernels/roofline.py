"""Pictures and files of a comparison: simulated against measured times, a roofline, a table, a page."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from architectures import EvaluatedArchitecture
from architectures.gpu import Gpu
from einsum.errors import SpecError
from kernels.compare import Compared, percent, row_document

COLOURS = ("#33506e", "#b0413e", "#5b8c5a", "#c98b2b", "#7a5c99", "#3a8fa3", "#8c6d46", "#c2708f", "#777777")


def write_report(
    folder: str | Path, compared: Sequence[Compared], summary: Mapping[str, Any], machine: EvaluatedArchitecture
) -> tuple[Path, ...]:
    """Write comparison.csv, comparison.md, scatter.png and roofline.png into `folder`; the paths of all."""
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"no folder can be made here: {error.strerror or error}", file=str(folder)) from None
    paths = (place / "comparison.csv", place / "comparison.md", place / "scatter.png", place / "roofline.png")
    _write_csv(paths[0], compared)
    with whole_file(paths[1]) as partial:
        partial.write_text(markdown(summary, machine.name), encoding="utf-8")
    _draw_scatter(paths[2], compared, machine.name)
    _draw_roofline(paths[3], compared, machine)
    return paths


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` at the end, or goes away when an exception passes."""
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def markdown(summary: Mapping[str, Any], architecture: str) -> str:
    """The summary as a page of Markdown."""
    tiles = summary["tiles"]
    lines = [
        f"# Measured and simulated on {architecture}", "",
        f"{summary['compared']} of {summary['rows']} rows compared. Errors are predicted over measured, less 1.", "",
        "| kernel | rows | mean error | mean absolute | median absolute | roofline, mean absolute |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, errors in (*summary["kernels"].items(), ("all", summary["all"])):
        cells = ("mean_error", "mean_absolute_error", "median_absolute_error", "roofline_mean_absolute_error")
        shown = (percent(errors.get(cell), signed=cell == "mean_error") for cell in cells)
        lines.append(f"| {name} | {errors['rows']} | {' | '.join(shown)} |")
    lines += ["", "![simulated against measured](scatter.png)", "", "![roofline](roofline.png)", ""]
    if tiles["shapes"]:
        tau = "-" if tiles["kendall_tau"] is None else f"{tiles['kendall_tau']:.2f}"
        lines.append(
            f"Over the tiles of {tiles['shapes']} shapes: Kendall's tau {tau}; the tile that the simulator "
            f"picks is {percent(tiles['regret'])} slower than the best one."
        )
    for side, title in (("dram_read", "read"), ("dram_write", "written"), ("dram_total", "in all")):
        found = summary[side]
        if found["rows"]:
            mean = percent(found["mean_error"], signed=True)
            lines.append(
                f"DRAM bytes {title}, {found['rows']} rows with counters: mean error {mean}, "
                f"mean absolute {percent(found['mean_absolute_error'])}."
            )
    return "\n".join(lines) + "\n"


def _write_csv(path: Path, compared: Sequence[Compared]) -> None:
    documents = [row_document(item) for item in compared]
    with whole_file(path) as partial, partial.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(documents[0]))
        writer.writeheader()
        writer.writerows({name: "" if cell is None else cell for name, cell in row.items()} for row in documents)


def _by_kernel(compared: Sequence[Compared]) -> dict[str, list[Compared]]:
    groups: dict[str, list[Compared]] = {}
    for item in compared:
        if item.error is not None and not item.row.reason:
            groups.setdefault(item.row.case.kernel, []).append(item)
    return groups


def _canvas(title: str) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(6.4, 5.2))
    FigureCanvasAgg(picture)
    picture.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    axes = picture.subplots(gridspec_kw={"left": 0.13, "right": 0.98, "bottom": 0.1, "top": 0.92})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    return picture, axes


def _draw_scatter(path: Path, compared: Sequence[Compared], architecture: str) -> None:
    picture, axes = _canvas(f"Simulated against measured time, {architecture}")
    measured_ms: list[float] = []
    for colour, (name, items) in zip(COLOURS, _by_kernel(compared).items(), strict=False):
        across = [float(item.row.measured["ms"] or 0) for item in items]
        up = [item.prediction.time_s * 1e3 for item in items if item.prediction]
        measured_ms += across
        axes.scatter(across, up, s=9, color=colour, label=name, linewidths=0)
    if measured_ms:
        ends = [min(measured_ms) / 1.3, max(measured_ms) * 1.3]
        axes.plot(ends, ends, color="#111111", linewidth=0.8)
    axes.set_xlabel("measured [ms]")
    axes.set_ylabel("simulated [ms]")
    axes.legend(fontsize=8)
    with whole_file(path) as partial:
        picture.savefig(partial, dpi=150)


def _draw_roofline(path: Path, compared: Sequence[Compared], machine: EvaluatedArchitecture) -> None:
    """Reached operations per second over operations per byte of least traffic, measured and simulated."""
    import numpy as np

    picture, axes = _canvas(f"Roofline, {machine.name}")
    gpu = Gpu.of(machine)
    peak = gpu.multiprocessors * gpu.tensor_flops_per_cycle * gpu.clock_hz
    intensity = np.geomspace(1, 1e5, 200)
    axes.plot(intensity, np.minimum(peak, intensity * gpu.dram_read_bandwidth), color="#111111", linewidth=1)
    for colour, (name, items) in zip(COLOURS, _by_kernel(compared).items(), strict=False):
        points = [(found, item) for item in items if (found := item.prediction) and found.flops > 0]
        if not points:
            continue
        across = [found.flops / found.least_bytes for found, _ in points]
        measured = [found.flops / float(item.row.measured["ms"] or 1) * 1e3 for found, item in points]
        simulated = [found.flops / found.time_s for found, _ in points]
        axes.scatter(across, measured, s=10, color=colour, label=name, linewidths=0)
        axes.scatter(across, simulated, s=22, facecolors="none", edgecolors=colour, linewidths=0.5)
    axes.set_xlabel("operations per byte of least DRAM traffic")
    axes.set_ylabel("operations per second (dots measured, rings simulated)")
    axes.legend(fontsize=8)
    with whole_file(path) as partial:
        picture.savefig(partial, dpi=150)
