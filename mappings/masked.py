"""Tile spaces under a mask that is known before run time: tiles that it leaves out are not visited.

A mask relates two ranks: at each coordinate of one (the row) it keeps an interval of the other (the column), with
bounds that never fall from row to row (causal, windows, block diagonals). Every visited tile is its own class, so that
counts, reuse and ragged ends are exact; one design point at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from einsum.errors import SpecError
from mappings.program import Array
from mappings.tiles import Flags, Loop, LoopState, Side, TileSpace

MAX_TILES = 1_000_000
"""Visited tiles of one masked nest; each takes a few hundred bytes while it is lowered."""

Coordinates = NDArray[np.int64]


@dataclass(frozen=True)
class Mask:
    """Columns low[r] <= c < high[r] are kept at row r; both bounds never fall from row to row."""

    row: str
    column: str
    low: Coordinates
    high: Coordinates

    @classmethod
    def from_intervals(cls, row: str, column: str, low: Coordinates, high: Coordinates) -> Mask:
        """A mask from its rows' intervals. SpecError when the bounds fall somewhere."""
        high = np.maximum(low, high)
        empty = high == low
        if empty.any() and not empty.all():  # rows that keep nothing take over their neighbour's bounds
            place = np.where(empty, 0, np.arange(low.size))
            place = np.maximum.accumulate(place)
            first = int(np.argmax(~empty))
            bound = np.where(np.arange(low.size) < first, low[first], high[place])
            low, high = np.where(empty, bound, low), np.where(empty, bound, high)
        if (np.diff(low) < 0).any() or (np.diff(high) < 0).any():
            raise SpecError(
                f"the kept interval of '{column}' moves back as '{row}' grows; masks are mapped whose bounds never fall"
            )
        return cls(row, column, low, high)

    def rows_of(self, start: Coordinates, size: Coordinates) -> tuple[Coordinates, Coordinates]:
        """First and one past the last row that keep any of the columns start ... start + size - 1."""
        return (
            np.searchsorted(self.high, start, side="right"),
            np.searchsorted(self.low, start + size, side="left"),
        )

    def visited(self, row: Coordinates, rows: Coordinates, column: Coordinates, columns: Coordinates) -> Flags:
        """Whether tiles of `rows` x `columns` coordinates from (row, column) on keep any point."""
        first, end = self.rows_of(column, columns)
        return np.asarray(np.maximum(row, first) < np.minimum(row + rows, end))

    def kept(self, row: Coordinates, rows: Coordinates, column: Coordinates, columns: Coordinates) -> Coordinates:
        """Points that tiles of `rows` x `columns` coordinates from (row, column) on keep."""
        end = row + rows
        limits = column, column + columns
        return self._clipped(self.high, row, end, *limits) - self._clipped(self.low, row, end, *limits)

    @staticmethod
    def _clipped(
        bounds: Coordinates, row: Coordinates, end: Coordinates, least: Coordinates, most: Coordinates
    ) -> Coordinates:
        """Sum over rows row ... end - 1 of the bound, clipped to least ... most; the bounds never fall."""
        sums = np.concatenate([[0], np.cumsum(bounds)])
        below = np.clip(np.searchsorted(bounds, least, side="left"), row, end)
        above = np.clip(np.searchsorted(bounds, most, side="right"), row, end)
        above = np.maximum(below, above)
        return np.asarray((below - row) * least + (sums[above] - sums[below]) + (end - above) * most)


