"""`einsight calibrate`: measure what the GPU of this machine can do."""

from __future__ import annotations

import click

from einsight.options import FILE, json_option, out_option
from einsight.output import print_json, say_written


@click.command(epilog="Example: einsight calibrate --out facts.yaml --describe my-gpu.yaml")
@click.option("--describe", type=FILE, metavar="FILE.yaml", help="Write the architecture that the facts describe too.")
@click.option(
    "--like",
    default="h100-sxm",
    show_default=True,
    metavar="NAME",
    help="The architecture that has what was not measured.",
)
@out_option("FILE.yaml", "The file that the measured facts are written to.", required=True)
@json_option
def command(out: str, describe: str | None, like: str, as_json: bool) -> None:
    """Measure the hardware only: copies, products, exponentials, caches and launches. No attention kernel is run."""
    from kernels.command import run_calibrate

    facts = run_calibrate(out, describe, like)
    say_written(*(path for path in (out, describe) if path is not None))
    if as_json:
        print_json(facts)
