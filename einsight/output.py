"""What the subcommands print: JSON documents, quantities, and progress on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import click


def print_json(document: Any) -> None:
    """Print one JSON document to standard output."""
    click.echo(json.dumps(document, indent=2, allow_nan=False))


def say_written(*paths: object) -> None:
    """Name the files or folders that were written, one to a line, on standard error."""
    for path in paths:
        click.echo(f"wrote {path}", err=True)


def quantity(value: float, dimension: str) -> str:
    """A value (SI) with its unit; shares have two decimals, so that those of a column compare at a glance."""
    from einsum.units import format_quantity

    return f"{100 * value:.2f} %" if dimension == "fraction" else format_quantity(value, dimension)


def progress_line(what: str) -> Callable[[int, int], None]:
    """A callback (done, total) that keeps one line about `what` on standard error where a person looks at it."""
    shown = sys.stderr.isatty()

    def show(done: int, total: int) -> None:
        if shown:
            end = "\r\033[K" if done == total else ""
            print(f"\r{what} {done}/{total}{end}", end="", file=sys.stderr, flush=True)

    return show
