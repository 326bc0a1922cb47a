"""`einsight list`: what the libraries hold."""

from __future__ import annotations

from dataclasses import asdict

import click

from einsight.library import KINDS, entries, kind_of
from einsight.options import completion, json_option
from einsight.output import print_json
from einsight.table import render_table
from einsum.errors import SpecError, nearest


@click.command("list", epilog="Example: einsight list mappings")
@click.argument("kind", required=False, shell_complete=completion(lambda: KINDS))
@json_option
def command(kind: str | None, as_json: bool) -> None:
    """List the cascades, architectures, mappings and workloads of the libraries, or those of one KIND."""
    chosen = None if kind is None else kind_of(kind)
    if kind is not None and not chosen:
        raise SpecError(f"unknown kind '{kind}'{nearest(kind, KINDS)}")
    found = [entry for each in KINDS if chosen in (None, each) for entry in entries(each)]
    if as_json:
        print_json([asdict(entry) for entry in found])
        return
    click.echo(render_table(["kind", "name", "description"], [[e.kind, e.name, e.description] for e in found]))
