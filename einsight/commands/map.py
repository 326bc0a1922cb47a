"""`einsight map`: find the best mapping of a cascade on an architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from einsight.library import reference
from einsight.options import json_option, model_options, out_option, set_option, where_option
from einsight.output import print_json, quantity, say_written
from einsight.table import Column, render_fields, render_table

if TYPE_CHECKING:
    from architectures import Architecture
    from einsum.cascade import Cascade
    from explorer.settings import Setting
    from mappings.search import Found
    from workloads import Workload


@click.command(
    epilog="Example: einsight map --cascade attention-3pass --architecture flat-cloud --workload bert-base "
    "--objective latency --out mapping.yaml"
)
@model_options("cascade", "architecture", workload=None)
@set_option
@click.option(
    "--objective",
    type=click.Choice(["edp", "latency", "energy", "dram", "pareto"]),
    default="edp",
    show_default=True,
    help="What to make small; pareto: all that no other mapping found beats in latency and energy.",
)
@where_option
@click.option(
    "--issue",
    type=click.Choice(["chained", "serial"]),
    default="chained",
    show_default=True,
    help="A point's operations run as a pipeline on their unit, or one after another.",
)
@click.option(
    "--fill-drain",
    type=click.Choice(["charged", "hidden"]),
    default="charged",
    show_default=True,
    help="hidden: the first tile's fill and the last one's drain overlap with work outside.",
)
@out_option("FILE.yaml", "Write the mapping as YAML.")
@json_option
def command(
    cascade: str,
    architecture: str,
    workload: str | None,
    settings: dict[str, Setting],
    objective: Literal["edp", "latency", "energy", "dram", "pareto"],
    where: tuple[str, ...],
    issue: Literal["chained", "serial"],
    fill_drain: str,
    out: str | None,
    as_json: bool,
) -> None:
    """Find a mapping: which Einsums run together, loop orders, tile sizes, what is held where, what runs on what.

    With one memory below the outermost one, the least traffic (objective dram) is exact: no mapping of the space that
    `docs/mapper.md` describes moves less. Otherwise the result is the best one found, with its distance from the
    traffic that no algorithm avoids and from the proven lower bound.
    """
    from architectures import Architecture
    from einsum.cascade import Cascade
    from simulator.mapper import find_mapping
    from workloads import Workload

    chosen = Cascade.load(cascade)
    chosen = chosen.with_condition(*where) if where else chosen
    machine = Architecture.load(architecture)
    sizes = None if workload is None else Workload.load(workload)
    found = find_mapping(chosen, machine, sizes, objective, settings, issue=issue, hidden_fill=fill_drain == "hidden")
    bound = _lower_bound_bytes(chosen, machine, sizes, settings)
    given = {"cascade": cascade, "architecture": architecture}
    found = _naming(found, {kind: reference(name, out) for kind, name in given.items()})
    if out is not None:
        found.mapping.save(out)
        say_written(out)
    document = _document(found, bound)
    if as_json:
        print_json(document)
    else:
        click.echo(_report(found, document, shown=out is None))


def _naming(found: Found, names: dict[str, str]) -> Found:
    """The same with mappings that name cascade and architecture so that they are found again."""
    from dataclasses import replace

    from mappings import Mapping

    front = tuple(_naming(one, names) for one in found.front)
    return replace(found, mapping=Mapping.parse({**found.mapping.data, **names}), front=front)


def _lower_bound_bytes(
    cascade: Cascade, architecture: Architecture, workload: Workload | None, settings: dict[str, Setting]
) -> tuple[float, str] | None:
    """The proven bound on the outermost memory's traffic for all memories on chip together, and its theorem."""
    import numpy as np

    from bounds import lower_bound, read_problem
    from bounds.command import on_chip_bytes
    from einsum.errors import SpecError
    from mappings.search import environment

    machine = architecture.evaluate(settings)
    word = float(machine.word_bytes)
    env = environment(cascade, machine, workload, settings)
    try:
        problem = read_problem(cascade, env, word_bytes=word)
        bound = lower_bound(problem, np.array([on_chip_bytes(machine) / word]))
    except SpecError:
        return None  # a cascade that the bounds do not cover
    return float(bound.words[0]) * word, bound.theorems[0]


def _document(found: Found, bound: tuple[float, str] | None) -> dict[str, Any]:
    document: dict[str, Any] = {
        "objective": found.objective,
        "exact": found.exact,
        "dram_bytes": found.dram_bytes,
        "compulsory_bytes": found.compulsory_bytes,
        "gap_to_compulsory": found.gap,
        "lower_bound_bytes": None if bound is None else bound[0],
        "lower_bound_theorem": None if bound is None else bound[1],
        "gap_to_lower_bound": None if bound is None or not bound[0] else found.dram_bytes / bound[0],
        "candidates": found.tried,
        **_costs(found),
        "mapping": dict(found.mapping.data),
    }
    if found.front:
        document["front"] = [{**_costs(one), "mapping": dict(one.mapping.data)} for one in found.front]
    return document


def _costs(found: Found) -> dict[str, float]:
    assert found.cost is not None
    return {
        "latency_s": found.cost.latency_s,
        "energy_j": found.cost.energy_j,
        "edp_js": found.cost.latency_s * found.cost.energy_j,
        "dram_traffic_bytes": found.cost.dram_bytes,
    }


def _report(found: Found, document: dict[str, Any], shown: bool) -> str:
    claim = (
        "least traffic of all mappings of the space: proved by exhaustive search after exact pruning"
        if found.exact
        else f"best of {found.tried} candidates"
    )
    rows = [
        ("found", claim),
        ("mapping", found.mapping.header.description),
        ("latency", quantity(document["latency_s"], "s")),
        ("energy", quantity(document["energy_j"], "j")),
        ("outer traffic", quantity(found.dram_bytes, "bytes")),
        ("compulsory", f"{quantity(found.compulsory_bytes, 'bytes')} (gap {found.gap:.3f}x)"),
    ]
    if document["lower_bound_bytes"]:
        gap = document["gap_to_lower_bound"]
        rows.append(("lower bound", f"{quantity(document['lower_bound_bytes'], 'bytes')} (gap {gap:.3f}x)"))
    parts = [render_fields(rows)]
    if found.front:
        columns = [Column("latency", right=True), Column("energy", right=True), Column("outer traffic", right=True)]
        table = [
            [quantity(one["latency_s"], "s"), quantity(one["energy_j"], "j"),
             quantity(one["dram_traffic_bytes"], "bytes")]
            for one in document["front"]
        ]  # fmt: skip
        parts.append(render_table(columns, table))
    if shown:
        parts.append(_as_yaml(found))
    return "\n\n".join(parts)


def _as_yaml(found: Found) -> str:
    import yaml

    return yaml.safe_dump(dict(found.mapping.data), sort_keys=False, allow_unicode=True).rstrip()
