"""`einsight report`: the results of a sweep as one HTML page, and as CSV or Parquet."""

from __future__ import annotations

from pathlib import Path

import click

from einsight.options import FILE, json_option, out_option
from einsight.output import print_json, say_written


@click.command(epilog="Example: einsight report out/array-size --export points.csv")
@click.argument("folder", type=FILE, metavar="DIR")
@click.option(
    "--export", "exports", type=FILE, multiple=True, metavar="FILE", help="Also write all points as .csv or .parquet."
)
@click.option(
    "--found",
    "mappings",
    type=(click.IntRange(0), FILE),
    multiple=True,
    metavar="POINT FILE.yaml",
    help="Also write the mapping that was found for a point.",
)
@out_option("FILE.html", "The page to write. Default: report.html in DIR.")
@json_option
def command(
    folder: str, exports: tuple[str, ...], mappings: tuple[tuple[int, str], ...], out: str | None, as_json: bool
) -> None:
    """Write the results of a sweep as one HTML page that opens from disk: Pareto front, charts, best points."""
    from einsum.files import check_ending, whole_file
    from explorer.export import check_export, export
    from explorer.report import render_report
    from explorer.store import Store

    page = Path(out) if out else Path(folder) / "report.html"
    # Whatever is wrong with one file is said before any is written.
    for path in exports:
        check_export(path)
    for _, path in mappings:
        check_ending(path, ".yaml", ".yml")
    with Store.open(folder) as store:
        found = [(path, store.mapping(point)) for point, path in mappings]
        with whole_file(page) as partial:
            partial.write_text(render_report(store), encoding="utf-8")
        say_written(page)
        for path in exports:
            export(store, path)
            say_written(path)
        for path, text in found:
            with whole_file(path) as partial:
                partial.write_text(text, encoding="utf-8")
            say_written(path)
    if as_json:
        print_json({"page": str(page), "exports": list(exports), "mappings": [path for _, path in mappings]})
