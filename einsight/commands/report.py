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
@out_option("FILE.html", "The page to write. Default: report.html in DIR.")
@json_option
def command(folder: str, exports: tuple[str, ...], out: str | None, as_json: bool) -> None:
    """Write the results of a sweep as one HTML page that opens from disk: Pareto front, charts, best points."""
    from einsum.files import whole_file
    from explorer.export import export
    from explorer.report import render_report
    from explorer.store import Store

    page = Path(out) if out else Path(folder) / "report.html"
    with Store.open(folder) as store:
        with whole_file(page) as partial:
            partial.write_text(render_report(store), encoding="utf-8")
        say_written(page)
        for path in exports:
            export(store, path)
            say_written(path)
    if as_json:
        print_json({"page": str(page), "exports": list(exports)})
