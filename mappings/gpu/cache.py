"""What thread blocks find in the L2 because others that run at the same time, or ran shortly before, read it too.

Blocks start in the order of their numbers, as many at a time as fit (a wave). The bytes that the blocks of one wave
read are fetched once; what later ones find of them is told by `reuse`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mappings.program import Array

LEADER_WAITS = 0.125
"""Part of its time that a block takes longer while it is the first to ask: small, and of no influence else, since who
follows whom, and by how much, is told by multiples of it."""


@dataclass(frozen=True)
class Access:
    """What each block of a grid reads of one tensor: rows [first, last) of `row_bytes` each, of the part `key`.

    Each is (blocks,) in launch order, or a multiple of it where a block reads several ranges. `shared` is False where
    no two blocks read the same bytes.
    """

    first: Array
    last: Array
    row_bytes: Array
    key: NDArray[np.int64]
    shared: bool
    ranges: int = 1

    @property
    def blocks(self) -> int:
        """Blocks of the grid."""
        return self.first.size // self.ranges

    def start(self, blocks: int) -> Access:
        """What the first so many blocks read."""
        chosen = (np.arange(min(blocks, self.blocks)) + self.blocks * np.arange(self.ranges)[:, None]).reshape(-1)
        parts = (self.first[chosen], self.last[chosen], self.row_bytes[chosen], self.key[chosen])
        return Access(*parts, self.shared, self.ranges)

    def over(self, group: NDArray[np.int64]) -> NDArray[np.int64]:
        """A number of each block, for each of its ranges."""
        return np.tile(group, self.ranges)

    @property
    def block_bytes(self) -> Array:
        """Bytes that each block reads."""
        return np.maximum(self.last - self.first, 0.0) * self.row_bytes


def wave_bytes(access: Access, in_flight: int) -> float:
    """Bytes that the waves of `in_flight` blocks ask for, each byte once in a wave."""
    return float(union_bytes(access, np.arange(access.blocks) // max(in_flight, 1)).sum())


def abreast(access: Access) -> Access:
    """The same, of which only what begins at the same row is shared: these blocks ask for the same at the same time."""
    _, place = np.unique(access.first, return_inverse=True)
    return replace(access, key=as_key((access.key, place), access.key.size))


def leading_share(access: Access, places: int) -> float | None:
    """The part of what blocks read, as many at a time as there are places, for which they wait longer: nobody has asked
    for it before. None where blocks with the same key do not begin at the same row.

    A block that starts behind another on the same rows finds them in the L2, until it has caught up. Those that do are
    done earlier, and so are the blocks that start where they end: after the first waves few blocks lead.
    """
    shape = (access.ranges, access.blocks)
    first, last = access.first.reshape(shape), access.last.reshape(shape)
    begin = np.where(last > first, first, np.inf).min(axis=0)
    rows = np.where(last > first, last, -np.inf).max(axis=0) - begin
    reads = np.isfinite(begin)
    key = access.key.reshape(shape)[0]
    whole = np.maximum(last - first, 0.0).sum(axis=0) >= rows - 1e-9
    if not access.shared or not reads.any() or np.ptp(begin[reads]) > 0 or not whole[reads].all():
        return None
    ends = [0.0] * min(places, access.blocks)
    led: dict[int, tuple[float, float]] = {}  # for each key when its leader started, and how far it goes
    waited, slower = 0.0, 1 + LEADER_WAITS
    for part, many in zip(key[reads].tolist(), rows[reads].tolist(), strict=True):
        start = ends[0]
        led_from, led_rows = led.get(part, (start, 0.0))
        if many > led_rows:
            end = max(start + many, led_from + led_rows * slower + many - led_rows) + LEADER_WAITS * (many - led_rows)
            led[part] = (end - many * slower, many)
        else:
            end = max(start + many, led_from + many * slower)
        waited += end - start - many
        heapq.heapreplace(ends, end)
    return float(waited / LEADER_WAITS / rows[reads].sum())


def merged(accesses: Sequence[Access]) -> Access:
    """The accesses of the same blocks to different rows of one tensor, as one."""
    if len(accesses) == 1:
        return accesses[0]
    first, last, row_bytes, key = (
        np.concatenate([getattr(access, name) for access in accesses]) for name in ("first", "last", "row_bytes", "key")
    )
    return Access(first, last, row_bytes, key, any(access.shared for access in accesses), len(accesses))


def joint_share(access: Access, multiprocessors: int, groups: int, in_flight: int) -> float:
    """The part of what a wave asks for that others of the same group of multiprocessors ask for too.

    Blocks are dealt out in pairs, and pairs in turn to the groups.
    """
    if not access.shared or groups < 1:
        return 0.0
    wave = access.start(in_flight)
    group = np.arange(wave.blocks) % multiprocessors // 2 % groups
    asked = float(wave.block_bytes.sum())
    return 1 - float(union_bytes(wave, group).sum()) / asked if asked > 0 else 0.0


def distinct_bytes(access: Access) -> float:
    """Bytes that blocks read at all, each counted once."""
    return float(union_bytes(access, np.zeros(access.blocks, dtype=np.int64)).sum())


def union_bytes(access: Access, group: NDArray[np.int64]) -> Array:
    """Distinct bytes that the blocks of each group read, (groups,)."""
    groups = int(group.max()) + 1
    group = access.over(group)
    if not access.shared:
        return np.asarray(np.bincount(group, weights=access.block_bytes, minlength=groups), dtype=np.float64)
    return _union(access.first, access.last, access.row_bytes, access.key, group, groups)


def _union(
    first: Array, last: Array, row_bytes: Array, key: NDArray[np.int64], group: NDArray[np.int64], groups: int
) -> Array:
    """Length of the union of intervals, times bytes of a row, summed over the keys of each group."""
    order = _sorted_by(group, key, first)
    first, last, row_bytes = first[order], last[order], row_bytes[order]
    key, group = key[order], group[order]
    fresh = np.empty(first.size, dtype=bool)
    fresh[0] = True
    fresh[1:] = (key[1:] != key[:-1]) | (group[1:] != group[:-1])
    # Shift each run of equal key and group above all before it, so that one running maximum serves all runs.
    span = float(max(last.max(), 1.0)) + 1.0
    offset = np.cumsum(fresh) * span
    reached = np.maximum.accumulate(last + offset)
    before = np.empty_like(reached)
    before[0] = offset[0]
    before[1:] = np.where(fresh[1:], offset[1:], reached[:-1])
    new = np.maximum(last + offset - np.maximum(before, first + offset), 0.0)
    return np.asarray(np.bincount(group, weights=new * row_bytes, minlength=groups), dtype=np.float64)


def _sorted_by(group: NDArray[np.int64], key: NDArray[np.int64], first: Array) -> NDArray[np.intp]:
    """Places in the order of group, then key, then first row; by one number for all three where that fits."""
    spans = [float(values.max()) + 1 for values in (group, key, first)]
    if spans[0] * spans[1] * spans[2] < 2**62:
        # Blocks in launch order mostly are in this order already, which a stable sort makes use of.
        return np.argsort((group * int(spans[1]) + key) * int(spans[2]) + first.astype(np.int64), kind="stable")
    return np.lexsort((first, key, group))


def as_key(values: Sequence[Any], blocks: int) -> NDArray[np.int64]:
    """One number for each combination of values."""
    key = np.zeros(blocks, dtype=np.int64)
    for value in values:
        part = np.broadcast_to(np.asarray(value), (blocks,)).astype(np.int64)
        key = key * (int(part.max(initial=0)) + 1) + part
    return key


def dirty_bytes(written: float, read: float, l2_bytes: float, dirty_share: float, mixed_share: float) -> float:
    """Written bytes that are still in the L2 when the kernel ends, and reach memory later.

    `mixed_share` of the L2 holds the latest traffic in the mix of reads and writes in which it came; at most
    `dirty_share` of the L2 is dirty.
    """
    share = written / max(written + read, 1.0)
    return min(written, l2_bytes * min(dirty_share, share * mixed_share))
