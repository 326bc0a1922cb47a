"""`einsight passes`: how often every mapping of a cascade must traverse a rank, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from einsight.options import completion, json_option, library_names, set_option
from einsight.output import print_json
from einsight.table import Column, render_fields, render_table

if TYPE_CHECKING:
    from einsum import Cascade
    from einsum.expressions import Expression
    from einsum.passes import LiveFiber, PassReport
    from explorer.settings import Setting


@click.command(epilog="Example: einsight passes attention-3pass --rank m --set M=65536")
@click.argument("cascade", shell_complete=completion(library_names("cascade")))
@click.option("--rank", metavar="RANK", help="Explain one rank, given by its name or that of its extent.")
@set_option
@json_option
def command(cascade: str, rank: str | None, settings: dict[str, Setting], as_json: bool) -> None:
    """Count the passes that every mapping of CASCADE must make over each rank.

    Shows which Einsum falls in which pass and why, and what has to be kept from one pass to the next: with sizes given
    by --set in words, else as expressions of the sizes.
    """
    from einsum import Cascade
    from einsum.errors import refuse_unknown
    from einsum.passes import analyse_passes

    chosen = Cascade.load(cascade)
    refuse_unknown(settings, {*chosen.variables, *chosen.parameters})
    parts = {part for partition in chosen.partitions.values() for part in (partition.outer, partition.inner)}
    ranks = [rank] if rank else [name for name in chosen.ranks if name not in parts]
    reports = [analyse_passes(chosen, name) for name in ranks]
    if as_json:
        print_json({"cascade": chosen.name, "ranks": {r.rank: _document(chosen, r, settings) for r in reports}})
        return
    most = max((report.passes for report in reports), default=0)
    explained = [report for report in reports if rank or report.passes == most > 1]
    texts = [_explanation(chosen, report, settings) for report in explained]
    click.echo("\n\n".join(texts if rank else [_overview(chosen, reports), *texts]))


def _overview(cascade: Cascade, reports: list[PassReport]) -> str:
    rows = [
        [report.rank, str(cascade.ranks[report.rank].extent), str(report.passes), ", ".join(_last(report))]
        for report in reports
    ]
    titles = [Column("rank"), Column("extent"), Column("passes", right=True), Column("Einsums in the last pass")]
    return render_table(titles, rows)


def _last(report: PassReport) -> list[str]:
    return [name for name, number in report.pass_of.items() if number == report.passes]


def _explanation(cascade: Cascade, report: PassReport, settings: dict[str, Setting]) -> str:
    fields = [("cascade", cascade.name), ("rank", _rank(report)), ("passes", str(report.passes))]
    if report.per_iteration:
        fields.append(("repeated", f"in every iteration of {', '.join(report.per_iteration)}"))
    rows = [
        [name, _when(report, name), " → ".join(report.chains[name]), reason.partition(": ")[2]]
        for name, reason in report.reasons.items()
    ]
    parts = [render_fields(fields), render_table(["Einsum", "pass", "chain that forces it", "why"], rows)]
    if report.live:
        live = [_live_row(cascade, fiber, settings) for fiber in report.live]
        titles = [Column("kept"), Column("from pass"), Column("words", right=True), Column("for each")]
        parts.append(render_table(titles, live))
    else:
        parts.append("Nothing has to be kept from one pass to the next.")
    return "\n\n".join(parts)


def _rank(report: PassReport) -> str:
    parts = ", ".join(report.family)
    return report.rank if report.family == (report.rank,) else f"{report.rank} (traversed by {parts})"


def _when(report: PassReport, name: str) -> str:
    time = report.times[name]
    if not time.is_integer():
        return str(int(time + 0.5))
    return f"after {time:.0f}" if time else "before 1"


def _live_row(cascade: Cascade, fiber: LiveFiber, settings: dict[str, Setting]) -> list[str]:
    words = _words(cascade, fiber.words, settings)
    return [
        fiber.tensor,
        f"{fiber.after_pass} to {fiber.after_pass + 1}",
        words if isinstance(words, str) else f"{words:,}",
        ", ".join(fiber.per),
    ]


def _words(cascade: Cascade, expression: Expression, settings: dict[str, Setting]) -> int | str:
    """The number of words if the sizes that it depends on are known, else the expression."""
    from einsum.expressions import resolve

    needed: dict[str, Expression] = {}
    names = set(expression.names)
    while names:
        name = names.pop()
        if name in settings or name in needed:
            continue
        if name not in cascade.definitions:
            return str(expression)
        needed[name] = cascade.definitions[name]
        names |= needed[name].names
    return round(expression.number(resolve(needed, settings)))


def _document(cascade: Cascade, report: PassReport, settings: dict[str, Setting]) -> dict[str, Any]:
    return {
        "passes": report.passes,
        "traversed_by": list(report.family),
        "per_iteration": list(report.per_iteration),
        "einsums": {
            name: {
                "pass": report.pass_of.get(name),
                "runs_at": time,
                "chain": list(report.chains[name]),
                "reason": report.reasons[name],
            }
            for name, time in report.times.items()
        },
        "live": [
            {
                "tensor": fiber.tensor,
                "after_pass": fiber.after_pass,
                "words": _words(cascade, fiber.words, settings),
                "per": list(fiber.per),
            }
            for fiber in report.live
        ],
    }
