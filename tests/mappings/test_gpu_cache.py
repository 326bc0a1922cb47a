"""What thread blocks share in the L2, against sets of bytes counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappings.gpu.cache import (
    Access,
    abreast,
    dirty_bytes,
    distinct_bytes,
    joint_share,
    leading_share,
    merged,
    union_bytes,
    wave_bytes,
)


def access(first: list[int], last: list[int], key: list[int], shared: bool = True) -> Access:
    ones = np.ones(len(first))
    return Access(np.array(first, float), np.array(last, float), 2 * ones, np.array(key, dtype=np.int64), shared)


BLOCKS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8), st.integers(0, 2)), min_size=1, max_size=30)


@settings(max_examples=100, deadline=None)
@given(BLOCKS, st.integers(1, 8))
def test_a_group_reads_each_byte_once(blocks: list[tuple[int, int, int]], wave: int) -> None:
    read = access([b[0] for b in blocks], [b[0] + b[1] for b in blocks], [b[2] for b in blocks])
    group = np.arange(len(blocks)) // wave
    expected = [
        2 * len({(key, row) for at, (first, rows, key) in enumerate(blocks) if group[at] == number
                 for row in range(first, first + rows)})
        for number in range(group[-1] + 1)
    ]  # fmt: skip
    assert union_bytes(read, group).tolist() == expected


def test_ranges_of_one_tensor_are_merged() -> None:
    both = merged([access([0, 0], [4, 4], [0, 0]), access([2, 4], [6, 8], [0, 0])])
    assert distinct_bytes(both) == 16 and both.blocks == 2


def test_a_group_of_multiprocessors_asks_once() -> None:
    """By hand: pairs of blocks go in turn to two groups; blocks 0, 1, 4, 5 to one, 2, 3, 6, 7 to the other."""
    pairs = access([0, 0, 5, 5, 7, 7, 9, 9], [1, 1, 6, 6, 8, 8, 10, 10], [0] * 8)
    assert joint_share(pairs, 8, 2, 8) == 0.5
    across = access([0, 0, 5, 5, 0, 0, 5, 5], [1, 1, 6, 6, 1, 1, 6, 6], [0] * 8)
    assert joint_share(across, 8, 2, 8) == 0.75
    assert joint_share(access([0, 1, 2, 3], [1, 2, 3, 4], [0] * 4), 8, 2, 4) == 0
    assert joint_share(across, 8, 2, 4) == 0.5  # only the first wave is looked at


def test_dirty_lines_are_a_share_of_the_cache() -> None:
    assert dirty_bytes(10.0, 10.0, 100.0, 0.45, 0.8) == 10.0
    assert dirty_bytes(1e9, 0.0, 100.0, 0.45, 0.8) == 45.0
    assert dirty_bytes(1e9, 1e9, 100.0, 0.45, 0.8) == 40.0


def test_blocks_that_start_together_wait_together_and_later_ones_find_what_they_read() -> None:
    together = access([0] * 4, [8] * 4, [0] * 4)
    assert leading_share(together, 4) == 1
    # Two at a time: the second pair reads the same behind the first, and finds all of it.
    assert leading_share(together, 2) == 0.5
    # The third block follows the first two and ends before the fourth, which leads the other part alone.
    assert leading_share(access([0] * 6, [8] * 6, [0, 0, 0, 1, 1, 1]), 2) == pytest.approx(0.5)


def test_a_longer_block_leads_where_the_one_before_it_ended() -> None:
    assert leading_share(access([0, 0], [4, 12], [0, 0]), 1) == pytest.approx(12 / 16)


def test_only_blocks_that_begin_at_the_same_row_are_abreast() -> None:
    windows = access([0, 2, 4], [6, 8, 10], [0, 0, 0])
    assert leading_share(windows, 3) is None
    assert wave_bytes(windows, 3) == 20 and wave_bytes(abreast(windows), 3) == 36
