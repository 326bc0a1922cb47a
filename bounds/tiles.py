"""Sums over the tiles of a pattern's rows: how many columns each tile needs, in how many chunks.

The rows may be stacked `group` to a position (grouped queries, position-major). All sums are exact with ragged
tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bounds.pattern import Intervals, Pattern, repeated

Ints = NDArray[np.int64]
MOST_TERMS = 40_000_000


def breakpoints(size: int) -> Ints:
    """The smallest tile for each number of tiles: all that matters of 1..size for ceil(size / tile)."""
    small = np.arange(1, int(size**0.5) + 2, dtype=np.int64)  # tiles, then numbers of tiles, up to the square root
    count = np.unique(np.minimum(np.concatenate([-(-size // small), small]), size))
    return np.unique(-(-size // count))


def thinned(sizes: Ints, most: int) -> Ints:
    """At most `most` of the sizes, evenly spaced in their logarithm, the smallest and the largest among them."""
    if sizes.size <= most:
        return sizes
    at = np.searchsorted(sizes, np.geomspace(sizes[0], sizes[-1], most) * (1 - 1e-9))
    return np.unique(sizes[np.minimum(at, sizes.size - 1)])


def floor_sum(n: Ints, m: Ints, a: Ints, b: Ints) -> Ints:
    """sum over i < n of floor((a i + b) / m), elementwise, for a, b >= 0 and m > 0, by Euclid's algorithm."""
    n, m, a, b = (np.array(v, dtype=np.int64) for v in np.broadcast_arrays(n, m, a, b))
    total = np.zeros(n.shape, np.int64)
    active = n > 0
    while active.any():
        total += np.where(active, n * (n - 1) // 2 * (a // m) + n * (b // m), 0)
        a, b = a % m, b % m
        reach = a * n + b
        active &= reach >= m
        n, b, m, a = (
            np.where(active, reach // m, 0),
            np.where(active, reach % m, 0),
            np.where(active, a, 1),
            np.where(active, m, 0),
        )
    return total


@dataclass(frozen=True, eq=False)
class TileSums:
    """Tiles of `rows` rows, `group` of them to each position of the pattern; a needed column counts `weight` times."""

    pattern: Pattern
    group: int = 1
    weight: int = 1

    @property
    def rows(self) -> int:
        """Rows in all."""
        return self.pattern.rows * self.group

    @cached_property
    def sizes(self) -> Ints:
        """The tile sizes worth a try."""
        return breakpoints(self.rows)

    def needs(self, tile: int) -> tuple[Ints, Ints]:
        """Rows and needed columns of each tile of the given size."""
        starts = np.arange(0, self.rows, tile, dtype=np.int64)
        rows = np.minimum(tile, self.rows - starts)
        return rows, self.weight * self.pattern.columns_of_rows(*repeated(starts, self.rows, self.group))

    def overlaps(self, tile: int) -> Ints:
        """Needed columns that each tile of the given size shares with the next one."""
        starts = np.arange(0, self.rows, tile, dtype=np.int64)
        first, past = repeated(starts, self.rows, self.group)
        needs = self.pattern.columns_of_rows(first, past)
        return self.weight * (needs[:-1] + needs[1:] - self.pattern.columns_of_rows(first[:-1], past[1:]))

    @cached_property
    def _distinct(self) -> list[tuple[Ints, Ints, Ints]]:
        """For each size: the distinct needs, how many tiles have them, how many rows these tiles have."""
        found = []
        for tile in self.sizes.tolist():
            rows, needs = self.needs(tile)
            values, which = np.unique(needs, return_inverse=True)
            found.append(
                (
                    values.astype(np.int64),
                    np.bincount(which).astype(np.int64),
                    np.round(np.bincount(which, weights=rows)).astype(np.int64),
                )
            )
        return found

    @cached_property
    def needed(self) -> Ints:
        """For each size: the needed columns, summed over the tiles."""
        return np.array([int(values @ tiles) for values, tiles, _ in self._distinct])

    @cached_property
    def largest(self) -> Ints:
        """For each size: the most columns that a tile needs."""
        return np.array([int(values[-1]) for values, _, _ in self._distinct])

    def visits(self, chunks: Ints) -> Ints:
        """(size, chunk): sum over tiles of rows * ceil(needed columns / chunk)."""
        slope = self._ramp()
        if slope is not None:
            return self._ramp_visits(*slope, chunks)
        found = np.zeros((self.sizes.size, chunks.size), np.int64)
        for k, (values, _, rows) in enumerate(self._distinct):
            step = max(1, MOST_TERMS // chunks.size)
            for start in range(0, values.size, step):
                part = slice(start, start + step)
                found[k] += rows[part] @ -(-values[part, None] // chunks)
        return found

    def _ramp(self) -> tuple[int, bool] | None:
        """A ramp's first height and whether it falls: row i needs the columns up to i + height, or from i on."""
        pattern = self.pattern
        if not isinstance(pattern, Intervals) or pattern.rows < 2:
            return None
        steps = np.arange(pattern.rows, dtype=np.int64)
        if not pattern.low.any() and np.array_equal(pattern.high, steps + pattern.high[0]):
            return int(pattern.high[0]), False
        if self.group == 1 and np.array_equal(pattern.low, steps) and np.all(pattern.high == pattern.columns):
            return pattern.columns, True
        return None

    def _ramp_visits(self, height: int, falls: bool, chunks: Ints) -> Ints:
        tile = self.sizes[:, None]
        full = self.rows // tile
        ragged = self.rows - full * tile
        chunk = chunks[None, :]
        if falls:  # the last full tile needs least: count from it upwards
            least = self.weight * (height - (full - 1) * tile)
            last = self.weight * (height - full * tile)
            above = floor_sum(full, chunk, self.weight * tile, least + chunk - 1)
        else:  # ceil(ceil(x / group) / chunk) = ceil(x / (group chunk))
            scale = self.group * chunk
            first = tile + self.group * (height - 1)
            above = floor_sum(full, scale, self.weight * tile, self.weight * first + scale - 1)
            last = self.weight * (self.pattern.columns * np.ones_like(tile))
        return np.asarray(tile * above + ragged * -(-last // chunk))
