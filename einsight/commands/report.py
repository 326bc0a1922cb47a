"""`einsight report`: the results of a sweep as one HTML page, and as CSV or Parquet."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(epilog="Example: einsight report out/array-size --export points.csv")
@click.argument("folder", metavar="DIR")
@click.option("--out", metavar="FILE", help="The page to write. Default: report.html in DIR.")
@click.option("--export", "exports", multiple=True, metavar="FILE", help="Also write all points as .csv or .parquet.")
def command(folder: str, out: str | None, exports: tuple[str, ...]) -> None:
    """Write the results of a sweep as one HTML page that opens from disk: Pareto front, charts, best points."""
    from einsum.files import whole_file
    from explorer.export import export
    from explorer.report import render_report
    from explorer.store import Store

    page = Path(out) if out else Path(folder) / "report.html"
    with Store.open(folder) as store:
        with whole_file(page) as partial:
            partial.write_text(render_report(store), encoding="utf-8")
        click.echo(f"wrote {page}", err=True)
        for path in exports:
            export(store, path)
            click.echo(f"wrote {path}", err=True)
