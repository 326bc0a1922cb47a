"""Options that several subcommands share: names, help texts, completion, and how texts become values.

A subcommand about one description or file takes it as its argument; one that puts several together names each by an
option. `--out` is where files go, `--set` changes a variable, `--json` prints one document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from explorer.settings import Setting

Function = TypeVar("Function", bound=Callable[..., Any])

_MODELS = {
    "cascade": "The algorithm",
    "architecture": "The hardware",
    "mapping": "How the algorithm runs on the hardware",
    "workload": "The sizes",
}
"""Kind -> what it is, for help texts; in the order in which the options stand."""

FILE = click.Path()
"""The type of a path: any text, completed by the shell to files."""


def model_options(*required: str, **remarks: str | None) -> Callable[[Function], Function]:
    """Add options that name descriptions: those in `required`, and those in `remarks` with a sentence behind the help.

    Each takes a library name or the path of a YAML file, and completes to library names.
    """

    def add(function: Function) -> Function:
        for kind in reversed(_MODELS):
            if kind in required or kind in remarks:
                remark = f" {remarks[kind]}" if remarks.get(kind) else ""
                function = click.option(
                    f"--{kind}",
                    metavar="NAME",
                    required=kind in required,
                    help=f"{_MODELS[kind]}: a library name or a YAML file.{remark}",
                    shell_complete=completion(library_names(kind)),
                )(function)
        return function

    return add


def json_option(function: Function) -> Function:
    """Add --json, the switch to one JSON document on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


def out_option(metavar: str, text: str, required: bool = False) -> Callable[[Function], Function]:
    """Add --out, the file or folder that results are written to."""
    return click.option("--out", type=FILE, metavar=metavar, required=required, help=text)


def set_option(function: Function) -> Function:
    """Add --set NAME=VALUE, which may be given many times and arrives as the dictionary `settings`."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME=VALUE",
        callback=lambda _context, _parameter, texts: parse_settings(texts),
        help="Set a variable, as in --set L=65536 or --set 'buffer=32 MiB'. May be given many times.",
    )(function)


def parse_settings(texts: Iterable[str], option: str = "--set") -> dict[str, Setting]:
    """The values of texts such as `L=64Ki`, `buffer=32 MiB` or `mask=causal`, by name.

    A value is a number, a quantity in SI, or else text. Raises SpecError for anything that is not NAME=VALUE, a number
    that cannot be read, and a name given twice.
    """
    from einsum.errors import SpecError
    from explorer.settings import parse_setting

    settings: dict[str, Setting] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (equals and name and value):
            raise SpecError(f"expected NAME=VALUE, found '{text[:60]}'", key=option)
        if name in settings:
            raise SpecError(f"{name} is given twice", key=option)
        settings[name] = parse_setting(value, f"{option} {name}")
    return settings


def completion(names: Callable[[], Iterable[str]]) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """What the shell offers for an argument: those of the `names` that begin with what is typed, else files."""

    def complete(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name) for name in dict.fromkeys(names()) if name.startswith(incomplete)]
        return found or [CompletionItem(incomplete, type="file")]

    return complete


def library_names(*kinds: str) -> Callable[[], list[str]]:
    """The library's names of these kinds when they are asked for; of all kinds without any."""

    def names() -> list[str]:
        from einsum.specfile import LIBRARIES, list_library

        return [name for kind in kinds or LIBRARIES for name in list_library(kind)]

    return names
