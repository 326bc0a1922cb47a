"""What thread blocks share in the L2, against sets of bytes counted one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mappings.gpu.cache import Access, dirty_bytes, fetched_bytes, joint_share, merged, union_bytes


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


@settings(max_examples=100, deadline=None)
@given(BLOCKS, st.integers(1, 8), st.floats(0, 1e3))
def test_fetched_bytes_lie_between_distinct_ones_and_all(
    blocks: list[tuple[int, int, int]], wave: int, usable: float
) -> None:
    read = access([b[0] for b in blocks], [b[0] + b[1] for b in blocks], [b[2] for b in blocks])
    (fetched,) = fetched_bytes([read], wave, usable)
    distinct = len({(key, row) for first, rows, key in blocks for row in range(first, first + rows)})
    assert 2 * distinct - 1e-9 <= fetched <= read.block_bytes.sum() + 1e-9


def test_a_large_cache_leaves_compulsory_traffic_and_none_leaves_that_of_each_wave() -> None:
    read = access([0] * 8, [10] * 8, [0] * 8)
    assert fetched_bytes([read], 2, 1e9) == [20]
    assert fetched_bytes([read], 2, 0) == [4 * 20]


def test_ranges_of_one_tensor_are_merged() -> None:
    both = merged([access([0, 0], [4, 4], [0, 0]), access([2, 4], [6, 8], [0, 0])])
    assert fetched_bytes([both], 2, 0) == [16]


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
