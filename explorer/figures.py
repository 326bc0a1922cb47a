"""Figures of an experiment: one plot style for everything that Einsight draws with matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from einsum.errors import SpecError
from einsum.files import whole_file
from explorer.part import Part
from explorer.points import Cells, Points
from explorer.settings import Setting

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#8c8c8c", "#4c72b0", "#55a3a1", "#dd8452", "#b0413e", "#8172b3", "#937860", "#2f2f2f")
"""Colours of the series, told apart in print and by most colour-blind readers as well."""
STYLE: Mapping[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.dpi": 150,
    "font.size": 10,
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 6.0,
}


class Figure(Part):
    """A picture: one panel for each quantity in `y`, a line or a group of bars for each value of `series`."""

    file: str = Field(pattern=r"^[\w.-]+\.(png|svg|pdf)$")
    """Name of the picture in the output folder; its ending says the format."""
    title: str = ""
    """What stands above it."""
    kind: Literal["lines", "bars"] = "lines"
    """How the values are drawn."""
    x: str
    """Input along the horizontal axis."""
    series: str
    """Input whose values are told apart by colour."""
    y: tuple[str, ...] = Field(min_length=1)
    """Columns, each a panel."""
    where: dict[str, Setting] = Field(default_factory=dict)
    """Only the points whose inputs have these values."""
    log: tuple[str, ...] = ()
    """The axes on a logarithmic scale: x, or columns of y."""
    reference: bool = False
    """Whether reference values are marked as rings."""


def draw_figure(
    figure: Figure, points: Points, folder: Path, *, title: Callable[[str], str], label: Callable[[Any], str],
    percent: frozenset[str] = frozenset(), references: Mapping[str, Cells] | None = None, reference_title: str = "",
) -> Path:  # fmt: skip
    """Draw one figure of `points` into `folder` and return its path.

    title, label    names of columns and of inputs' values
    percent         columns that are fractions, shown in percent from 0 to 100
    references      reference values of columns at every point, NaN where there is none
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas
    from matplotlib.style import context

    points = points.with_columns({f"{name} reference": cells for name, cells in (references or {}).items()})
    points = points.where(figure.where)
    with context(dict(STYLE)):
        picture = Canvas(figsize=(4.8 * len(figure.y) + 0.4, 3.9), layout="constrained")
        FigureCanvasAgg(picture)
        panels = picture.subplots(1, len(figure.y), squeeze=False)[0]
        for panel, y in zip(panels, figure.y, strict=True):
            _draw_panel(panel, figure, y, points, 100.0 if y in percent else 1.0, label)
            panel.set_title(title(y) + (" [%]" if y in percent else ""))
            panel.set_xlabel(title(figure.x))
        handles, names = panels[0].get_legend_handles_labels()
        if figure.reference and references:
            handles.append(panels[0].plot([], [], **_RING)[0])
            names.append(reference_title)
        picture.legend(handles, names, loc="outside lower center", ncols=len(names))
        picture.suptitle(figure.title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        with whole_file(folder / figure.file) as partial:
            picture.savefig(partial)
    return folder / figure.file


_RING: Mapping[str, Any] = {
    "linestyle": "none", "marker": "o", "markerfacecolor": "none", "markeredgecolor": "#111111", "markersize": 5,
}  # fmt: skip


def _draw_panel(panel: Axes, figure: Figure, y: str, points: Points, scale: float, label: Callable[[Any], str]) -> None:
    places = list(dict.fromkeys(points.column(figure.x).tolist()))
    if not all(isinstance(place, str) for place in places):
        places.sort()
    elif figure.kind != "bars":
        raise SpecError(f"'{figure.x}' is text; a figure of kind bars can show it", key=f"figures.{figure.file}.x")
    series = list(dict.fromkeys(points.column(figure.series).tolist()))
    bars = figure.kind == "bars"
    width = 0.8 / len(series)
    for number, name in enumerate(series):
        chosen = points.where({figure.series: name})
        place = np.array([places.index(value) for value in chosen.column(figure.x).tolist()], dtype=float)
        order = np.argsort(place, kind="stable")
        shift = (number - (len(series) - 1) / 2) * width
        at = place[order] + shift if bars else chosen.column(figure.x)[order].astype(float)
        values = chosen.column(y)[order].astype(float) * scale
        color = COLORS[number % len(COLORS)]
        if bars:
            panel.bar(at, values, width, label=label(name), color=color)
        else:
            panel.plot(at, values, marker="o", label=label(name), color=color)
        if figure.reference and f"{y} reference" in points.columns:
            panel.plot(at, chosen.column(f"{y} reference")[order] * scale, **_RING)
    if "x" in figure.log and not bars:
        panel.set_xscale("log", base=2)
    if y in figure.log:
        panel.set_yscale("log")
    else:
        panel.set_ylim(0, panel.get_ylim()[1] * 1.02)
    if bars:
        panel.grid(visible=False, axis="x")
    panel.set_xticks(range(len(places)) if bars else places, [_short(place) for place in places])
    panel.minorticks_off()


def _short(value: Any) -> str:
    """A size in short: 65536 is 64K."""
    for factor, suffix in ((1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")):
        if isinstance(value, int) and value >= factor and value % factor == 0:
            return f"{value // factor}{suffix}"
    return str(value)
