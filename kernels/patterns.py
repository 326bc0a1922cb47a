"""Block patterns of sparse attention by name: which blocks of keys each block of queries keeps.

A pattern is a sum of parts at a block size: `local-4+global-1+random-2@64` keeps, for every block of 64 queries, the
blocks of keys at most 3 away (only earlier ones when causal), the first block (and lets the first block of queries see
every key), and 2 more drawn at random with a fixed seed. The parts are those of BigBird (arXiv 2007.14062); `stride-8`
adds every 8th block counted back from the query's own (Sparse Transformers, arXiv 1904.10509).
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from einsum.errors import SpecError, nearest

_PARTS = ("local", "global", "random", "stride")
_SEED = 2007


def block_size(pattern: str) -> int:
    """Queries and keys of a block of `pattern`."""
    return _parse(pattern)[1]


def block_lists(pattern: str, q_len: int, kv_len: int, causal: bool) -> tuple[list[int], list[int]]:
    """(first, blocks): block row i keeps the key blocks blocks[first[i]:first[i + 1]], in ascending order.

    Raises SpecError for a pattern that does not read as parts at a block size.
    """
    kept = kept_blocks(pattern, q_len, kv_len, causal)
    first, blocks = [0], list[int]()
    for row in kept:
        blocks.extend(int(block) for block in np.flatnonzero(row))
        first.append(len(blocks))
    return first, blocks


def kept_blocks(pattern: str, q_len: int, kv_len: int, causal: bool) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Boolean (blocks of queries, blocks of keys): which blocks `pattern` keeps."""
    parts, size = _parse(pattern)
    rows, columns = -(-q_len // size), -(-kv_len // size)
    row, column = np.ogrid[:rows, :columns]
    kept = np.zeros((rows, columns), dtype=np.bool_)
    allowed = column <= row if causal else np.ones_like(kept)
    for part, count in parts:
        if part == "local":
            kept |= abs(row - column) < count
        elif part == "global":
            kept |= (column < count) | (row < count)
        elif part == "stride":
            kept |= (row - column) % count == 0
        else:
            order = np.random.default_rng(_SEED).random((rows, columns))
            order[kept | ~allowed] = 2.0
            kept |= (np.argsort(np.argsort(order, axis=1), axis=1) < count) & (order < 2.0)
    return kept & allowed


def kept_runs(kept: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First block and the one behind the last of each run of kept blocks, (runs, block rows); rows with fewer runs end
    with empty ones."""
    edges = np.diff(np.pad(kept, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    many = int((edges == 1).sum(axis=1).max(initial=1))
    found = []
    for edge in (1, -1):
        row, column = np.nonzero(edges == edge)
        number = np.arange(row.size) - np.searchsorted(row, row)
        places = np.zeros((many, kept.shape[0]), dtype=np.int64)
        places[number, row] = column
        found.append(places)
    return found[0], found[1]


def _parse(pattern: str) -> tuple[list[tuple[str, int]], int]:
    """Parts with their counts, and the block size; random parts last, so that they add blocks of their own."""
    match = re.fullmatch(r"([a-z0-9+-]+)@([1-9][0-9]*)", pattern)
    if match is None:
        raise SpecError(f"expected a pattern such as 'local-4+global-1@64', found '{pattern}'", key="pattern")
    parts = []
    for text in match[1].split("+"):
        name, _, count = text.partition("-")
        if name not in _PARTS:
            raise SpecError(f"unknown part '{name}' of a pattern{nearest(name, _PARTS)}", key="pattern")
        if not count.isdigit() or int(count) < 1:
            raise SpecError(f"expected a count of at least 1 behind '{name}-', found '{count}'", key="pattern")
        parts.append((name, int(count)))
    return sorted(parts, key=lambda part: part[0] == "random"), int(match[2])
