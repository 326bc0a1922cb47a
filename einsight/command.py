"""The `einsight` command: one module for each subcommand, imported only when it is called.

Every mistake of the user ends here as one sentence on standard error and exit code 2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

COMMANDS = {
    "list": "List what the libraries hold.",
    "show": "Show and draw a cascade, an architecture, a mapping or a workload.",
    "passes": "Count the passes that a cascade must make over each rank.",
    "tiles": "Count the tiles that a mask leaves, and bound the speedup from skipping the others.",
    "simulate": "Simulate a cascade on an architecture: time, traffic, utilization, energy.",
    "map": "Find the best mapping of a cascade on an architecture.",
    "bounds": "Bound the traffic that any schedule of a cascade must do.",
    "measure": "Time kernels on the GPU of this machine.",
    "calibrate": "Measure what the GPU of this machine can do.",
    "run": "Run an experiment file: many simulations, tables and figures.",
    "sweep": "Evaluate many design points from a YAML file and store every one.",
    "report": "Write the results of a sweep as one HTML page.",
    "compare": "Compare measured GPU kernels with what the simulator predicts.",
    "schema": "Print the JSON Schema of a command's --json document.",
    "doctor": "Say what is installed, what is missing for which use, and how to get it.",
}
"""Subcommand -> its line in `einsight --help`. The module of the same name in `einsight.commands` holds `command`."""


class _LazyGroup(click.Group):
    """A group that imports a subcommand's module when the subcommand is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The subcommands, in the order of the help text."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand of that name, or None."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"einsight.commands.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The subcommand that `args` name, and what is left of them; a usage error names the nearest one."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from einsum.errors import nearest

            raise click.UsageError(f"unknown command '{args[0]}'{nearest(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of subcommands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=_LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: einsight simulate --mapping fusemax-binding --workload bert-base --set L=65536",
)
@click.version_option(package_name="einsight")
@click.pass_context
def einsight(context: click.Context) -> None:
    """What an attention algorithm costs on given hardware, and how close that is to the limit.

    Everywhere a NAME stands, the path of a YAML file may stand too.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (default: the process's) and return its exit code.

    0: done. 2: the input is at fault; one sentence on standard error says how. 1: this package is. 130: interrupted.
    """
    try:
        code = einsight.main(arguments, prog_name="einsight", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        return _refuse(_sentence(error))
    except (click.Abort, KeyboardInterrupt):
        return 130
    except OSError as error:
        return _refuse(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except Exception as error:
        from einsum.errors import EinsightError, InternalError

        if isinstance(error, InternalError):
            return _refuse(f"internal error: {error}; please report it", 1)
        if isinstance(error, EinsightError):
            return _refuse(str(error))
        raise


def _sentence(error: click.ClickException) -> str:
    """What click found wrong with the arguments, in the form of all other errors."""
    if isinstance(error, click.NoSuchOption):
        from einsum.errors import nearest

        options = error.ctx.command.get_params(error.ctx) if error.ctx else []
        hint = nearest(error.option_name, [name for option in options for name in option.opts if name[:2] == "--"])
        return f"unknown option '{error.option_name}'{hint}"
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter) and error.param:
        return f"{error.param.opts[0]}: {error.message.removesuffix('.')}"
    message = " ".join(error.format_message().split()).removesuffix(".")
    return message[:1].lower() + message[1:]


def _refuse(message: str, code: int = 2) -> int:
    print(f"einsight: {' '.join(message.split())}", file=sys.stderr)
    return code
