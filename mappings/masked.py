"""Tile spaces under a mask that is known before run time: tiles that it leaves out are not visited.

A mask relates two ranks: at each coordinate of one (the row) it keeps an interval of the other (the column), with
bounds that never fall from row to row (causal, windows, block diagonals). Every visited tile is its own class, so that
counts, reuse and ragged ends are exact; one design point at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.cascade import Cascade
from einsum.conditions import Comparison
from einsum.errors import SpecError
from einsum.masks import mask_intervals
from mappings.program import Array
from mappings.tiles import Flags, Gather, Loop, LoopState, Side, TileSpace

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
    def of(cls, cascade: Cascade, env: Mapping[str, Any]) -> Mask | None:
        """The mask that a cascade's conditions make, None without any. SpecError for one that cannot be mapped.

        All Einsums over both of its ranks have to be under the same conditions, known before run time.
        """
        clauses = [condition for einsum in cascade.einsums for condition in einsum.conditions]
        late = next((condition for condition in clauses if not isinstance(condition, Comparison)), None)
        if late is not None:
            raise SpecError(
                f"the condition '{late}' is known only at run time; a nest of loops cannot be costed under it"
            )
        conditions = dict.fromkeys(clauses)
        if not conditions:
            return None
        named = {name for condition in conditions for name in condition.names if name in cascade.ranks}
        bases = [rank for rank in cascade.ranks if rank in {cascade.base(name) for name in named}]
        if len(bases) != 2:
            raise SpecError(f"masks of two ranks can be mapped, the conditions relate {', '.join(bases)}")
        for einsum in cascade.einsums:
            over = {cascade.base(rank) for rank in einsum.ranks}
            if set(bases) <= over and set(einsum.conditions) != set(conditions):
                raise SpecError(f"{einsum.name} is under other conditions than the rest of cascade '{cascade.name}'")
        failure: SpecError | None = None
        for row, column in (bases, bases[::-1]):
            try:
                intervals = mask_intervals(cascade, row, column, env, conditions)
                if not intervals.contiguous:
                    raise SpecError(f"the mask keeps several intervals of '{column}' for one '{row}'")
                return cls.from_intervals(row, column, intervals.lo, intervals.hi)
            except SpecError as error:
                failure = failure or error
        assert failure is not None
        raise failure

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

    owner   the tile of the outer loops that each tile lies in, for a space that cuts another one's tiles
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
    owner: NDArray[np.intp]
    mask: Mask

    @classmethod
    def build(
        cls, loops: Sequence[Loop], extents: Mapping[str, Array], mask: Mask, outer: int | None = None
    ) -> MaskedTileSpace:
        """Enumerate the tiles that a mask leaves to visit. SpecError when there are more than MAX_TILES.

        outer  number of loops whose tiles are the owners
        """
        ranks = (mask.row, mask.column)
        prefix = next((place for place, loop in enumerate(loops) if loop.rank in ranks), len(loops))
        dense = TileSpace.build(loops[:prefix], extents, frozenset(), 1)
        if dense.counts.shape[1] > 1:
            raise SpecError("chunks of loops outside the mask's ranks have to divide their ranks evenly")
        walk = _Walk(extents, mask)
        for loop, state in zip(loops[:prefix], dense.states, strict=True):
            walk.repeat(loop, state)
        for place, loop in enumerate(loops[prefix:], start=prefix):
            if place == outer:
                walk.own()
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
            walk.owner,
            mask,
        )

    def gated(self, gates: Mapping[int, str]) -> Array:
        """See `TileSpace.gated`: first and last are those of the tiles that agree in all other loops."""
        tiles = self.counts.shape[1]
        if not gates:
            return np.ones((1, tiles))
        label = self._label([place for place in range(self.prefix, len(self.loops)) if place not in gates])
        sides = set(gates.values())
        if "spread" in sides:
            return (1.0 / np.bincount(label)[label])[None, :]
        order = label if sides == {"first"} else label[::-1]
        chosen = np.zeros(tiles)
        chosen[np.unique(order, return_index=True)[1]] = 1.0
        return (chosen if sides == {"first"} else chosen[::-1])[None, :]

    def within(self, loops: Sequence[Loop]) -> tuple[MaskedTileSpace, Gather]:
        """See `TileSpace.within`: loops inside the tiles are enumerated too, and summed over each tile."""
        if all(loop in self.loops for loop in loops):
            return self, lambda values: values
        tiles = self.counts.shape[1]
        extents = {rank: size[:, :1] for rank, size in self.sizes[0].items()}
        inside = MaskedTileSpace.build(loops, extents, self.mask, len(self.loops))
        parts = inside.counts.shape[1]

        def gather(values: Array) -> Array:
            weights = np.broadcast_to(values, (1, parts))[0]
            return np.bincount(inside.owner, weights=weights, minlength=tiles)[None, :].astype(np.float64)

        return inside, gather

    def ends(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Classes of the first and of the last tile, (1,) each."""
        return np.zeros(1, dtype=np.intp), np.full(1, self.counts.shape[1] - 1)

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
        places = [k for k in range(self.prefix, depth) if self.loops[k].name in moved_by or self.loops[k].grid]
        around = list(range(self.prefix, depth))
        moved = np.where(settled, self._changes(around, side), self._changes(places, side))
        edge = 0 if side == "first" else -1
        outside = any(
            (self.loops[k].name in moved_by or self.loops[k].grid) and (self.states[k].trips > 1).any()
            for k in range(self.prefix)
        )
        weight = moved.astype(float)
        if outside:
            weight[0, edge] = 1.0
        elif not weight.any():
            weight[0, edge] = 1.0 / self.counts[0, edge]  # the same tile all along: loaded once
        return weight, weight * self._seen(places, side)

    def order(self, point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
        """Class of each of an instance's tiles in execution order (see `program.TileOrder`)."""
        del point
        if any(loop.grid for loop in self.loops):
            blocks = self._blocks()
            place = instance % (int(blocks[-1]) + 1)
            return np.arange(*np.searchsorted(blocks, [place, place + 1]), dtype=np.int32)[:limit]
        tiles = self.counts.shape[1]
        times = int(self.counts[0, 0])
        if limit is not None:
            times = min(times, -(-limit // tiles))
        return np.tile(np.arange(tiles, dtype=np.int32), times)[:limit]

    def instances(self) -> Array:
        """Iterations of the grid loops that have any tile, (1,)."""
        if not any(loop.grid for loop in self.loops):
            return np.ones(1)
        return self.counts[:, 0] * (int(self._blocks()[-1]) + 1)

    def _blocks(self) -> Coordinates:
        """The grid iteration in which each tile lies, counted from 0 in the order of execution."""
        return self._label([place for place in range(self.prefix, len(self.loops)) if self.loops[place].grid])

    def _changes(self, places: Sequence[int], side: Side) -> Flags:
        """(1, tiles): whether a loop at one of the places stands elsewhere in the tile before (or after, for last)."""
        changed = np.zeros(self.counts.shape[1], dtype=bool)
        for place in places:
            neighbour = np.roll(self.index[place], 1 if side == "first" else -1)
            changed |= self.index[place] != neighbour
        return changed[None, :]

    def _seen(self, places: Sequence[int], side: Side) -> Array:
        """(1, tiles): 1 in the first (or last) tile for each combination of iterations of the loops at the places."""
        label = self._label(places)
        found = np.zeros(self.counts.shape[1])
        found[np.unique(label if side == "first" else label[::-1], return_index=True)[1]] = 1.0
        return (found if side == "first" else found[::-1])[None, :]

    def _label(self, places: Sequence[int]) -> Coordinates:
        """A number for each tile that tells apart the iterations of the loops at the places, 0, 1, 2, ..."""
        label = np.zeros(self.counts.shape[1], dtype=np.int64)
        for place in places:
            label = label * (int(self.index[place].max()) + 1) + self.index[place]
        return np.unique(label, return_inverse=True)[1].reshape(-1)


Space = TileSpace | MaskedTileSpace


class _Walk:
    """Tiles while loop after loop cuts them, those without a kept point dropped at once."""

    def __init__(self, extents: Mapping[str, Array], mask: Mask) -> None:
        self.mask = mask
        self.start = {rank: np.zeros(1, dtype=np.int64) for rank in extents}
        self.size = {rank: extent.reshape(-1)[:1].astype(np.int64) for rank, extent in extents.items()}
        self.states: list[LoopState] = []
        self.index: list[Coordinates] = []
        self.owner: NDArray[np.intp] = np.zeros(1, dtype=np.intp)
        self.levels: list[dict[str, Array]] = [self._level()]

    @property
    def tiles(self) -> int:
        return next(iter(self.size.values())).size

    def _level(self) -> dict[str, Array]:
        return {rank: size[None, :].astype(float) for rank, size in self.size.items()}

    def own(self) -> None:
        """Make the tiles so far the owners of those to come."""
        self.owner = np.arange(self.tiles)

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
        self.owner = self.owner[parent]
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
