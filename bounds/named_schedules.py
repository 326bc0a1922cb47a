"""The schedules that people know by name, exactly: FlashAttention-1 and -2, FLAT, unfused.

flash-attention-1         K and V blocks outside, O and statistics to and fro; best block of keys that fits; nothing
                          is read before it exists and statistics are not written after the last visit
flash-attention-1-paper   the printed algorithm (Dao et al. 2022, algorithm 1): O, l, m initialized in slow memory, read
                          and written at every visit; its block sizes Bc = ceil(M/4d), Br = min(Bc, d)
flash-attention-2         Q blocks outside, O written once (Dao 2023); best block of queries that fits
flash-attention-2-paper   the same with the block sizes of the first paper
flat                      Q, whole rows of scores and O of a block of queries resident (Kao et al. 2023)
tiling                    the best tiling that keeps no key or value from one tile to the next
unfused                   scores written, softmax row by row written, product with V; the best tiling of each

Words are exact; a schedule that does not fit at a memory is still counted, with `fits` false, at its smallest
blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bounds.attention_schedules import Heads, plain_tilings, unfused
from bounds.pattern import Blocks, Intervals
from bounds.staircase import Staircase
from einsum.errors import SpecError, nearest

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Traffic:
    """Words that a schedule moves at each memory size, whether it fits, and the blocks it uses."""

    words: Floats
    fits: Bools
    blocks: tuple[str, ...]


def named_schedule(name: str, heads: Heads, memory: Floats) -> Traffic:
    """The traffic of a schedule of SCHEDULES at the given memories. SpecError for an unknown name."""
    if name not in SCHEDULES:
        raise SpecError(f"no schedule is called {name!r}{nearest(name, SCHEDULES)}")
    return SCHEDULES[name](heads, memory)


def flash_attention_1_words(heads: Heads, rows: int, columns: int, printed: bool) -> int:
    """Words of one problem with blocks of `rows` x `columns`, as printed or with the needless transfers left out."""
    blocks = _blocks_touched(heads, rows, columns)
    visits = int(np.minimum(rows, heads.rows - rows * np.arange(blocks.size)) @ blocks)
    words = heads.columns * (heads.d + heads.dv) + visits * (heads.d + 2 * heads.dv + 4)
    return words + heads.rows * (heads.dv + 2) if printed else words - heads.rows * (heads.dv + 4)


def flash_attention_2_words(heads: Heads, rows: int, columns: int) -> int:
    """Words of one problem: every block of queries streams the blocks of keys that it touches, whole."""
    starts = np.arange(0, heads.rows, rows, dtype=np.int64)
    covered = int(np.sum(_columns_covered(heads, starts, rows, columns)))
    return (heads.rows + covered) * (heads.d + heads.dv)


def flash_footprint(heads: Heads, rows: int, columns: int) -> int:
    """Q, O, K, V blocks, scores in place, two statistics per row."""
    return (rows + columns) * (heads.d + heads.dv) + rows * columns + 2 * rows


def _blocks_touched(heads: Heads, rows: int, columns: int) -> NDArray[np.int64]:
    """For each block of queries: how many blocks of keys hold a key that it needs."""
    starts = np.arange(0, heads.rows, rows, dtype=np.int64)
    if isinstance(heads.pattern, Intervals):
        first, last = _span(heads, starts, rows)
        return np.asarray((last - 1) // columns - first // columns + 1)
    return np.asarray(_block_table(heads, starts, rows, columns).sum(axis=1))


def _columns_covered(heads: Heads, starts: NDArray[np.int64], rows: int, columns: int) -> NDArray[np.int64]:
    if isinstance(heads.pattern, Intervals):
        first, last = _span(heads, starts, rows)
        covered = np.minimum(-(-last // columns) * columns, heads.columns) - first // columns * columns
        return np.asarray(covered)
    edges = np.minimum(columns * np.arange(-(-heads.columns // columns) + 1), heads.columns)
    return np.asarray(_block_table(heads, starts, rows, columns) @ np.diff(edges))


def _span(heads: Heads, starts: NDArray[np.int64], rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and past-the-last key of each block of queries; without gaps, since unused keys are not in the pattern."""
    ends = np.minimum(starts + rows, heads.rows) - 1
    low, high = heads.pattern.spans()
    return low[starts // heads.group], high[ends // heads.group] + 1


def _block_table(heads: Heads, starts: NDArray[np.int64], rows: int, columns: int) -> Bools:
    """Whether a block of queries needs a block of keys, for patterns of blocks."""
    pattern = heads.pattern
    if not isinstance(pattern, Blocks):
        raise TypeError(f"no table of blocks for {type(pattern).__name__}")
    ends = np.minimum(starts + rows, heads.rows) - 1
    edge = np.searchsorted(pattern.row_edges, np.stack([starts, ends]) // heads.group, side="right") - 1
    left = np.arange(0, heads.columns, columns)
    side = (
        np.searchsorted(
            pattern.column_edges, np.stack([left, np.minimum(left + columns, heads.columns) - 1]), side="right"
        )
        - 1
    )
    kept = np.pad(np.cumsum(np.cumsum(pattern.kept, axis=0), axis=1), ((1, 0), (1, 0)))
    inside = kept[edge[1] + 1][:, side[1] + 1] - kept[edge[0]][:, side[1] + 1]
    inside = inside - kept[edge[1] + 1][:, side[0]] + kept[edge[0]][:, side[0]]
    return np.asarray(inside > 0)


def _best_blocks(stairs: Staircase, memory: Floats) -> Traffic:
    """The best of a family of blocks; the smallest footprint where none fits."""
    pick = np.maximum(stairs.pick(memory), 0)
    blocks = tuple(stairs.describe(int(stairs.origin[k])) for k in pick)
    return Traffic(stairs.words[pick], memory >= stairs.footprint[0], blocks)


def _flash_attention_1(heads: Heads, memory: Floats) -> Traffic:
    tiles = heads.column_tiles
    per_visit = heads.d + 2 * heads.dv + 4
    words = heads.columns * (heads.d + heads.dv) + tiles.needed * per_visit - heads.rows * (heads.dv + 4)
    space = (1 + tiles.sizes) * (heads.d + heads.dv) + tiles.sizes + 2
    return _best_blocks(Staircase.of(space, words, lambda k: f"1x{tiles.sizes[k]}").scaled(heads.copies), memory)


def _flash_attention_2(heads: Heads, memory: Floats) -> Traffic:
    tiles = heads.row_tiles
    words = (heads.rows + tiles.needed) * (heads.d + heads.dv)
    space = (tiles.sizes + 1) * (heads.d + heads.dv) + 3 * tiles.sizes
    return _best_blocks(Staircase.of(space, words, lambda k: f"{tiles.sizes[k]}x1").scaled(heads.copies), memory)


def _paper_blocks(heads: Heads, memory: Floats, words: Callable[[int, int], int]) -> Traffic:
    columns = np.ceil(memory / (4 * heads.d)).astype(int)
    pairs = [(min(b, heads.d, heads.rows), min(b, heads.columns)) for b in columns.tolist()]
    known = {pair: words(*pair) * heads.copies for pair in set(pairs)}
    space = np.array([flash_footprint(heads, *pair) for pair in pairs])
    return Traffic(np.array([known[p] for p in pairs], float), space <= memory, tuple(f"{a}x{b}" for a, b in pairs))


def _flash_attention_1_paper(heads: Heads, memory: Floats) -> Traffic:
    return _paper_blocks(heads, memory, lambda r, c: flash_attention_1_words(heads, r, c, printed=True))


def _flash_attention_2_paper(heads: Heads, memory: Floats) -> Traffic:
    return _paper_blocks(heads, memory, lambda r, c: flash_attention_2_words(heads, r, c))


def _flat(heads: Heads, memory: Floats) -> Traffic:
    tiles = heads.row_tiles
    words = (heads.rows + tiles.needed) * (heads.d + heads.dv)
    space = tiles.sizes * (tiles.largest + heads.d + heads.dv) + 3
    return _best_blocks(Staircase.of(space, words, lambda k: f"{tiles.sizes[k]} rows").scaled(heads.copies), memory)


def _unfused(heads: Heads, memory: Floats) -> Traffic:
    return _best_blocks(unfused(heads).scaled(heads.copies), memory)


def _tiling(heads: Heads, memory: Floats) -> Traffic:
    return _best_blocks(plain_tilings(heads), memory)


SCHEDULES: dict[str, Callable[[Heads, Floats], Traffic]] = {
    "flash-attention-1": _flash_attention_1,
    "flash-attention-2": _flash_attention_2,
    "flash-attention-1-paper": _flash_attention_1_paper,
    "flash-attention-2-paper": _flash_attention_2_paper,
    "flat": _flat,
    "tiling": _tiling,
    "unfused": _unfused,
}
