"""`einsight calibrate`: measure what the GPU of this machine can do."""

from __future__ import annotations

import click

from einsight.options import json_option, out_option
from einsight.output import print_json, say_written


@click.command(epilog="Example: einsight calibrate --out my-gpu.yaml")
@out_option("FILE.yaml", "The file that the measured facts are written to.", required=True)
@json_option
def command(out: str, as_json: bool) -> None:
    """Measure the hardware only: copies, products, exponentials, caches and launches. No attention kernel is run."""
    from kernels.command import run_calibrate

    facts = run_calibrate(out)
    say_written(out)
    if as_json:
        print_json(facts)
