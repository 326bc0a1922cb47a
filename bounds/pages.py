"""The report as pages: Markdown, and one HTML file that needs nothing else (plots are inline SVG)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from html import escape

from bounds.plot import Series, log_log_plot
from bounds.report import BoundsReport, BoundsRow
from einsum.units import format_quantity

READING = (
    "The bound is words moved between slow and fast memory, reads and writes together, that no schedule of the "
    "labelled class can avoid. The gap is the best schedule known over the bound: 1 means that neither can improve; "
    "a larger gap says how much is still open, not how much is wasted. A named schedule marked * does not fit in that "
    "memory."
)
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #24313f; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #dfe5ec; padding: 4px 10px; text-align: right; white-space: nowrap; }
th { background: #f3f6f9; } td.text, th.text { text-align: left; }
pre { background: #f3f6f9; padding: 8px; overflow-x: auto; font-size: 12px; } svg { width: 100%; height: auto; }
"""


def markdown_page(report: BoundsReport) -> str:
    """The report in Markdown: what it is about, how to read it, the table, the certificates."""
    header, rows = _table(report)
    lines = [f"# I/O bounds: {report.cascade}", "", *(f"- {line}" for line in _facts(report)), "", READING, ""]
    lines += ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows]
    lines += ["", "## Certificates", ""]
    for row in report.rows:
        lines += [f"Fast memory of {row.fast_memory_words:,} words:", "", "```json", _compact(row), "```", ""]
    return "\n".join(lines)


def html_page(report: BoundsReport) -> str:
    """The report as one self-contained HTML page with plots of traffic and operational intensity."""
    header, rows = _table(report)
    text = {0, 1, 2}
    head = "".join(
        f'<th class="{"text" if k in text and k else ""}">{escape(cell)}</th>' for k, cell in enumerate(header)
    )
    body = "".join(
        "<tr>"
        + "".join(f'<td class="{"text" if "x" in cell and " " in cell else ""}">{escape(cell)}</td>' for cell in row)
        + "</tr>"
        for row in rows
    )
    certificates = "".join(
        f"<details><summary>{row.fast_memory_words:,} words: {escape(row.theorem)}</summary>"
        f"<pre>{escape(_compact(row))}</pre>"
        "</details>"
        for row in report.rows
    )
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in _facts(report))
    title = escape(f"I/O bounds: {report.cascade}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>{title}</h1><ul>{facts}</ul><p>{escape(READING)}</p>{''.join(_plots(report))}"
        f"<h2>Table</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f"<h2>Certificates</h2>{certificates}</body></html>\n"
    )


def _facts(report: BoundsReport) -> list[str]:
    sizes = ", ".join(f"{name} = {value}" for name, value in report.sizes.items())
    moved = ", ".join(f"{name} {words:,.0f}" for name, words in report.compulsory.items())
    return [
        f"sizes: {sizes or 'all from the cascade'}; mask: {report.mask or 'as the cascade says'}",
        f"words of {report.word_bytes:g} bytes; {report.operations:,.0f} multiplications",
        f"compulsory words: {moved or 'none'}",
        *(f"{name}: {format_quantity(size, 'bytes')}" for name, size in report.memories.items()),
        *(f"measured {m.name}: {format_quantity(m.traffic_bytes, 'bytes')}" for m in report.measured),
        *report.remarks,
    ]


def _table(report: BoundsReport) -> tuple[list[str], list[list[str]]]:
    names = list(report.rows[0].schedules) if report.rows else []
    header = [
        "fast memory (words)",
        "lower bound (words)",
        "label",
        "theorem",
        "best schedule (words)",
        "best schedule",
        "gap",
    ]
    rows = []
    for row in report.rows:
        best = "unknown" if row.best_schedule_words is None else f"{row.best_schedule_words:,}"
        cells = [f"{row.fast_memory_words:,}", f"{row.lower_bound_words:,}", row.label, row.theorem, best]
        cells += [row.best_schedule or "", "" if row.gap is None else f"{row.gap:.3f}"]
        cells += [f"{row.schedules[name].words:,}{'' if row.schedules[name].fits else ' *'}" for name in names]
        rows.append(cells)
    return [*header, *names], rows


def _plots(report: BoundsReport) -> list[str]:
    marks = list(report.memories.items())
    traffic = _series(report, lambda words: words * report.word_bytes)
    intensity = _series(report, lambda words: 2 * report.operations / (words * report.word_bytes))
    for measured in report.measured:
        memory = measured.fast_memory_bytes or max(row.fast_memory_words for row in report.rows) * report.word_bytes
        traffic.append(Series(measured.name, ((memory, measured.traffic_bytes),), dots=True))
        intensity.append(Series(measured.name, ((memory, 2 * report.operations / measured.traffic_bytes),), dots=True))
    plots = [log_log_plot("Traffic", "fast memory (bytes)", "traffic (bytes)", traffic, marks)]
    if report.operations:
        label = "operations per byte"
        plots.append(log_log_plot("Operational intensity", "fast memory (bytes)", label, intensity, marks))
    return plots


def _series(report: BoundsReport, value: Callable[[float], float]) -> list[Series]:
    rows = sorted(report.rows, key=lambda row: row.fast_memory_words)
    across = [row.fast_memory_words * report.word_bytes for row in rows]

    def line(name: str, words: Sequence[float | None], dashed: bool = False) -> Series:
        return Series(name, tuple((x, value(y)) for x, y in zip(across, words, strict=True) if y), dashed)

    found = [line("lower bound", [row.lower_bound_words for row in rows])]
    if any(row.best_schedule_words for row in rows):
        found.append(line("best schedule", [row.best_schedule_words for row in rows]))
    for name in rows[0].schedules if rows else ():
        own = [row.schedules[name] for row in rows]
        found.append(line(name, [traffic.words for traffic in own], dashed=not all(traffic.fits for traffic in own)))
    return found


def _compact(row: BoundsRow) -> str:
    return json.dumps(row.certificate)
