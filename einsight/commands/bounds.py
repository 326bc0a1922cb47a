"""`einsight bounds`: how little traffic any schedule could do, and how close real ones come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from einsight.options import FILE, json_option, model_options, out_option, set_option
from einsight.output import quantity, say_written
from einsight.table import Column, render_fields, render_table

if TYPE_CHECKING:
    from bounds.report import BoundsReport, BoundsRow
    from explorer.settings import Setting


@click.command(
    epilog="Example: einsight bounds --cascade attention-1pass --set N=4096 --set d=128 --mask causal "
    "--schedules flash-attention-2,unfused"
)
@model_options("cascade", architecture="Its memories, level by level, are the sizes of the fast memory.")
@set_option
@click.option("--mask", metavar="MASK", help="causal, window:W, band:W or blocks:FILE.")
@click.option(
    "--fast-memory",
    metavar="SIZES",
    help="16KiB:64MiB:log, 16KiB:64MiB:log:50 or 1024,4096 (words). Default: the architecture's memories, or "
    "16KiB:64MiB:log.",
)
@click.option("--word-bytes", type=float, default=2.0, show_default=True, metavar="BYTES", help="Bytes of one word.")
@click.option("--schedules", default="", metavar="NAMES", help="Named schedules to count as well, joined by commas.")
@click.option(
    "--label",
    default="recompute-safe",
    show_default=True,
    metavar="CLASS",
    help="The algorithms that the bound holds for: recompute-safe, no-recompute, any-algorithm or schedule-class.",
)
@click.option(
    "--measured", type=FILE, metavar="FILE.csv", help="Columns name, traffic_bytes and fast_memory_bytes to compare with."
)
@out_option("DIR", "Write the report into this folder: Markdown, one HTML page and JSON.")
@json_option
def command(
    cascade: str,
    settings: dict[str, Setting],
    mask: str | None,
    fast_memory: str | None,
    word_bytes: float,
    schedules: str,
    label: str,
    architecture: str | None,
    measured: str | None,
    out: str | None,
    as_json: bool,
) -> None:
    """Bound the traffic between a fast memory and the slow one behind it, for any schedule of a cascade.

    For each size of the fast memory: the proven bound with the theorem behind it, the best schedule known, the gap
    between them, and where named schedules stand. In --set, N stands for the length of all sequences and d for the
    width of all heads.
    """
    from bounds.command import run_bounds

    report = run_bounds(
        cascade,
        settings,
        fast_memory=fast_memory,
        mask=mask,
        word_bytes=word_bytes,
        schedules=schedules,
        label=label,
        architecture=architecture,
        measured=measured,
        out=out,
    )
    if out:
        say_written(out)
    click.echo(report.to_json() if as_json else _text(report))


def _text(report: BoundsReport) -> str:
    sizes = ", ".join(f"{name} = {value}" for name, value in report.sizes.items())
    least = sum(report.compulsory.values())
    fields = [
        ("cascade", report.cascade),
        ("sizes", sizes),
        ("mask", report.mask or "none"),
        ("compulsory", f"{least:,.0f} words ({quantity(least * report.word_bytes, 'bytes')})"),
        *(("remark", remark) for remark in report.remarks),
    ]
    return f"{render_fields(fields)}\n\n{_table(report)}"


def _table(report: BoundsReport) -> str:
    names = list(report.rows[0].schedules) if report.rows else []
    columns = [
        Column("fast memory", right=True),
        Column("bound (words)", right=True),
        Column("theorem"),
        Column("best (words)", right=True),
        Column("gap", right=True),
        Column("best schedule"),
        *(Column(name, right=True) for name in names),
    ]
    return render_table(columns, [_row(report, row, names) for row in report.rows])


def _row(report: BoundsReport, row: BoundsRow, names: list[str]) -> list[str]:
    counted = (row.schedules[name] for name in names)
    return [
        quantity(row.fast_memory_words * report.word_bytes, "bytes"),
        f"{row.lower_bound_words:,.0f}",
        row.theorem,
        "" if row.best_schedule_words is None else f"{row.best_schedule_words:,.0f}",
        "" if row.gap is None else f"{row.gap:.3f}",
        row.best_schedule or "none known",
        *(f"{each.words:,.0f}" if each.fits else "does not fit" for each in counted),
    ]
