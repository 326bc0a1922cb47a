"""`einsight doctor`: what is installed, what is missing for which use, and how to get it."""

from __future__ import annotations

import click

from einsight.options import json_option
from einsight.output import print_json
from einsight.table import render_fields, render_table


@click.command(epilog="Example: einsight doctor")
@json_option
def command(as_json: bool) -> None:
    """Say what is installed, what is missing for which use, and how to get it. Missing parts are no error."""
    from einsight.doctor import checkup

    found = checkup()
    if as_json:
        print_json(found)
        return
    fields = [
        ("einsight", f"{found['version']} in {found['place']}"),
        ("python", found["python"]),
        ("processors", str(found["processors"])),
        ("libraries", ", ".join(f"{count} {kind}s" for kind, count in found["library"].items())),
    ]
    rows = [
        [part["needs"], part["found"] or "missing", part["feature"], part["get"] or ""] for part in found["features"]
    ]
    click.echo(f"{render_fields(fields)}\n\n{render_table(['needs', 'found', 'for', 'how to get it'], rows)}")
