"""`einsight schema`: the JSON Schema of what a subcommand prints with `--json`."""

from __future__ import annotations

import click

from einsight.options import completion
from einsight.output import print_json


def _documented() -> list[str]:
    from einsight.documents import DOCUMENTS

    return list(DOCUMENTS)


@click.command(epilog="Example: einsight schema simulate")
@click.argument("subcommand", metavar="COMMAND", shell_complete=completion(_documented))
def command(subcommand: str) -> None:
    """Print the JSON Schema of the document that COMMAND prints with --json."""
    from einsight.documents import DOCUMENTS, json_schema
    from einsum.errors import SpecError, nearest

    if subcommand not in DOCUMENTS:
        raise SpecError(f"no command '{subcommand}' with --json{nearest(subcommand, DOCUMENTS)}")
    print_json(json_schema(subcommand))
