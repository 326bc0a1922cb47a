"""`einsight show`: one description, as text in the terminal or as a drawing."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from einsight.library import KINDS, kind_of, locate
from einsight.options import completion, json_option, library_names, out_option, set_option
from einsight.output import print_json, say_written
from einsum.errors import SpecError, nearest, refuse_unknown
from einsum.files import check_ending, whole_file
from einsum.specfile import find_spec, load_yaml
from explorer.settings import Setting

_DRAWN_BY = {
    "cascade": ("einsum", "Cascade", "einsight.draw_cascade"),
    "architecture": ("architectures", "Architecture", "einsight.draw_architecture"),
    "mapping": ("mappings", "Mapping", "einsight.draw_mapping"),
    "workload": ("workloads", "Workload", "einsight.draw_workload"),
}
"""kind -> package and class of its values, and the module with `draw_text` and `draw_svg` for them."""


@click.command(epilog="Example: einsight show attention-1pass --out attention.svg")
@click.argument(
    "words",
    metavar="[KIND] NAME",
    nargs=-1,
    required=True,
    shell_complete=completion(lambda: [*library_names()(), *KINDS]),
)
@set_option
@out_option("FILE.svg", "Draw it into this file instead.")
@json_option
def command(words: tuple[str, ...], settings: dict[str, Setting], out: str | None, as_json: bool) -> None:
    """Show a cascade, an architecture, a mapping or a workload; NAME may be the path of a YAML file.

    --json prints what the file says, and where it lies.
    """
    kind, name = _chosen(words)
    package, class_name, drawer = _DRAWN_BY[kind]
    value = getattr(import_module(package), class_name).load(name)
    refuse_unknown(settings, {**value.variables, **getattr(value, "properties", {})})
    draw: Any = import_module(drawer)
    if as_json:
        path = find_spec(kind, name)
        print_json({"kind": kind, "file": str(path), "data": load_yaml(path)})
    elif out is None:
        click.echo(draw.draw_text(value, settings).rstrip())
    if out is None:
        return
    check_ending(out, ".svg")
    with whole_file(out) as partial:
        partial.write_text(draw.draw_svg(value, settings), encoding="utf-8")
    say_written(out)


def _chosen(words: tuple[str, ...]) -> tuple[str, str]:
    if len(words) == 1:
        if kind_of(words[0]):
            raise SpecError(f"which {kind_of(words[0])}? `einsight list {words[0]}` shows the library")
        return locate(words[0])
    kind = kind_of(words[0])
    if len(words) > 2:
        raise SpecError(f"expected [KIND] NAME, found {len(words)} words")
    if not kind:
        raise SpecError(f"unknown kind '{words[0]}'{nearest(words[0], KINDS)}")
    return kind, words[1]
