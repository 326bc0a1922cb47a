"""`einsight measure`: time kernels on the GPU of this machine."""

from __future__ import annotations

import click

from einsight.options import completion, json_option, out_option
from einsight.output import print_json
from einsight.table import render_fields


def _plans() -> tuple[str, ...]:
    from kernels.plan import list_plans

    return list_plans()


@click.command(epilog="Example: einsight measure quick --out measurements/my-gpu.csv")
@click.argument("plan", shell_complete=completion(_plans))
@out_option("FILE.csv", "The file that rows are appended to.", required=True)
@click.option("--counters", is_flag=True, help="Read DRAM, L2 and unit counters with ncu as well.")
@json_option
def command(plan: str, out: str, counters: bool, as_json: bool) -> None:
    """Measure the kernels, shapes and tiles of PLAN, a library name or a YAML file.

    Rows are appended as they come. An interrupted run continues where it stopped when the same command is given again.
    """
    from kernels.command import run_measure

    found = run_measure(plan, out, counters=counters)
    if as_json:
        print_json(found)
        return
    rows = ", ".join(f"{count} {status}" for status, count in found["rows"].items())
    click.echo(
        render_fields(
            [
                ("plan", found["plan"]),
                ("rows", rows),
                ("with counters", str(found["counted"])),
                ("file", found["file"]),
                ("provenance", found["provenance"]),
            ]
        )
    )
