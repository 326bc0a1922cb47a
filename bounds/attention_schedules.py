"""Schedules of two chained products through scores, S = Q K^T and O = f(S) V, as closed forms of words and footprint.

`Heads` says how large one independent problem is: a pattern of (query position, key) pairs, `group` queries to each
position that share keys and values, widths `d` (queries and keys) and `dv` (values and outputs). The running
maximum and sum of a softmax are `statistics` = 2 words per row; two chained products without a softmax between them
have none. Where the first `shared` words of a key are its value's (latent attention), schedules that hold columns
whole load them once; the others load them as two tensors. Every formula is exact, ragged tiles included, and is
proven in tests by executing the schedule word by word. Elements that are streamed take one word.

    row tiles       tiles of Bi queries by Bj keys; Q and O of the tile resident or not
    column tiles    tiles of Bj keys by Bi queries; K and V of the tile resident or not; O and statistics go to and fro
    two phases      scores written once and read back: a tiling for each product
    value chunks    Bl output columns at a time; the scores are recomputed for each chunk
    kept columns    row tiles with Q and O resident; up to r keys and values stay from one tile to the next
    whole columns   the same with every column whole: one score at a time, outputs normalized all along, so that the
                    logarithm of the sum is the only statistic of a row
    kept keys       value chunks with whole columns; up to r keys stay from one chunk, and one tile, to the next
    ring            one row after the other, K and V kept as long as a later row needs them: compulsory words
    unfused         scores written, softmax row by row written, product with V
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bounds.pattern import Pattern
from bounds.staircase import Staircase
from bounds.tiles import TileSums, breakpoints, thinned

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST_SIDES = 512
MOST_KEPT_TILES, KEPT_STEPS = 48, 32
MOST_KEY_TILES, MOST_KEY_CHUNKS = 4, 8


@dataclass(frozen=True, eq=False)
class Heads:
    """`copies` independent problems: patterns of scores with widths, and queries that share keys.

    shared   words of a column that are both its key's and its value's
    """

    pattern: Pattern
    d: int
    dv: int
    group: int = 1
    copies: int = 1
    statistics: int = 2
    shared: int = 0

    @property
    def column(self) -> int:
        """Words of a key and its value."""
        return self.d + self.dv - self.shared

    @property
    def rows(self) -> int:
        """Queries of one problem."""
        return self.pattern.rows * self.group

    @property
    def columns(self) -> int:
        """Keys of one problem."""
        return self.pattern.columns

    @property
    def pairs(self) -> int:
        """Scores of one problem."""
        return self.pattern.pairs * self.group

    @cached_property
    def row_tiles(self) -> TileSums:
        """Tiles of queries, and the keys that they need."""
        return TileSums(self.pattern, group=self.group)

    @cached_property
    def column_tiles(self) -> TileSums:
        """Tiles of keys, and the queries that need them."""
        return TileSums(self.pattern.transposed(), weight=self.group)


def best_schedules(heads: Heads, recompute: bool = True) -> Staircase:
    """The staircase of all templates at all tile sizes worth a try, for all copies.

    Without `recompute` only those that compute every score once.
    """
    keeping = [_kept_columns(heads), _whole_columns(heads), *([_kept_keys(heads)] if recompute else [])]
    return Staircase.merged([plain_tilings(heads, recompute), *(part.scaled(heads.copies) for part in keeping)])


def whole_row_schedules(heads: Heads) -> Staircase:
    """Schedules of a softmax in several passes, as it is written: a row's statistics come before its first output.

    Row tiles as wide as the longest need, the ring, or all scores written and read in each pass.
    """
    parts = [*_row_tiles(heads, whole=True), _ring(heads), unfused(heads)]
    return Staircase.merged(parts).scaled(heads.copies)


def plain_tilings(heads: Heads, recompute: bool = True) -> Staircase:
    """The staircase of the templates that keep no column from one tile to the next, for all copies."""
    parts = [*_row_tiles(heads), *_column_tiles(heads), *([_value_chunks(heads)] if recompute else []), _ring(heads)]
    two_phases = Staircase.sequence("two-phase", first_phase(heads), second_phase(heads))
    return Staircase.merged([*parts, two_phases]).scaled(heads.copies)


def _row_tiles(heads: Heads, whole: bool = False) -> list[Staircase]:
    d, dv, rows = heads.d, heads.dv, heads.rows
    tiles = heads.row_tiles
    height, width = tiles.sizes[:, None], _across(tiles)[:, -1 if whole else 0 :]
    visits = tiles.visits(width[0])
    streamed = (tiles.needed * (d + dv))[:, None]
    found = []
    for hold_q, hold_o in ((1, 1), (1, 0), (0, 1), (0, 0)):
        words = streamed + (rows * d if hold_q else visits * d) + (rows * dv if hold_o else dv * (2 * visits - rows))
        shorter = 0 if hold_q and hold_o else np.minimum(height, width)
        space = height * (width + heads.statistics + (not hold_o) + hold_q * d + hold_o * dv) + 2 + shorter
        found.append(tile_pairs(f"row tiles, {_held(Q=hold_q, O=hold_o)}", height, width, space, words))
    return found


def _column_tiles(heads: Heads) -> list[Staircase]:
    d, dv, rows, columns = heads.d, heads.dv, heads.rows, heads.columns
    tiles = heads.column_tiles
    width, height = tiles.sizes[:, None], _across(tiles)
    visits = tiles.visits(height[0])
    needed = tiles.needed[:, None]
    shorter = np.minimum(height, width)
    found = []
    for hold_k, hold_v in ((1, 1), (1, 0), (0, 1), (0, 0)):
        once = heads.shared * (hold_k and hold_v)
        words = (columns if hold_k else visits) * d + (columns if hold_v else visits) * dv - once * columns
        words = words + needed * d + dv * (2 * needed - rows) + 2 * heads.statistics * (needed - rows)
        scores, values = (0 if hold_k else shorter), (heads.statistics + 1) * height + (0 if hold_v else shorter)
        space = height * width + width * (hold_k * d + hold_v * dv - once) + 2 + np.maximum(scores, values)
        found.append(tile_pairs(f"column tiles, {_held(K=hold_k, V=hold_v)}", height, width, space, words))
    return found


def first_phase(heads: Heads) -> Staircase:
    """Tilings of the scores' product that write every score once."""
    d, rows, columns, pairs = heads.d, heads.rows, heads.columns, heads.pairs
    by_rows, by_columns = heads.row_tiles, heads.column_tiles
    height, width = by_rows.sizes, by_columns.sizes
    q_held = _single("Q resident", height, height * (d + 1) + 2, rows * d + d * by_rows.needed + pairs)
    k_held = _single("K resident", width, width * (d + 1) + 2, columns * d + d * by_columns.needed + pairs)
    across = _across(by_rows)
    space = height[:, None] * across + np.minimum(height[:, None], across) + 2
    words = by_rows.visits(across[0]) * d + (d * by_rows.needed)[:, None] + pairs
    return Staircase.merged([q_held, k_held, tile_pairs("S tiles", height[:, None], across, space, words)])


