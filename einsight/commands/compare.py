"""`einsight compare`: predict measured GPU kernels and show how far off the predictions are."""

from __future__ import annotations

from typing import Any, Literal

import click

from einsight.options import FILE, completion, json_option, model_options, out_option, set_option
from einsight.output import print_json, progress_line, say_written
from einsight.table import Column, render_fields, render_table


def _measurements() -> tuple[str, ...]:
    from kernels.compare import list_measurements

    return list_measurements()


@click.command(epilog="Example: einsight compare h100-sxm --architecture h100-sxm --out comparison")
@click.argument("measured", type=FILE, metavar="MEASURED.csv", shell_complete=completion(_measurements))
@model_options(architecture="Required with a CSV file.")
@set_option
@click.option(
    "--fidelity",
    type=click.Choice(["analytic", "event"]),
    default="analytic",
    show_default=True,
    help="The evaluator: a queueing network, or a simulation of every tile (about a second for each row).",
)
@click.option(
    "--form",
    type=click.Choice(["kernel", "nest"]),
    default="kernel",
    show_default=True,
    help="What a kernel is predicted from: the description of its compiled code, or the nest that derives it from its "
    "cascade.",
)
@out_option("DIR", "Write a table, a page and charts into this folder.")
@json_option
def command(
    measured: str,
    architecture: str | None,
    settings: dict[str, Any],
    fidelity: Literal["analytic", "event"],
    form: Literal["kernel", "nest"],
    out: str | None,
    as_json: bool,
) -> None:
    """Predict every row of MEASURED.csv and compare it with the measured time and memory traffic.

    MEASURED.csv may also be the name of measurements that come with Einsight: h100-sxm, h200-sxm, ... Errors are
    predicted over measured, less 1. Where a row names no tile, the simulator chooses one. A YAML file in
    place of the CSV lists comparisons: `comparisons: {NAME: {measured: FILE, architecture: NAME}}`.
    """
    from kernels.compare import read_comparisons

    documents = {}
    runs = read_comparisons(measured, architecture)
    for name, (file, machine) in runs.items():
        folder = None if out is None else f"{out}/{name}" if name else out
        if len(runs) > 1 and not as_json:
            click.echo(f"{name}\n")
        documents[name] = _compare(file, machine, folder, settings, (fidelity, form), as_json)
        if len(runs) > 1 and not as_json:
            click.echo()
    if as_json:
        print_json(documents if any(documents) else documents[""])


def _compare(
    file: str,
    architecture: str,
    out: str | None,
    settings: dict[str, Any],
    how: tuple[Literal["analytic", "event"], Literal["kernel", "nest"]],
    quiet: bool,
) -> dict[str, Any]:
    from architectures import Architecture
    from einsum.errors import refuse_unknown
    from kernels.compare import compare, read_rows, row_document, summarise

    rows = read_rows(file)
    described = Architecture.load(architecture)
    refuse_unknown(settings, described.known_names)
    machine = described.evaluate(settings)
    compared = compare(rows, machine, progress_line("rows"), *how)
    summary = summarise(compared)
    files: tuple[Any, ...] = ()
    if out is not None:
        from kernels.roofline import write_report

        files = write_report(out, compared, summary, machine)
    if not quiet:
        click.echo(_table(summary))
        click.echo()
        click.echo(render_fields(_facts(summary)))
        for item in compared:
            if item.reason:
                click.echo(f"line {item.row.number} is not compared: {item.reason}", err=True)
    say_written(*files)
    return {
        "architecture": machine.name,
        "rows": [row_document(item) for item in compared],
        "summary": summary,
        "files": [str(path) for path in files],
    }


def _table(summary: dict[str, Any]) -> str:
    from kernels.compare import percent

    columns: list[Column | str] = [
        "kernel", Column("rows", True), Column("mean error", True), Column("mean absolute", True),
        Column("median absolute", True), Column("roofline alone", True),
    ]  # fmt: skip
    keys = ("mean_error", "mean_absolute_error", "median_absolute_error", "roofline_mean_absolute_error")
    return render_table(
        columns,
        [
            [name, str(errors["rows"]), *(percent(errors.get(key), signed=key == "mean_error") for key in keys)]
            for name, errors in (*summary["kernels"].items(), ("all", summary["all"]))
        ],
    )


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    from kernels.compare import percent

    tiles = summary["tiles"]
    facts = []
    if tiles["shapes"]:
        tau = "-" if tiles["kendall_tau"] is None else f"{tiles['kendall_tau']:.3f}"
        facts.append(("tiles", f"Kendall tau {tau}, regret {percent(tiles['regret'])} over {tiles['shapes']} shapes"))
    for key, title in (("dram_read", "DRAM read"), ("dram_write", "DRAM written"), ("dram_total", "DRAM in all")):
        found = summary[key]
        if found["rows"]:
            facts.append(
                (
                    title,
                    f"mean {percent(found['mean_error'], signed=True)}, "
                    f"mean absolute {percent(found['mean_absolute_error'])} ({found['rows']} rows)",
                )
            )
    return facts
