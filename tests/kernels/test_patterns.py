"""Block patterns keep the blocks that their papers draw."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from einsum.errors import SpecError
from kernels.patterns import block_lists, block_size, kept_blocks, kept_runs


def drawn(pattern: str, length: int, causal: bool) -> list[str]:
    return ["".join(".#"[int(kept)] for kept in row) for row in kept_blocks(pattern, length, length, causal)]


def test_local_blocks_are_a_band() -> None:
    assert drawn("local-2@10", 40, causal=False) == ["##..", "###.", ".###", "..##"]
    assert drawn("local-2@10", 40, causal=True) == ["#...", "##..", ".##.", "..##"]


def test_global_blocks_see_and_are_seen_by_all() -> None:
    assert drawn("global-1+local-1@10", 35, causal=False) == ["####", "##..", "#.#.", "#..#"]


def test_strides_count_back_from_the_query() -> None:
    assert drawn("stride-2@10", 50, causal=True) == ["#....", ".#...", "#.#..", ".#.#.", "#.#.#"]


def test_random_blocks_are_extra_and_the_same_every_time() -> None:
    band = kept_blocks("local-2@16", 320, 320, True)
    kept = kept_blocks("random-3+local-2@16", 320, 320, True)
    added = (kept & ~band).sum(axis=1)
    room = (np.tri(20, dtype=bool) & ~band).sum(axis=1)
    assert (added == np.minimum(3, room)).all()
    assert (kept == kept_blocks("local-2+random-3@16", 320, 320, True)).all()
    assert not (kept & ~np.tri(20, dtype=bool)).any()


def test_lists_hold_the_kept_blocks_in_order() -> None:
    assert block_lists("local-2@10", 30, 30, False) == ([0, 2, 5, 7], [0, 1, 0, 1, 2, 1, 2])
    assert block_size("local-2@10") == 10


@pytest.mark.parametrize("pattern", ["local-2", "local-2@0", "lokal-2@64", "local@64", "local-0@64", "", "local-2@6@4"])
def test_mistakes_are_refused(pattern: str) -> None:
    with pytest.raises(SpecError, match=r"pattern"):
        block_size(pattern)


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=6))
def test_runs_hold_the_kept_blocks(rows: list[list[bool]]) -> None:
    first, last = kept_runs(np.array(rows))
    for row, kept in enumerate(rows):
        runs = [range(begin, end) for begin, end in zip(first[:, row], last[:, row], strict=True) if end > begin]
        assert [block for run in runs for block in run] == [block for block, keep in enumerate(kept) if keep]
        assert all(left.stop < right.start for left, right in pairwise(runs))
