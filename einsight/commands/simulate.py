"""`einsight simulate`: what one cascade costs on one architecture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

import click

from einsight.options import FILE, json_option, model_options, set_option, where_option
from einsight.output import print_json, progress_line, quantity, say_written
from einsight.table import Column, render_fields, render_table

if TYPE_CHECKING:
    from explorer.settings import Setting
    from simulator.result import Result


MOST_PHASES = 12
"""Phases that the table shows one by one; the longest, when there are more."""
UNKNOWN = "not given by the architecture"


@click.command(epilog="Example: einsight simulate --mapping fusemax-binding --workload bert-base --set L=65536")
@model_options(cascade="Default: the mapping's.", architecture="Default: the mapping's.", mapping=None, workload=None)
@set_option
@where_option
@click.option("--end-to-end", is_flag=True, help="Include the linear layers around attention.")
@click.option(
    "--fidelity",
    type=click.Choice(["analytic", "event"]),
    default="analytic",
    show_default=True,
    help="The evaluator: closed form, or a simulation of every tile.",
)
@click.option(
    "--trace-file", type=FILE, metavar="FILE.csv", help="Read the counts of a run, head by head, and simulate that run."
)
@click.option(
    "--trace",
    type=FILE,
    metavar="FILE.json",
    help="Write a timeline for Perfetto (Chrome trace format; fidelity event).",
)
@json_option
def command(
    cascade: str | None,
    architecture: str | None,
    mapping: str | None,
    workload: str | None,
    settings: dict[str, Setting],
    where: tuple[str, ...],
    end_to_end: bool,
    fidelity: Literal["analytic", "event"],
    trace_file: str | None,
    trace: str | None,
    as_json: bool,
) -> None:
    """Simulate a cascade on an architecture: time, traffic, utilization, energy, and what bounds it."""
    from einsum.files import whole_file
    from simulator.simulate import simulate
    from simulator.trace_run import simulate_trace

    if trace_file is not None and (where or end_to_end):
        raise click.UsageError("--trace-file goes neither with --where nor with --end-to-end")
    if trace_file is None and mapping is None:
        mapping = _own_mapping(architecture)
    with nullcontext() if trace is None else whole_file(trace) as partial:
        if trace_file is not None:
            result = simulate_trace(
                trace_file,
                mapping=mapping,
                architecture=architecture,
                workload=workload,
                cascade=cascade,
                settings=settings,
                fidelity=fidelity,
                timeline=partial,
                progress=progress_line("simulating"),
            )
        else:
            result = simulate(
                cascade=cascade,
                architecture=architecture,
                mapping=mapping or "",
                workload=workload,
                settings=settings,
                where=where,
                end_to_end=end_to_end,
                fidelity=fidelity,
                trace=partial,
            )
    if trace:
        say_written(trace)
    if as_json:
        print_json(result.to_dict())
    else:
        click.echo(_report(result))


def _own_mapping(architecture: str | None) -> str:
    """The mapping that the architecture names for itself."""
    from architectures import Architecture

    named = None if architecture is None else Architecture.load(architecture).mapping
    if named is None:
        raise click.UsageError("Missing option '--mapping'; `einsight list mappings` shows the library")
    return named


def _report(result: Result) -> str:
    document = result.to_dict()
    tables = (_held(document), _phases(document), _traffic(document), _utilization(document), _energy(document))
    parts = [_summary(document), *(table for table in tables if table)]
    if result.assumptions:
        parts.append("assumptions\n" + render_fields([("-", text) for text in result.assumptions]))
    return "\n\n".join(parts)


def _summary(document: dict[str, Any]) -> str:
    area, energy = document["area_mm2"], document["energy_j"]
    return render_fields(
        [
            ("latency", f"{quantity(document['latency_s'], 's')} ({document['cycles']:,.0f} cycles)"),
            ("bound by", str(document["bound_by"])),
            ("energy", quantity(energy, "j") if energy else UNKNOWN),
            ("area", UNKNOWN if area is None else f"{area:.4g} mm2"),
        ]
    )


def _phases(document: dict[str, Any]) -> str:
    phases = document["phases"]
    if len(phases) < 2:
        return ""
    shown = sorted(phases, key=lambda phase: -phase["latency_s"])[:MOST_PHASES] if len(phases) > MOST_PHASES else phases
    rows = [[phase["name"], quantity(phase["latency_s"], "s"), str(phase["bound_by"])] for phase in shown]
    if len(shown) < len(phases):
        rest = sum(phase["latency_s"] for phase in phases) - sum(phase["latency_s"] for phase in shown)
        rows.append([f"{len(phases) - len(shown)} shorter ones", quantity(rest, "s"), ""])
    return render_table(["phase", Column("latency", right=True), "bound by"], rows)


def _held(document: dict[str, Any]) -> str:
    """What each part has to hold, where the mapping says so, and whether it fits."""
    rows = [
        [part, quantity(held["needed"], "bytes"), quantity(held["capacity"], "bytes"),
         "yes" if held["needed"] <= held["capacity"] else "no"]
        for part, held in document["memory_bytes"].items()
    ]  # fmt: skip
    columns = [Column("memory"), Column("to hold", right=True), Column("capacity", right=True), Column("fits")]
    return render_table(columns, rows) if rows else ""


def _traffic(document: dict[str, Any]) -> str:
    rows = [
        [level * (tensor == "total"), tensor, quantity(moved["read"], "bytes"), quantity(moved["write"], "bytes")]
        for level, tensors in document["traffic_bytes"].items()
        for tensor, moved in sorted(tensors.items(), key=lambda item: item[0] != "total")
    ]
    columns = [Column("memory"), Column("tensor"), Column("read", right=True), Column("write", right=True)]
    return render_table(columns, rows) if rows else ""


def _utilization(document: dict[str, Any]) -> str:
    rows = list(_utilization_rows(document))
    return render_table(["unit", "Einsum", Column("utilization", right=True)], rows) if rows else ""


def _utilization_rows(document: dict[str, Any]) -> Iterator[list[str]]:
    for unit, value in document["utilization"].items():
        yield [unit, "total", quantity(value, "fraction")]
        for name, part in document["utilization_by_einsum"].get(unit, {}).items():
            yield ["", name, quantity(part, "fraction")]


def _energy(document: dict[str, Any]) -> str:
    total = document["energy_j"]
    if not total:
        return ""
    rows = [
        [name, quantity(energy, "j"), quantity(energy / total, "fraction")]
        for name, energy in document["energy_by_component_j"].items()
    ]
    columns = [Column("component"), Column("energy", right=True), Column("share", right=True)]
    return render_table(columns, rows) if rows else ""