def second_phase(heads: Heads) -> Staircase:
    """Tilings of the outputs' product that read every score once for each chunk of Bl output columns."""
    dv, tiles = heads.dv, heads.row_tiles
    height, chunk = tiles.sizes[:, None], breakpoints(dv)[None, :]
    words = heads.pairs * -(-dv // chunk) + (dv * tiles.needed)[:, None] + heads.rows * dv
    space = height * (chunk + heads.statistics) + np.minimum(height, chunk) + 2
    return tile_pairs("O tiles", height, chunk, space, words)


def unfused(heads: Heads) -> Staircase:
    """Scores, softmax and product one after another, each with its best tiling."""
    pairs, longest = heads.pairs, heads.pattern.fullest_row
    # A row that fits is read and written once; one that does not is read for its maximum and sum, then again.
    softmax = Staircase.of(
        np.array([longest + 2, 3]), np.array([2 * pairs, 3 * pairs]), lambda k: ("rows resident", "two passes")[k]
    )
    tiles = heads.row_tiles
    height, chunk = tiles.sizes[:, None], breakpoints(heads.dv)[None, :]
    words = pairs * -(-heads.dv // chunk) + (heads.dv * tiles.needed)[:, None] + heads.rows * heads.dv
    space = height * chunk + np.minimum(height, chunk) + 1
    both = Staircase.sequence("softmax", softmax, tile_pairs("O", height, chunk, space, words))
    return Staircase.sequence("scores", first_phase(heads), both)


def _value_chunks(heads: Heads) -> Staircase:
    d, dv, tiles = heads.d, heads.dv, heads.row_tiles
    height, chunk = tiles.sizes[:, None], breakpoints(dv)[None, :]
    needed = tiles.needed[:, None]
    words = heads.rows * (d + dv) + -(-dv // chunk) * d * needed + dv * needed
    return tile_pairs("value chunks", height, chunk, height * (d + chunk + 1 + heads.statistics) + 2, words)


def _kept_columns(heads: Heads) -> Staircase:
    separate = replace(heads, shared=0)
    return _keeping(separate, "kept columns", heads.d + heads.dv + 1 + heads.statistics, 2, least=1)


def _whole_columns(heads: Heads) -> Staircase:
    row = heads.d + heads.dv + min(heads.statistics, 1)
    return _keeping(heads, "whole columns", row, heads.column + 1, least=0)


def _keeping(heads: Heads, name: str, row: int, more: int, least: int) -> Staircase:
    """Row tiles of `row` words a row and `more` words in all that keep `least` or more columns for the next tile.

    With many tiles none is kept: a kept column saves less there than the rows that its words could hold.
    """
    tiles, width = heads.row_tiles, heads.column
    found: list[tuple[int, int, int, int]] = []  # height, kept columns, space, words
    for k, height in enumerate(tiles.sizes.tolist()):
        few = -(-heads.rows // height) <= MOST_KEPT_TILES and k + 1 < tiles.sizes.size
        if least and not few:
            continue
        kept, saved = np.zeros(1, np.int64), np.zeros(1, np.int64)
        if few:
            overlaps = tiles.overlaps(height)
            room = int(tiles.sizes[k + 1] - height) * row // width + 1  # beyond it a higher tile fits instead
            kept = np.linspace(1, max(1, min(room, int(overlaps.max()))), KEPT_STEPS).astype(np.int64)
            kept = np.unique(np.append(kept, least))
            saved = np.minimum(kept[:, None], overlaps).sum(axis=1)
        words = heads.rows * (heads.d + heads.dv) + (int(tiles.needed[k]) - saved) * width
        space = height * row + more + kept * width
        found += zip([height] * kept.size, kept.tolist(), space.tolist(), words.tolist(), strict=True)
    if not found:
        return Staircase.of([], [], str)
    heights, columns, spaces, moved = (np.array(column) for column in zip(*found, strict=True))
    return Staircase.of(spaces, moved, lambda k: f"{name} {heights[k]}x{columns[k]}")


def _kept_keys(heads: Heads) -> Staircase:
    """Few tiles and chunks only: each further one costs all keys once more."""
    d, dv, tiles = heads.d, heads.dv, heads.row_tiles
    chunks = breakpoints(dv)
    found: list[tuple[int, int, int, int, int]] = []  # height, chunk, kept keys, space, words
    for height in tiles.sizes[-(-heads.rows // tiles.sizes) <= MOST_KEY_TILES].tolist():
        needs, overlaps = tiles.needs(height)[1], tiles.overlaps(height)
        for k in np.flatnonzero((-(-dv // chunks) <= MOST_KEY_CHUNKS) & (chunks < dv)).tolist():
            chunk, times = int(chunks[k]), -(-dv // int(chunks[k]))
            room = int(chunks[k + 1] - chunk) * (height + 1) // d + 1  # beyond it larger chunks fit instead
            kept = np.unique(np.linspace(0, min(room, int(needs.max())), KEPT_STEPS).astype(np.int64))
            saved = (times - 1) * np.minimum(kept[:, None], needs).sum(axis=1)
            saved += np.minimum(kept[:, None], overlaps).sum(axis=1)
            words = heads.rows * (d + dv) + dv * needs.sum() + d * (times * needs.sum() - saved)
            space = height * (d + chunk + min(heads.statistics, 1)) + (kept + 1) * d + chunk + 1
            sizes = [height] * kept.size, [chunk] * kept.size
            found += zip(*sizes, kept.tolist(), space.tolist(), words.tolist(), strict=True)
    if not found:
        return Staircase.of([], [], str)
    *sides, spaces, moved = (np.array(column) for column in zip(*found, strict=True))
    return Staircase.of(spaces, moved, lambda k: "kept keys " + "x".join(str(side[k]) for side in sides))


def ring_length(pattern: Pattern) -> int:
    """The most columns alive at once when rows run in order: from a column's first row to its last."""
    first, last = pattern.transposed().spans()
    change = np.zeros(pattern.rows + 1, np.int64)
    np.add.at(change, first, 1)
    np.add.at(change, last + 1, -1)
    return int(np.max(np.cumsum(change)))


def _ring(heads: Heads) -> Staircase:
    length, words = np.array([ring_length(heads.pattern)]), heads.rows * (heads.d + heads.dv)
    return _single("ring", length, length * (heads.column + 1) + 3, np.array([words + heads.columns * heads.column]))


def _across(tiles: TileSums) -> Ints:
    """The second side of tiles; all sizes that matter up to 65,536 columns, the others spaced evenly."""
    return thinned(breakpoints(int(tiles.largest.max())), MOST_SIDES)[None, :]


def _held(**held: int) -> str:
    names = [name for name, flag in held.items() if flag]
    return f"{' and '.join(names)} resident" if names else "nothing resident"


def tile_pairs(name: str, height: Ints, width: Ints, space: Ints, words: Ints) -> Staircase:
    """A staircase of tilings of two sizes that broadcast, described as `name HxW`."""
    shape = np.broadcast_shapes(height.shape, width.shape)
    heights, widths = (np.broadcast_to(v, shape).ravel() for v in (height, width))
    return Staircase.of(
        np.broadcast_to(space, shape), np.broadcast_to(words, shape), lambda k: f"{name} {heights[k]}x{widths[k]}"
    )


def _single(name: str, size: Ints, space: Ints, words: Ints) -> Staircase:
    return Staircase.of(space, words, lambda k: f"{name} {size[k]}")
