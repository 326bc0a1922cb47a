"""The command reference, made from the commands themselves."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from einsight.command import COMMANDS, einsight


def commands_page() -> str:
    """Every subcommand: what it does, its arguments and options, an example."""
    context = click.Context(einsight, info_name="einsight")
    overview = [f"| [`{name}`](#einsight-{name}) | {text} |" for name, text in COMMANDS.items()]
    parts = [
        "# Commands",
        inspect.cleandoc(einsight.help or ""),
        "\n".join(["| command | |", "|---|---|", *overview]),
        "Results go to standard output, progress and messages to standard error. Exit codes: 0, done; 2, the input is "
        "at fault, and one sentence on standard error says where and how; 130, interrupted.",
    ]
    for name in COMMANDS:
        command = einsight.get_command(context, name)
        assert command is not None
        parts += _section(name, command, click.Context(command, parent=context, info_name=name))
    return "\n\n".join(parts) + "\n"


def _section(name: str, command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## einsight {name}"
    yield f"```text\n{' '.join([f'einsight {name}', *command.collect_usage_pieces(context)])}\n```"
    yield inspect.cleandoc(command.help or "")
    records = [option.get_help_record(context) for option in command.params if isinstance(option, click.Option)]
    rows = [f"| `{_cell(record[0])}` | {_cell(record[1])} |" for record in records if record]
    if rows:
        yield "\n".join(["| option | |", "|---|---|", *rows])
    yield f"```sh\n{(command.epilog or '').removeprefix('Example: ')}\n```"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
