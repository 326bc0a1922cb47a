"""`einsight bounds`: how little traffic any schedule could do, and how close real ones come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from einsight.options import FILE, completion, json_option, library_names, model_options, out_option, set_option
from einsight.output import quantity, say_written
from einsight.table import Column, render_fields, render_table

if TYPE_CHECKING:
    from architectures import Architecture
    from bounds.report import BoundsReport, BoundsRow, OwnSchedule
    from einsum import Cascade
    from explorer.settings import Setting
    from mappings import Mapping


@click.command(
    epilog="Example: einsight bounds --cascade attention-1pass --set N=4096 --set d=128 --mask causal "
    "--schedules flash-attention-2,unfused"
)
@model_options("cascade", architecture="Its memories, level by level, are the sizes of the fast memory.")
@click.option(
    "--mapping",
    "mappings",
    multiple=True,
    metavar="NAME",
    help="How the algorithm runs on the hardware: a library name or a YAML file. Counted too; repeatable.",
    shell_complete=completion(library_names("mapping")),
)
@set_option
@click.option("--mask", metavar="MASK", help="causal, window:W, band:W or blocks:FILE.")
@click.option(
    "--fast-memory",
    metavar="SIZES",
    help="16KiB:64MiB:log, 16KiB:64MiB:log:50 or 1024,4096 (words). Default: the architecture's memories, or "
    "16KiB:64MiB:log.",
)
@click.option("--word-bytes", type=float, default=2.0, show_default=True, metavar="BYTES", help="Bytes of one word.")
@click.option(
    "--schedules",
    default="",
    metavar="NAMES",
    help="Schedules to count as well, joined by commas: flash-attention-1, flash-attention-2 (or with -paper), flat, "
    "tiling, unfused, mapper, or mapping files.",
)
@click.option(
    "--label",
    default="recompute-safe",
    show_default=True,
    metavar="CLASS",
    help="The algorithms that the bound holds for: recompute-safe, no-recompute, any-algorithm or schedule-class.",
)
@click.option(
    "--measured",
    type=FILE,
    metavar="FILE.csv",
    help="Traffic to compare with: columns name, traffic_bytes and fast_memory_bytes, or measured kernels.",
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
    mappings: tuple[str, ...],
    label: str,
    architecture: str | None,
    measured: str | None,
    out: str | None,
    as_json: bool,
) -> None:
    """Bound the traffic between a fast memory and the slow one behind it, for any schedule of a cascade.

    For each size of the fast memory: the proven bound with the theorem behind it, the best schedule known, the gap
    between them, and where named schedules stand. In --set, N stands for the length of queries and of keys and d for
    the width of each head.
    """
    from bounds.command import check_names, complete_sizes, run_bounds
    from einsum import Cascade

    chosen = Cascade.load(cascade)
    names = [name.strip() for name in schedules.split(",") if name.strip()]
    files = [*mappings, *(name for name in names if name.endswith((".yaml", ".yml")))]
    plans = [_mapping(file, architecture) for file in files]
    check_names(chosen, settings, architecture, {name for plan, machine in plans for name in _known(plan, machine)})
    sizes = complete_sizes(chosen, settings)
    report = run_bounds(
        chosen,
        {name: value for name, value in sizes.items() if name in {*chosen.parameters, *chosen.variables}},
        fast_memory=fast_memory,
        mask=mask,
        word_bytes=word_bytes,
        schedules=[name for name in names if name not in files],
        label=label,
        architecture=architecture,
        architecture_settings=settings,
        measured=measured,
        own=[
            _own(file, plan, machine, chosen, sizes, mask) for file, (plan, machine) in zip(files, plans, strict=True)
        ],
        out=out,
    )
    if out:
        say_written(out)
    click.echo(report.to_json() if as_json else _text(report))


DIRTY = "l2_dirty_share"
"""A GPU's variable: the share of its L2 that results may stay in when a kernel ends."""


def _mapping(file: str, architecture: str | None) -> tuple[Mapping, Architecture]:
    from architectures import Architecture
    from einsum.errors import SpecError
    from mappings import Mapping

    plan = Mapping.load(file)
    name = architecture or plan.header.architecture
    if name is None:
        raise SpecError("the mapping names no architecture, so one has to be given", file=plan.file)
    return plan, Architecture.load(name)


def _known(plan: Mapping, machine: Architecture) -> set[str]:
    from einsum import Cascade

    own = set(Cascade.load(plan.header.cascade).variables) if plan.header.cascade else set()
    return {*plan.known_names, *machine.known_names, *own}


def _own(
    file: str, plan: Mapping, architecture: Architecture, cascade: Cascade, sizes: dict[str, Any], mask: str | None
) -> OwnSchedule:
    """A mapping's traffic at its outermost memory, as it is simulated, and all memory inside it."""
    import numpy as np

    from bounds import OwnSchedule
    from bounds.command import on_chip_bytes
    from bounds.masks import conditions_of
    from bounds.named_schedules import SCHEDULES
    from bounds.reader import same_problem
    from einsum import Cascade
    from einsum.errors import SpecError
    from simulator.simulate import simulate

    if plan.plan is not None:
        raise SpecError("bounds compare mappings that are loop nests (`nest`), this one has no nest", file=plan.file)
    own = Cascade.load(plan.header.cascade) if plan.header.cascade else cascade
    known = {*own.parameters, *own.variables, *plan.known_names, *architecture.known_names}
    given = {name: value for name, value in sizes.items() if name in known}
    if not same_problem(own, cascade, given):
        raise SpecError(f"the mapping runs {own.name}, which is another problem than {cascade.name}", file=plan.file)
    where = conditions_of(own, given, mask) if mask else ()
    if DIRTY in architecture.known_names:
        given[DIRTY] = 0  # outputs end in slow memory: none may stay behind in a cache
    result = simulate(own, architecture, plan, None, given, where=where)
    machine = architecture.evaluate({name: value for name, value in given.items() if name in architecture.known_names})
    moved = next(iter(result.traffic_bytes.values()))["total"]
    name = f"mapping {file}" if file in SCHEDULES else file
    return OwnSchedule(name, float(np.sum(moved["read"] + moved["write"])), on_chip_bytes(machine))


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
    misfit = any(not each.fits for row in report.rows for each in row.schedules.values())
    parts = [render_fields(fields), _table(report), *(["* does not fit in that memory"] if misfit else [])]
    parts += [_measured(report)] if report.measured else []
    return "\n\n".join(part.rstrip("\n") for part in parts)


def _measured(report: BoundsReport) -> str:
    titles = ("fast memory", "traffic", "bound", "ratio")
    columns = [Column("measured"), *(Column(name, right=True) for name in titles), Column("")]
    rows = [
        [
            one.name,
            quantity(one.fast_memory_bytes, "bytes") if one.fast_memory_bytes else "any",
            quantity(one.traffic_bytes, "bytes"),
            quantity(one.bound_bytes, "bytes") if one.bound_bytes else "",
            f"{one.traffic_bytes / one.bound_bytes:.3f}" if one.bound_bytes else "",
            one.remark,
        ]
        for one in report.measured
    ]
    return render_table(columns, rows)


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
        f"{row.level + ', ' if row.level else ''}{quantity(row.fast_memory_words * report.word_bytes, 'bytes')}",
        f"{row.lower_bound_words:,.0f}",
        row.theorem,
        "" if row.best_schedule_words is None else f"{row.best_schedule_words:,.0f}",
        "" if row.gap is None else f"{row.gap:.3f}",
        row.best_schedule or "none known",
        *(f"{each.words:,.0f}{'' if each.fits else ' *'}" for each in counted),
    ]
