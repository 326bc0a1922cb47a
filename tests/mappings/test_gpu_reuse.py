"""What later blocks find in the L2, against a cache that is played line by line."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mappings.gpu.cache import Access, distinct_bytes
from mappings.gpu.reads import Use
from mappings.gpu.reuse import Kept, lost_parts

LINE = 128


def access(first: list[int], last: list[int], key: list[int] | None = None, ranges: int = 1) -> Access:
    """Rows of one line each."""
    count = len(first)
    keys = np.array(key or [0] * count, dtype=np.int64)
    return Access(np.array(first, float), np.array(last, float), np.full(count, float(LINE)), keys, True, ranges)


class PlayedCache:
    """Sets of lines in the order of their last use; a line belongs to any set of any part by chance. What a block of
    another part asks for is copied there."""

    def __init__(self, lines: int, ways: int, parts: int, seed: int) -> None:
        self.ways, self.parts, self.rng = ways, parts, np.random.default_rng(seed)
        self.sets = [[OrderedDict[object, None]() for _ in range(lines // ways // parts)] for _ in range(parts)]
        self.homes: dict[object, tuple[int, list[int]]] = {}

    def _found(self, part: int, line: object) -> bool:
        lines = self.sets[part][self.homes[line][1][part]]
        found = line in lines
        lines[line] = None
        lines.move_to_end(line)
        if len(lines) > self.ways:
            lines.popitem(last=False)
        return found

    def misses(self, line: object, part: int) -> bool:
        if line not in self.homes:
            places = self.rng.integers(len(self.sets[0]), size=self.parts)
            self.homes[line] = (int(self.rng.integers(self.parts)), places.tolist())
        home = self.homes[line][0]
        return not self._found(part, line) and (part == home or not self._found(home, line))


def played(read: Access, in_flight: int, lines: int, ways: int, parts: int, passing: int) -> float:
    """Part of the lines that were read before, that comes from beyond the cache; blocks of equal length, in step.

    `passing`: lines of its own that each block reads evenly over its time.
    """
    cache, rng = PlayedCache(lines, ways, parts, 7), np.random.default_rng(11)
    again = missed = 0
    seen: set[object] = set()
    for start in range(0, read.blocks, in_flight):
        blocks = range(start, min(start + in_flight, read.blocks))
        parts_of = rng.integers(parts, size=in_flight)
        steps = int(read.last[start] - read.first[start])
        for step in range(steps):
            for block in blocks:
                line = (int(read.key[block]), int(read.first[block]) + step)
                miss = cache.misses(line, int(parts_of[block - start]))
                again += line in seen
                missed += line in seen and miss
                seen.add(line)
                for own in range(step * passing // steps, (step + 1) * passing // steps):
                    cache.misses(("own", block, own), int(parts_of[block - start]))
    return missed / again


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("lines, passing", [(256, 0), (512, 0), (1024, 0), (1024, 32), (2048, 64), (4096, 0)])
def test_waves_that_walk_over_the_same_rows(parts: int, lines: int, passing: int) -> None:
    """Two heads of 400 rows, read by 24 blocks each, 16 at a time: the second head begins within a wave."""
    read = access([0] * 48, [400] * 48, [0] * 24 + [1] * 24)
    kept = Kept(lines * LINE, 16, parts)
    (found,) = lost_parts([read], 16, kept, 48 * passing * LINE)
    assert found == pytest.approx(played(read, 16, lines, 16, parts, passing), abs=0.02)


@pytest.mark.parametrize("lines", [2048, 4096, 8192])
def test_what_comes_back_after_other_rows(lines: int) -> None:
    """Blocks that read 5 ranges of 640 rows in turn, over and over: a cycle that is longer than the small caches."""
    read = access([640 * (block % 5) for block in range(40)], [640 * (block % 5) + 640 for block in range(40)])
    (found,) = lost_parts([read], 1, Kept(lines * LINE, 16, 1))
    assert found == pytest.approx(played(read, 1, lines, 16, 1, 0), abs=0.04)


BLOCKS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8), st.integers(0, 2)), min_size=1, max_size=30)


@settings(max_examples=100, deadline=None)
@given(BLOCKS, st.integers(1, 8), st.floats(1, 1e4), st.sampled_from([1, 2]))
def test_parts_lie_between_none_and_all_and_fall_with_the_capacity(
    blocks: list[tuple[int, int, int]], in_flight: int, capacity: float, parts: int
) -> None:
    read = access([b[0] for b in blocks], [b[0] + b[1] for b in blocks], [b[2] for b in blocks])
    (small,) = lost_parts([read], in_flight, Kept(capacity, 16, parts))
    (large,) = lost_parts([read], in_flight, Kept(3 * capacity, 16, parts))
    assert 0 <= large <= small + 1e-9 and small <= 1 + 1e-9
    assert lost_parts([read], in_flight, Kept(1e9, 16, parts)) == [0.0]
    assert distinct_bytes(read) <= read.block_bytes.sum()


def test_tensors_that_are_read_alike_fill_the_cache_together() -> None:
    read = access([0] * 4, [100] * 4)
    alone, both = Kept(150 * LINE, 16, 1), lost_parts([read, read], 1, Kept(150 * LINE, 16, 1))
    assert both[0] == both[1] > 0.9 and lost_parts([read], 1, alone)[0] < 0.1


def test_copies_of_what_one_and_what_all_read() -> None:
    """Half of what one multiprocessor asks for lies in the other half of the L2 too; all of what all ask for."""
    halves = Kept(1.0, 16, 2)
    assert halves.copies(1) == 1.5 and halves.copies(64) == pytest.approx(2)
    assert Kept(1.0, 16, 1).copies(64) == 1
    assert halves.lost(1.0) == pytest.approx(0.533, abs=0.001)  # 1 less the Poisson distribution's 0 to 15 at 16


def played_launches(size: int, waves: int, own: int, then: int, lines: int) -> float:
    """Part of `size` lines that a launch stores, at the ends of so many waves that read `own` lines each, and a second
    one no longer finds, which reads them evenly among `then` lines of its own."""
    cache = PlayedCache(lines, 16, 1, 5)
    for wave in range(waves):
        for line in range(own):
            cache.misses(("own", wave, line), 0)
        for line in range(wave * size // waves, (wave + 1) * size // waves):
            cache.misses(("stored", line), 0)
    gone = 0
    for line in range(size):
        gone += cache.misses(("stored", line), 0)
        for other in range(line * then // size, (line + 1) * then // size):
            cache.misses(("then", other), 0)
    return gone / size


@pytest.mark.parametrize("waves", [1, 2, 4])
@pytest.mark.parametrize("own, then", [(512, 64), (2048, 64), (1024, 4096), (8192, 0)])
def test_what_the_launch_before_has_stored(waves: int, own: int, then: int) -> None:
    """What the last wave stores is there, what those before did as far as the cache has room."""
    lines, size = 4096, 512
    use = Use(size * LINE, waves, ((waves * own + size) * LINE,))
    found = use.gone(size * LINE, (then + size) * LINE, Kept(lines * LINE, 16, 1))
    assert found == pytest.approx(played_launches(size, waves, own, then, lines), abs=0.08)
