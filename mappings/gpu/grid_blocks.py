"""The thread blocks that the grid loops of a nest make, in launch order, and the part of each rank that a block has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from einsum.errors import SpecError
from mappings.mask import Band, Mask
from mappings.tiles import Loop

Coordinates = NDArray[np.int64]
MOST_BLOCKS = 1 << 24


@dataclass(frozen=True)
class GridBlocks:
    """Blocks of a grid: base rank -> first coordinate and number of coordinates, (blocks,), or (1,) where all have the
    whole rank. `chunk` is that of the innermost grid loop over a rank."""

    count: int
    start: Mapping[str, Coordinates]
    size: Mapping[str, Coordinates]
    chunk: Mapping[str, int]

    @classmethod
    def of(cls, loops: Sequence[Loop], extents: Mapping[str, int]) -> GridBlocks:
        """Enumerate the iterations of grid loops, outermost first; the last chunk of a rank may be ragged."""
        start = {rank: np.zeros(1, dtype=np.int64) for rank in extents}
        size = {rank: np.full(1, extent, dtype=np.int64) for rank, extent in extents.items()}
        chunks: dict[str, int] = {}
        count = 1
        for loop in loops:
            rank, chunk = loop.rank, int(loop.chunk.flat[0])
            trips = np.broadcast_to(-(-size[rank] // chunk), (count,))
            total = int(trips.sum())
            if total > MOST_BLOCKS:
                raise SpecError(f"the grid has {total:,} thread blocks, at most {MOST_BLOCKS:,} can be followed")
            parent = np.repeat(np.arange(count), trips)
            step = np.arange(total) - np.repeat(np.cumsum(trips) - trips, trips)
            if loop.backward:
                step = trips[parent] - 1 - step
            for other in chunks:
                start[other], size[other] = start[other][parent], size[other][parent]
            if rank not in chunks:
                start[rank], size[rank] = np.zeros(total, dtype=np.int64), np.full(total, extents[rank])
            start[rank] = start[rank] + step * chunk
            size[rank] = np.minimum(chunk, size[rank] - step * chunk)
            chunks[rank], count = chunk, total
        return cls(count, start, size, chunks)

    def several(self, rank: str) -> bool:
        """Whether blocks have different parts of a rank."""
        return rank in self.chunk and bool((self.start[rank] != self.start[rank][0]).any())

    def key(self, ranks: Sequence[str]) -> Coordinates:
        """A number for each block, equal where the blocks have the same part of all these ranks, (blocks,)."""
        key = np.zeros(self.count, dtype=np.int64)
        for rank in ranks:
            place = self.start[rank] // self.chunk[rank]
            key = key * (int(place.max()) + 1) + place
        return key


def _only_band(mask: Mask) -> Band:
    if len(mask.bands) != 1:
        raise SpecError(
            f"the mask keeps {len(mask.bands)} bands of '{mask.column}'; a thread block walks over one"
        )
    return mask.bands[0]


@dataclass(frozen=True)
class Walk:
    """The chunks of a column rank that the blocks visit under a mask: those that keep a point for a row of the block.

    In chunks of `chunk` coordinates, (blocks,) each: from `begin` to `end`; from `inner` to `outer` all is kept.
    """

    rank: str
    chunk: int
    extent: int
    begin: Coordinates
    inner: Coordinates
    outer: Coordinates
    end: Coordinates

    @classmethod
    def of(cls, blocks: GridBlocks, mask: Mask, chunk: int, extent: int) -> Walk:
        """The walk of each block over the mask's columns; its rows are those that the block has."""
        band = _only_band(mask)
        first = np.broadcast_to(blocks.start[mask.row], (blocks.count,))
        last = first + blocks.size[mask.row] - 1
        chunks = -(-extent // chunk)
        begin, end = band.low[first] // chunk, -(-band.high[last] // chunk)
        end = np.maximum(end, begin)
        outer = np.where(band.high[first] >= extent, chunks, band.high[first] // chunk)
        inner = np.clip(-(-band.low[last] // chunk), begin, end)
        return cls(mask.column, chunk, extent, begin, inner, np.clip(outer, inner, end), end)

    def parts(self) -> list[tuple[Coordinates, Coordinates, bool]]:
        """Runs of chunks (first, one past the last, whether points of them are left out); none that no block has."""
        runs = [(self.begin, self.inner, True), (self.inner, self.outer, False), (self.outer, self.end, True)]
        return [run for run in runs if (run[1] > run[0]).any()]

    def columns(self, first: Coordinates, last: Coordinates) -> tuple[Coordinates, Coordinates]:
        """Coordinates of a run of chunks."""
        low = np.minimum(first * self.chunk, self.extent)
        return low, np.maximum(np.minimum(last * self.chunk, self.extent), low)
