"""`einsight run`: the experiment of a YAML file, its tables, its figures and its numbers as CSV."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from einsight.options import FILE, json_option, out_option
from einsight.output import print_json, progress_line, quantity, say_written
from einsight.table import Column, render_fields, render_table

if TYPE_CHECKING:
    from explorer.experiment import Experiment, Outcome, TableSpec


@click.command(epilog="Example: einsight run docs/examples/fusemax-bert.yaml --out out/fusemax-bert")
@click.argument("experiment", type=FILE, metavar="EXPERIMENT.yaml")
@out_option("DIR", "Write the numbers as CSV and the figures into this folder.")
@json_option
def command(experiment: str, out: str | None, as_json: bool) -> None:
    """Run an experiment file: simulate all of its points, print its tables, compare with its reference values."""
    from einsum.errors import EinsightError
    from einsum.files import output_folder
    from explorer.experiment import Experiment, run_experiment

    spec = Experiment.load(experiment)
    with nullcontext() if out is None else output_folder(out) as folder:
        try:
            outcome = run_experiment(spec, progress_line("simulating"))
        except EinsightError as error:
            raise error.located(file=experiment) from None
        written = _write(spec, outcome, folder) if folder else []
    if as_json:
        print_json(_document(spec, outcome))
    else:
        click.echo(_report(spec, outcome))
    say_written(*written)


def _report(spec: Experiment, outcome: Outcome) -> str:
    about = [("experiment", spec.name), ("description", spec.description), ("source", spec.source)]
    parts = [render_fields([(name, " ".join(text.split())) for name, text in about if text])]
    for table in spec.tables:
        text = _table(spec, table, outcome)
        parts.append(f"{table.title}\n\n{text}" if table.title else text)
    if outcome.references:
        parts.append(f"Largest differences from {_reference_title(spec)}\n\n{_summary(spec, outcome)}")
    return "\n\n".join(parts)


def _reference_title(spec: Experiment) -> str:
    return spec.reference.title if spec.reference else ""


def _table(spec: Experiment, table: TableSpec, outcome: Outcome) -> str:
    points = outcome.table().where(table.where)
    columns: list[Column] = []
    cells: list[list[str]] = []
    for name in table.columns:
        values = points.column(name).tolist()
        numeric = name in spec.columns or all(isinstance(value, int | float) for value in values)
        columns.append(Column(spec.title(name), right=numeric))
        cells.append([_cell(spec, name, value) for value in values])
        if name in outcome.references:
            columns += [Column(title, right=True, joined=True) for title in (_reference_title(spec), "diff")]
            cells.append([_cell(spec, name, value) for value in points.column(f"{name}_reference").tolist()])
            cells.append([_percent(value) for value in points.column(f"{name}_difference").tolist()])
    keys = next((place for place, name in enumerate(table.columns) if name in spec.columns), 0)
    return render_table(columns, [list(row) for row in zip(*cells, strict=True)], keys=keys)


def _summary(spec: Experiment, outcome: Outcome) -> str:
    """For every compared column: how many points have a reference, and the largest and the mean difference."""
    rows = []
    for name in outcome.references:
        sizes = [abs(value) for value in outcome.difference(name).tolist() if not math.isnan(value)]
        mean = sum(sizes) / len(sizes) if sizes else math.nan
        rows.append([spec.title(name), str(len(sizes)), _size(max(sizes, default=math.nan)), _size(mean)])
    titles = ("points", "largest", "mean")
    return render_table([Column("quantity"), *(Column(title, right=True) for title in titles)], rows)


def _cell(spec: Experiment, name: str, value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if name in spec.columns and not isinstance(value, str):
        return quantity(float(value), spec.columns[name].dimension)
    return spec.label(value)


def _percent(value: float) -> str:
    text = "" if math.isnan(value) else f"{100 * value:+.2f} %"
    return text[1:] if text.strip("+-0. %") == "" else text


def _size(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.3f} %"


def _document(spec: Experiment, outcome: Outcome) -> dict[str, Any]:
    table = outcome.table()
    names = list(table.columns)
    rows = zip(*(table.columns[name].tolist() for name in names), strict=True)
    points = [dict(zip(names, (None if value != value else value for value in row), strict=True)) for row in rows]
    return {"experiment": spec.name, "description": spec.description, "source": spec.source, "points": points}


def _write(spec: Experiment, outcome: Outcome, folder: Path) -> list[Path]:
    from explorer.figures import draw_figure

    path = folder / f"{spec.name}.csv"
    outcome.table().write_csv(path)
    percent = frozenset(name for name, column in spec.columns.items() if column.dimension == "fraction")
    return [path] + [
        draw_figure(
            figure, outcome.points, folder, title=spec.title, label=spec.label, percent=percent,
            references=outcome.references, reference_title=_reference_title(spec),
        )
        for figure in spec.figures
    ]  # fmt: skip
