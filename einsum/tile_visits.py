"""A mask seen in tiles: which column tiles each row tile has to visit, and how much skipping the others can save.

A kernel that works tile by tile visits every column tile in which at least one point is kept for its row tile, and
computes all points of it. So a mask saves less than its density: the bound here is that of Generalized Neighborhood
Attention (arXiv 2504.16922), all column tiles over those that the busiest row tile visits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.cascade import Cascade
from einsum.errors import SpecError, nearest
from einsum.masks import MaskIntervals, mask_intervals

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class TileVisits:
    """Visits of column tiles by row tiles; arrays have one dimension for each row rank, over its tiles.

    rows, columns  rank -> extent of a tile; the last tile of a rank may be ragged
    visited        column tiles with at least one kept point in the row tile
    whole          column tiles, among these, whose points are all kept: they need no masking
    points         kept points in the row tile
    column_tiles   all column tiles
    all_points     points of the ranks without the mask
    """

    rows: Mapping[str, int]
    columns: Mapping[str, int]
    visited: Counts
    whole: Counts
    points: Counts
    column_tiles: int
    all_points: int

    @property
    def speedup_bound(self) -> float:
        """All column tiles over those of the busiest row tile; 1 if a row tile visits all."""
        return self.column_tiles / max(1, int(self.visited.max()))

    @property
    def mean_speedup(self) -> float:
        """All visits over those that are made: the bound where the row tiles share their work evenly."""
        return self.visited.size * self.column_tiles / max(1, int(self.visited.sum()))

    @property
    def density(self) -> float:
        """Kept points over all points."""
        return int(self.points.sum()) / self.all_points

    @property
    def perfectly_sparse(self) -> bool:
        """Whether no visited tile needs masking."""
        return bool(np.array_equal(self.visited, self.whole))


def end_to_end(speedup: float, share: float) -> float:
    """Speedup of a whole whose part `share` (0..1) gets faster by `speedup` (Amdahl's law)."""
    return 1 / ((1 - share) + share / speedup)


def tile_visits(
    cascade: Cascade, rows: Mapping[str, int], columns: Mapping[str, int], env: Mapping[str, Any]
) -> TileVisits:
    """Visits under the cascade's conditions, in closed form for each pair of a row rank and a column rank.

    rows     row rank -> its extent in a tile (of queries, say); ranks left out are taken one coordinate at a time
             and must not be related to the columns by a condition
    columns  column rank -> its extent in a tile (of keys, say)
    env      sizes and variables by name, all scalars

    Raises SpecError for a rank that the cascade does not have, a tile that is not a whole number of at least 1, and
    conditions that relate a rank to two others: their tiles do not multiply.
    """
    for rank, size in (*rows.items(), *columns.items()):
        if rank not in cascade.ranks:
            raise SpecError(f"{cascade.name} has no rank '{rank}'{nearest(rank, cascade.ranks)}")
        if not (isinstance(size, int) and size >= 1):
            raise SpecError(f"expected a tile of at least 1, found {rank} = {size}")
    if shared := rows.keys() & columns.keys():
        raise SpecError(f"the rank '{min(shared)}' is both a row and a column of the tiles")
    extents = {rank: int(extent) for rank, extent in cascade.extents(env).items()}
    pairs = _pairs(cascade, rows, columns)
    axes = [_axis(cascade, row, pairs.get(row), rows, columns, extents, env) for row in rows]
    free = [column for column in columns if column not in pairs.values()]
    tiles = {column: -(-extents[column] // columns[column]) for column in columns}
    others = math.prod(tiles[column] for column in free)
    free_points = math.prod(extents[column] for column in free)
    visited, whole, points = (reduce(np.multiply.outer, parts) for parts in zip(*axes, strict=True))
    return TileVisits(
        dict(rows),
        dict(columns),
        np.asarray(visited * others),
        np.asarray(whole * others),
        np.asarray(points * free_points),
        math.prod(tiles.values()),
        math.prod(extents[rank] for rank in (*rows, *columns)),
    )


def _pairs(cascade: Cascade, rows: Mapping[str, int], columns: Mapping[str, int]) -> dict[str, str]:
    """Row rank -> the column rank that conditions relate it to."""
    if not rows or not columns:
        raise SpecError("expected at least one row rank and one column rank")
    pairs: dict[str, str] = {}
    for condition in cascade.where:
        ranks = condition.names & cascade.ranks.keys()
        mine, its = ranks & rows.keys(), ranks & columns.keys()
        if its and ranks - rows.keys() - columns.keys():
            outside = min(ranks - rows.keys() - columns.keys())
            raise SpecError(f"the condition '{condition}' relates {min(its)} to {outside}, which has no tile")
        if len(mine) > 1 or len(its) > 1:
            raise SpecError(f"the condition '{condition}' relates more than one row rank to one column rank")
        if mine and its:
            row, column = min(mine), min(its)
            taken = next((other for other, known in pairs.items() if known == column and other != row), None)
            if taken is not None or pairs.setdefault(row, column) != column:
                raise SpecError(f"the condition '{condition}' relates a rank to two others")
        elif its:
            raise SpecError(f"the condition '{condition}' restricts {min(its)} alone, for all rows alike")
    return pairs


def _axis(
    cascade: Cascade,
    row: str,
    column: str | None,
    rows: Mapping[str, int],
    columns: Mapping[str, int],
    extents: Mapping[str, int],
    env: Mapping[str, Any],
) -> tuple[Counts, Counts, Counts]:
    """Visited and whole column tiles and kept points of one pair of ranks, for each tile of the row rank."""
    extent, size = extents[row], rows[row]
    if column is None:
        ones = np.ones(-(-extent // size), dtype=np.int64)
        sizes = np.minimum(extent - size * np.arange(len(ones)), size)
        return ones, ones, sizes
    intervals: MaskIntervals = mask_intervals(cascade, row, column, env)
    tiles = intervals.tiles(size, columns[column])
    return tiles.tiles, tiles.whole, tiles.points
