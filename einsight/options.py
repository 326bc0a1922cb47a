"""Options that several subcommands share, and how their texts become values."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from einsum import Cascade
    from explorer.settings import Setting

Function = TypeVar("Function", bound=Callable[..., Any])

_MODEL_OPTIONS = (
    ("cascade", "The algorithm: a library name or a YAML file. Default: the mapping's."),
    ("architecture", "The hardware: a library name or a YAML file. Default: the mapping's."),
    ("mapping", "How the algorithm runs on the hardware: a library name or a YAML file."),
    ("workload", "The sizes: a library name or a YAML file."),
)


def model_options(function: Function) -> Function:
    """Add --cascade, --architecture, --mapping and --workload."""
    for name, text in reversed(_MODEL_OPTIONS):
        function = click.option(f"--{name}", metavar="NAME", help=text)(function)
    return function


def json_option(function: Function) -> Function:
    """Add --json, the switch to one JSON document on standard output."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


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


def check_settings(cascade: Cascade, settings: Iterable[str]) -> None:
    """SpecError for a name among `settings` that is neither a size nor a variable of the cascade."""
    from einsum.errors import SpecError, nearest

    known = {*cascade.variables, *cascade.parameters}
    for name in settings:
        if name not in known:
            raise SpecError(f"{cascade.name} has no size '{name}'{nearest(name, known)}", key="--set")
