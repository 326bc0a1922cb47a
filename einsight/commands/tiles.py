"""`einsight tiles`: how many tiles a mask leaves to a kernel that works tile by tile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from einsight.options import completion, json_option, library_names, parse_settings, set_option
from einsight.output import print_json, quantity
from einsight.table import Column, render_fields, render_table

if TYPE_CHECKING:
    from einsum import Cascade
    from einsum.tile_visits import TileVisits
    from explorer.settings import Setting


@click.command(
    epilog="Example: einsight tiles attention-3pass --where 'm <= p' --set P=4096 --set M=4096 --rows p=128 "
    "--columns m=64"
)
@click.argument("cascade", shell_complete=completion(library_names("cascade")))
@click.option("--rows", required=True, metavar="RANK=SIZE,...", help="The tile that stays, such as p=128 for queries.")
@click.option("--columns", required=True, metavar="RANK=SIZE,...", help="The tiles that it visits, such as m=64.")
@click.option("--where", "conditions", multiple=True, metavar="CONDITION", help='Mask the cascade, such as "m <= p".')
@click.option("--share", type=click.FloatRange(0, 1), help="Share of a model's time, for the bound from end to end.")
@set_option
@json_option
def command(
    cascade: str,
    rows: str,
    columns: str,
    conditions: tuple[str, ...],
    share: float | None,
    settings: dict[str, Setting],
    as_json: bool,
) -> None:
    """Count the tiles that the mask of CASCADE leaves, and bound the speedup from skipping the others.

    A tile is visited if one of its points is kept. The bound is all column tiles over those that the busiest row tile
    visits; sizes of ranks that the mask does not touch play no part and need not be set.
    """
    from einsum import Cascade
    from einsum.errors import refuse_unknown
    from einsum.tile_visits import tile_visits

    chosen = Cascade.load(cascade)
    for condition in conditions:
        chosen = chosen.with_condition(condition)
    refuse_unknown(settings, {*chosen.variables, *chosen.parameters})
    row_tile, column_tile = _tile(rows, "--rows"), _tile(columns, "--columns")
    sizes = {**_unused(chosen, [*row_tile, *column_tile]), **settings}
    document = _document(chosen.name, tile_visits(chosen, row_tile, column_tile, sizes), share)
    if as_json:
        print_json(document)
        return
    click.echo(_text(document))


def _tile(text: str, option: str) -> dict[str, int]:
    """`p=128,q=64` as rank -> extent."""
    from einsum.errors import SpecError

    tile: dict[str, int] = {}
    for rank, size in parse_settings(text.split(","), option).items():
        if not isinstance(size, int):
            raise SpecError(f"expected a whole number, found {rank}={size}", key=option)
        tile[rank] = size
    return tile


def _unused(cascade: Cascade, ranks: list[str]) -> dict[str, int]:
    """A size of 1 for the ranks that no tile names, so that a user need not set them."""
    tiled = [cascade.ranks[rank].extent for rank in ranks if rank in cascade.ranks]
    used = {name for part in (*tiled, *cascade.where) for name in part.names}
    return dict.fromkeys(set(cascade.parameters) - used, 1)


def _document(name: str, visits: TileVisits, share: float | None) -> dict[str, Any]:
    from einsum.tile_visits import end_to_end

    return {
        "cascade": name,
        "row_tile": dict(visits.rows),
        "column_tile": dict(visits.columns),
        "row_tiles": int(visits.visited.size),
        "column_tiles": visits.column_tiles,
        "visited": {
            "least": int(visits.visited.min()),
            "mean": float(visits.visited.mean()),
            "most": int(visits.visited.max()),
        },
        "whole": {
            "least": int(visits.whole.min()),
            "mean": float(visits.whole.mean()),
            "most": int(visits.whole.max()),
        },
        "density": visits.density,
        "perfectly_sparse": visits.perfectly_sparse,
        "speedup_bound": visits.speedup_bound,
        "mean_speedup": visits.mean_speedup,
        "end_to_end_bound": None if share is None else end_to_end(visits.speedup_bound, share),
    }


def _text(document: dict[str, Any]) -> str:
    tile = {side: ", ".join(f"{k} = {v:,}" for k, v in document[f"{side}_tile"].items()) for side in ("row", "column")}
    fields = [
        ("cascade", document["cascade"]),
        ("row tiles", f"{document['row_tiles']:,} of {tile['row']}"),
        ("column tiles", f"{document['column_tiles']:,} of {tile['column']}"),
        ("kept", f"{quantity(document['density'], 'fraction')} of the points"),
    ]
    titles = [Column("of a row tile"), *(Column(name, right=True) for name in ("least", "mean", "most"))]
    rows = [
        [title, f"{counts['least']:,}", f"{counts['mean']:,.2f}", f"{counts['most']:,}"]
        for title, counts in (("tiles visited", document["visited"]), ("of these whole", document["whole"]))
    ]
    bounds = [
        ("speedup", f"at most {document['speedup_bound']:.3f}x, where the busiest row tile decides"),
        ("shared evenly", f"at most {document['mean_speedup']:.3f}x"),
    ]
    if document["end_to_end_bound"] is not None:
        bounds.append(("end to end", f"at most {document['end_to_end_bound']:.3f}x"))
    return "\n\n".join([render_fields(fields), render_table(titles, rows), render_fields(bounds)])
