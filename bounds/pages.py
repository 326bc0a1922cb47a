"""The report as pages: Markdown, and one HTML file that needs nothing else (plots are inline SVG)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import escape
from itertools import groupby

from bounds.explain import explain
from bounds.plot import Series, log_log_plot
from bounds.report import BoundsReport, BoundsRow
from einsum.units import format_quantity

READING = (
    "The bound is traffic between slow and fast memory, reads and writes together, that no schedule of the labelled "
    "class can avoid. The gap is the best schedule known over the bound: 1 means that neither can improve; a larger "
    "gap says how much is still open, not how much is wasted. A schedule marked * does not fit in that memory; its "
    "line is dashed there."
)
STYLE = """
body { font: 15px/1.55 system-ui, sans-serif; color: #24313f; max-width: 1120px; margin: 2rem auto;
 padding: 0 1.2rem; }
h1 { margin-bottom: .2rem; } h2 { margin-top: 2.4rem; border-bottom: 2px solid #e6ebf1; padding-bottom: .3rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; }
dt { color: #5b6b7c; } dd { margin: 0; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
td.wide { white-space: normal; min-width: 15em; }
th, td { border-bottom: 1px solid #e6ebf1; padding: 5px 11px; text-align: right; white-space: nowrap; }
th { background: #f3f6f9; color: #44525f; font-weight: 600; position: sticky; top: 0; }
tbody tr:hover { background: #f8fafc; }
td.text, th.text { text-align: left; }
td.misfit { color: #9aa7b4; }
td.alarm { color: #c0392b; font-weight: 600; }
figure { margin: 1.6rem 0; } svg { width: 100%; height: auto; }
.note { color: #5b6b7c; max-width: 60em; }
details { margin: .35rem 0; } summary { cursor: pointer; }
pre { background: #f3f6f9; padding: 8px; white-space: pre-wrap;
 overflow-wrap: anywhere; font-size: 11.5px; }
"""
Cell = tuple[str, str]
"""A cell's text and its classes."""


def markdown_page(report: BoundsReport) -> str:
    """The report in Markdown: what it is about, how to read it, the tables, the certificates."""
    lines = [f"# I/O bounds: {report.cascade}", "", *(f"- {name}: {text}" for name, text in _facts(report))]
    lines += ["", READING, "", "## Table", "", *_markdown_table(*_table(report))]
    if report.measured:
        lines += ["", "## Measured traffic", "", *_markdown_table(*_measured(report))]
    lines += ["", "## Certificates", ""]
    for sizes, row in _certified(report):
        lines += [f"### {sizes}: {row.theorem}", "", *(f"- {line}" for line in explain(row.certificate)), ""]
        lines += ["```json", json.dumps(row.certificate), "```", ""]
    return "\n".join(lines)


def html_page(report: BoundsReport) -> str:
    """The report as one self-contained HTML page with plots of traffic, distance from the bound, and intensity."""
    title = escape(f"I/O bounds: {report.cascade}")
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in _facts(report))
    plots = "".join(f"<figure>{plot}</figure>" for plot in _plots(report) if plot)
    measured = f"<h2>Measured traffic</h2>{_html_table(*_measured(report))}" if report.measured else ""
    certificates = "".join(
        f"<details><summary><b>{escape(sizes)}</b>: {row.lower_bound_words:,} words, {escape(row.theorem)}</summary>"
        "<ul>"
        + "".join(f"<li>{escape(line)}</li>" for line in explain(row.certificate))
        + f"</ul><details><summary>as checked by <code>bounds.verify</code></summary><pre>"
        f"{escape(json.dumps(row.certificate))}</pre></details></details>"
        for sizes, row in _certified(report)
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f'<h1>{title}</h1><dl>{facts}</dl><p class="note">{escape(READING)}</p>{plots}'
        f"<h2>Table</h2>{_html_table(*_table(report))}{measured}"
        f'<h2>Certificates</h2><p class="note">What each bound rests on. M is the fast memory.</p>{certificates}'
        "</body></html>\n"
    )


def _facts(report: BoundsReport) -> list[tuple[str, str]]:
    sizes = ", ".join(f"{name} = {value}" for name, value in report.sizes.items())
    moved = ", ".join(f"{name} {words:,.0f}" for name, words in report.compulsory.items())
    gaps = [row.gap for row in report.rows if row.gap is not None]
    return [
        ("sizes", sizes or "all from the cascade"),
        ("mask", report.mask or "none but the cascade's own conditions"),
        ("bound holds for", ", ".join(_labels(report))),
        ("words", f"{report.word_bytes:g} bytes"),
        ("multiplications", f"{report.operations:,.0f}"),
        ("compulsory", f"{sum(report.compulsory.values()):,.0f} words ({moved})"),
        *([("gap", f"{min(gaps):.3f} to {max(gaps):.3f} over these memories")] if gaps else []),
        *(("remark", remark) for remark in report.remarks),
    ]


def _table(report: BoundsReport) -> tuple[list[Cell], list[list[Cell]]]:
    names = list(report.rows[0].schedules) if report.rows else []
    left = ("fast memory", "theorem", "best schedule", *(("label",) if len(_labels(report)) > 1 else ()))
    titles = ["fast memory", "(words)", "bound (words)", "best (words)", "gap", *names, *left[1:]]
    header = [(title, "text" if title in left else "") for title in titles]
    rows = []
    for row in report.rows:
        size = format_quantity(row.fast_memory_words * report.word_bytes, "bytes")
        best = "none known" if row.best_schedule_words is None else f"{row.best_schedule_words:,}"
        cells = [(f"{row.level}, {size}" if row.level else size, "text"), (f"{row.fast_memory_words:,}", "")]
        cells += [(f"{row.lower_bound_words:,}", ""), (best, ""), ("" if row.gap is None else f"{row.gap:.3f}", "")]
        for name in names:
            own = row.schedules[name]
            cells.append((f"{own.words:,}{'' if own.fits else ' *'}", "" if own.fits else "misfit"))
        cells += [(row.theorem, "text"), (row.best_schedule or "", "text wide"), (row.label, "text")]
        rows.append(cells[: len(header)])
    return header, rows


def _labels(report: BoundsReport) -> list[str]:
    return list(dict.fromkeys(row.label for row in report.rows))


def _measured(report: BoundsReport) -> tuple[list[Cell], list[list[Cell]]]:
    titles = ("measured", "fast memory", "traffic", "bound there", "traffic / bound", "")
    rows = []
    for one in report.measured:
        ratio = one.traffic_bytes / one.bound_bytes if one.bound_bytes else None
        rows.append(
            [
                (one.name, "text"),
                (format_quantity(one.fast_memory_bytes, "bytes") if one.fast_memory_bytes else "any", ""),
                (format_quantity(one.traffic_bytes, "bytes"), ""),
                (format_quantity(one.bound_bytes, "bytes") if one.bound_bytes else "", ""),
                ("" if ratio is None else f"{ratio:.3f}", "alarm" if one.remark else ""),
                (one.remark, "text"),
            ]
        )
    return [(title, "text" if title == "measured" else "") for title in titles], rows


def _markdown_table(header: list[Cell], rows: list[list[Cell]]) -> list[str]:
    def line(cells: list[Cell]) -> str:
        return "| " + " | ".join(text.replace("|", "/") for text, _ in cells) + " |"

    marks = (":---" if "text" in kind else "---:" for _, kind in header)
    return [line(header), "|" + "|".join(marks) + "|", *(line(row) for row in rows)]


def _html_table(header: list[Cell], rows: list[list[Cell]]) -> str:
    def cells(tag: str, row: list[Cell]) -> str:
        return "<tr>" + "".join(f'<{tag} class="{kind}">{escape(text)}</{tag}>' for text, kind in row) + "</tr>"

    body = "".join(cells("td", row) for row in rows)
    return f"<table><thead>{cells('th', header)}</thead><tbody>{body}</tbody></table>"


def _certified(report: BoundsReport) -> list[tuple[str, BoundsRow]]:
    """Rows with the sizes that share their certificate (a bound also holds in every smaller memory)."""
    found = []
    for _, group in groupby(report.rows, key=lambda row: row.certificate):
        rows = list(group)
        sizes = [format_quantity(row.fast_memory_words * report.word_bytes, "bytes") for row in rows]
        found.append((sizes[0] if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}", rows[0]))
    return found


def _plots(report: BoundsReport) -> list[str]:
    marks = list(report.memories.items())
    traffic = _series(report, lambda words, _: words * report.word_bytes)
    every = _series(report, lambda words, row: words / row.lower_bound_words if row.lower_bound_words else 0.0)
    distance = [replace(one, color=k, step=None) for k, one in enumerate(every)][1:]
    intensity = _series(report, lambda words, _: 2 * report.operations / (words * report.word_bytes), above=True)
    for place, one in enumerate(report.measured):
        memory = one.fast_memory_bytes or max(row.fast_memory_words for row in report.rows) * report.word_bytes
        name = one.name if one.fast_memory_bytes else f"{one.name}, any memory"
        color = len(every) + place
        traffic.append(Series(name, ((memory, one.traffic_bytes),), dots=True, color=color))
        intensity.append(Series(name, ((memory, 2 * report.operations / one.traffic_bytes),), dots=True, color=color))
    across = "fast memory"
    plots = [log_log_plot("Traffic", across, "bytes moved", traffic, marks, _decimal_bytes)]
    plots.append(log_log_plot("Distance from the bound", across, "traffic / lower bound", distance, marks))
    if report.operations:
        label = "operations per byte"
        plots.append(log_log_plot("Operational intensity", across, label, intensity, marks))
    return plots


def _decimal_bytes(value: float) -> str:
    unit, scale = next(
        (one for one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if value >= one[1]), ("B", 1.0)
    )
    return f"{value / scale:g} {unit}"


def _series(report: BoundsReport, value: Callable[[float, BoundsRow], float], above: bool = False) -> list[Series]:
    """Bound, best schedule and each named one over the memories; the bound is a floor, or a ceiling if `above`.

    Between two sizes the bound of the larger one holds, and the schedules of the smaller one fit.
    """
    rows = sorted(report.curve or report.rows, key=lambda row: row.fast_memory_words)

    def points(words: Sequence[float | None]) -> tuple[tuple[float, float], ...]:
        return tuple(
            (row.fast_memory_words * report.word_bytes, found)
            for row, own in zip(rows, words, strict=True)
            if own and (found := value(own, row)) > 0
        )

    least = points([row.lower_bound_words for row in rows])
    found = [Series("lower bound", least, floor=not above, ceiling=above, step="next")]
    if any(row.best_schedule_words for row in rows):
        found.append(Series("best schedule known", points([row.best_schedule_words for row in rows]), step="last"))
    for name in rows[0].schedules if rows else ():
        own = [row.schedules[name] for row in rows]
        misfits = frozenset(k for k, traffic in enumerate(own) if not traffic.fits)
        found.append(Series(name, points([traffic.words for traffic in own]), misfits, step="last"))
    return found