@dataclass(frozen=True)
class MaskedTileSpace:
    """The visited tiles of a nest, each a class of its own (see `TileSpace`, whose part it plays).

    prefix  outermost loops over neither of the mask's ranks: they repeat the tiles as they are
    index   index[k]: iteration of loop k in which each tile lies
    """

    loops: tuple[Loop, ...]
    counts: Array
    states: tuple[LoopState, ...]
    sizes: tuple[Mapping[str, Array], ...]
    prefix: int
    index: tuple[Coordinates, ...]
    shares: Array
    mask: Mask

    @classmethod
    def build(cls, loops: Sequence[Loop], extents: Mapping[str, Array], mask: Mask) -> MaskedTileSpace:
        """Enumerate the tiles that a mask leaves to visit. SpecError when there are more than MAX_TILES."""
        ranks = (mask.row, mask.column)
        prefix = next((place for place, loop in enumerate(loops) if loop.rank in ranks), len(loops))
        dense = TileSpace.build(loops[:prefix], extents, frozenset(), 1)
        if dense.counts.shape[1] > 1:
            raise SpecError("chunks of loops outside the mask's ranks have to divide their ranks evenly")
        walk = _Walk(extents, mask)
        for loop, state in zip(loops[:prefix], dense.states, strict=True):
            walk.repeat(loop, state)
        for loop in loops[prefix:]:
            walk.expand(loop)
        shares = walk.finish({loop.rank for loop in loops})
        return cls(
            tuple(loops),
            np.full((1, walk.tiles), dense.counts[0, 0]),
            tuple(walk.states),
            tuple(walk.levels),
            prefix,
            tuple(walk.index),
            shares,
            mask,
        )

    def kept_share(self, ranks: frozenset[str]) -> Array | float:
        """The part of each tile's points over these base ranks that the mask keeps."""
        return self.shares if {self.mask.row, self.mask.column} <= ranks else 1.0

    def replaced(
        self, moved_by: frozenset[str], depth: int, settled: Flags, skipped: frozenset[int], side: Side
    ) -> tuple[Array, Array]:
        """See `TileSpace.replaced`: a copy is replaced where the loops that move it stand elsewhere than a tile ago."""
        shape = self.counts.shape
        if skipped:  # gated work runs once per iteration of the loops around, on a tile of its own each time
            return np.ones(shape), np.ones(shape)
        places = [k for k in range(self.prefix, depth) if self.loops[k].name in moved_by]
        around = list(range(self.prefix, depth))
        moved = np.where(settled, self._changes(around, side), self._changes(places, side))
        edge = 0 if side == "first" else -1
        outside = any(self.loops[k].name in moved_by and (self.states[k].trips > 1).any() for k in range(self.prefix))
        weight = moved.astype(float)
        if outside:
            weight[0, edge] = 1.0
        elif not weight.any():
            weight[0, edge] = 1.0 / self.counts[0, edge]  # the same tile all along: loaded once
        return weight, weight * self._seen_first(places)

    def order(self, point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
        """Class of each tile in execution order (see `program.TileOrder`)."""
        del point, instance
        tiles = self.counts.shape[1]
        times = int(self.counts[0, 0])
        if limit is not None:
            times = min(times, -(-limit // tiles))
        return np.tile(np.arange(tiles, dtype=np.int32), times)[:limit]

    def _changes(self, places: Sequence[int], side: Side) -> Flags:
        """(1, tiles): whether a loop at one of the places stands elsewhere in the tile before (or after, for last)."""
        changed = np.zeros(self.counts.shape[1], dtype=bool)
        for place in places:
            neighbour = np.roll(self.index[place], 1 if side == "first" else -1)
            changed |= self.index[place] != neighbour
        return changed[None, :]

    def _seen_first(self, places: Sequence[int]) -> Array:
        """(1, tiles): 1 in the first tile for each combination of iterations of the loops at the places."""
        tiles = self.counts.shape[1]
        label = np.zeros(tiles, dtype=np.int64)
        for place in places:
            label = label * (int(self.index[place].max()) + 1) + self.index[place]
        first = np.zeros(tiles)
        first[np.unique(label, return_index=True)[1]] = 1.0
        return first[None, :]


Space = TileSpace | MaskedTileSpace


class _Walk:
    """Tiles while loop after loop cuts them, those without a kept point dropped at once."""

    def __init__(self, extents: Mapping[str, Array], mask: Mask) -> None:
        self.mask = mask
        self.start = {rank: np.zeros(1, dtype=np.int64) for rank in extents}
        self.size = {rank: extent.reshape(-1)[:1].astype(np.int64) for rank, extent in extents.items()}
        self.states: list[LoopState] = []
        self.index: list[Coordinates] = []
        self.levels: list[dict[str, Array]] = [self._level()]

    @property
    def tiles(self) -> int:
        return next(iter(self.size.values())).size

    def _level(self) -> dict[str, Array]:
        return {rank: size[None, :].astype(float) for rank, size in self.size.items()}

    def repeat(self, loop: Loop, state: LoopState) -> None:
        """A loop that repeats the tiles as they are."""
        chunk = np.minimum(loop.chunk.reshape(-1)[:1].astype(np.int64), self.size[loop.rank])
        self.size[loop.rank] = chunk
        self.states.append(LoopState(state.trips[:, :1], None, None))
        self.index.append(np.zeros(1, dtype=np.int64))
        self.levels.append(self._level())

    def expand(self, loop: Loop) -> None:
        """Cut every tile into the chunks of a loop."""
        chunk = int(loop.chunk.reshape(-1)[0])
        trips = -(-self.size[loop.rank] // chunk)
        total = int(trips.sum())
        if total > 4 * MAX_TILES:
            raise SpecError(f"the masked nest has more than {MAX_TILES:,} tiles; use larger chunks of '{loop.name}'")
        parent = np.repeat(np.arange(trips.size), trips)
        step = np.arange(total) - np.repeat(np.cumsum(trips) - trips, trips)
        start = {rank: values[parent] for rank, values in self.start.items()}
        size = {rank: values[parent] for rank, values in self.size.items()}
        start[loop.rank] = start[loop.rank] + step * chunk
        size[loop.rank] = np.minimum(chunk, size[loop.rank] - step * chunk)
        row, column = self.mask.row, self.mask.column
        live = np.flatnonzero(self.mask.visited(start[row], size[row], start[column], size[column]))
        if live.size > MAX_TILES:
            raise SpecError(f"the masked nest has more than {MAX_TILES:,} tiles; use larger chunks of '{loop.name}'")
        if not live.size:
            raise SpecError("the mask keeps no point")
        parent, step = parent[live], step[live]
        self.start = {rank: values[live] for rank, values in start.items()}
        self.size = {rank: values[live] for rank, values in size.items()}
        self.states = [_taken(state, parent) for state in self.states]
        self.index = [values[parent] for values in self.index]
        self.levels = [{rank: values[:, parent] for rank, values in level.items()} for level in self.levels]
        first = np.concatenate([[True], parent[1:] != parent[:-1]])
        last = np.concatenate([parent[1:] != parent[:-1], [True]])
        siblings = np.bincount(parent)[parent]
        self.states.append(LoopState(siblings[None, :].astype(float), first[None, :], last[None, :]))
        self.index.append(step)
        self.levels.append(self._level())

    def finish(self, cut: set[str]) -> Array:
        """Shrink an uncut rank of the mask to what some point of the tile keeps; return the kept part of each tile."""
        mask = self.mask
        if mask.column not in cut:
            first = mask.low[self.start[mask.row]]
            end = mask.high[self.start[mask.row] + self.size[mask.row] - 1]
            self._shrink(mask.column, first, end)
        if mask.row not in cut:
            self._shrink(mask.row, *mask.rows_of(self.start[mask.column], self.size[mask.column]))
        args = [side[rank] for rank in (mask.row, mask.column) for side in (self.start, self.size)]
        kept = mask.kept(*args)
        return (kept / (args[1] * args[3]))[None, :]

    def _shrink(self, rank: str, first: Coordinates, end: Coordinates) -> None:
        self.start[rank] = np.broadcast_to(first, (self.tiles,)).astype(np.int64)
        self.size[rank] = np.broadcast_to(np.maximum(end - first, 1), (self.tiles,)).astype(np.int64)
        self.levels[-1] = {**self.levels[-1], rank: self.size[rank][None, :].astype(float)}


def _taken(state: LoopState, parent: NDArray[np.intp]) -> LoopState:
    def flags(values: Flags | None) -> Flags | None:
        return None if values is None else values[:, parent]

    return LoopState(state.trips[:, parent], flags(state.first), flags(state.last))
