"""Tile spaces under a mask that is known before run time: tiles that it leaves out are not visited.

Every visited tile is its own class, so that counts, reuse and ragged ends are exact; one design point at a time. A rank
of the mask that no loop cuts has in each tile the coordinates that some kept point of the tile needs, and a copy that
stays over several tiles those that any of them needs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from einsum.errors import SpecError
from mappings.mask import Coordinates, Mask
from mappings.program import Array
from mappings.stays import Needed, Needs, Stays
from mappings.tiles import Flags, Gather, Loop, LoopState, Side, Sizes, TileSpace

MAX_TILES = 1_000_000
"""Visited tiles of one masked nest; each takes a few hundred bytes while it is lowered."""


@dataclass(frozen=True)
class MaskedTileSpace:
    """The visited tiles of a nest, each a class of its own (see `TileSpace`, whose part it plays).

    owner   the tile of the outer loops that each tile lies in, for a space that cuts another one's tiles
    prefix  outermost loops over neither of the mask's ranks, in even chunks: they repeat the tiles as they are
    index   index[k]: iteration of loop k in which each tile lies
    needed  what the tiles need of a rank of the mask that no loop cuts, where loops cut the other one
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
    needed: Needed | None

    @classmethod
    def build(
        cls, loops: Sequence[Loop], extents: Mapping[str, Array], mask: Mask, outer: int | None = None
    ) -> MaskedTileSpace:
        """Enumerate the tiles that a mask leaves to visit. SpecError when there are more than MAX_TILES.

        outer  number of loops whose tiles are the owners
        """
        prefix = next((place for place, loop in enumerate(loops) if loop.rank in (mask.row, mask.column)), len(loops))
        dense = TileSpace.build(loops[:prefix], extents, frozenset(), 1)
        while dense.counts.shape[1] > 1:  # the last chunk of a rank is smaller than the others
            prefix -= 1
            dense = TileSpace.build(loops[:prefix], extents, frozenset(), 1)
        walk = _Walk(extents, mask)
        for loop, state in zip(loops[:prefix], dense.states, strict=True):
            walk.repeat(loop, state)
        for place, loop in enumerate(loops[prefix:], start=prefix):
            if place == outer:
                walk.own()
            walk.expand(loop)
        if not mask.bands:
            raise SpecError("the mask keeps no point")
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
            walk.needed,
        )

    def gated(self, gates: Mapping[int, str]) -> Array:
        """See `TileSpace.gated`: first and last are those of the tiles that agree in all other loops."""
        tiles = self.counts.shape[1]
        label = self._label([place for place in range(self.prefix, len(self.loops)) if place not in gates])
        sides = {side for place, side in gates.items() if place >= self.prefix}
        share = 1 / self._repeats(gates)
        if "spread" in sides:
            return (share / np.bincount(label)[label])[None, :]
        order = label[::-1] if "last" in sides else label
        chosen = np.zeros(tiles)
        chosen[np.unique(order, return_index=True)[1]] = share
        return (chosen[::-1] if "last" in sides else chosen)[None, :]

    def worked(self, skipped: frozenset[int]) -> Sizes:
        """See `TileSpace.worked`: gated work does at once what all tiles that it skips need."""
        label = self._label([place for place in range(self.prefix, len(self.loops)) if place not in skipped])
        return self._sized(-1, None if self.needed is None else self.needed.united(label))

    def within(self, loops: Sequence[Loop]) -> tuple[MaskedTileSpace, Gather]:
        """See `TileSpace.within`: loops inside the tiles are enumerated too, and summed over each tile."""
        if all(loop in self.loops for loop in loops):
            return self, lambda values: values
        tiles = self.counts.shape[1]
        extents = {rank: size[:, :1] for rank, size in self.sizes[0].items()}
        inside = MaskedTileSpace.build(loops, extents, self.mask, len(self.loops))
        parts = inside.counts.shape[1]
        repeats = inside.counts[0, 0] / self.counts[0, 0]

        def gather(values: Array) -> Array:
            weights = np.broadcast_to(values * repeats, (1, parts))[0]
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
    ) -> tuple[Array, Array, Sizes]:
        """See `TileSpace.replaced`: a copy is replaced where the loops that move it stand elsewhere than a tile ago.

        Gated work is followed over the first of the tiles that agree in all loops but the skipped ones.
        """
        counted = [k for k in range(self.prefix, len(self.loops)) if k not in skipped]
        group = self._label(counted)
        tiles = np.sort(np.unique(group, return_index=True)[1])
        tiles = tiles if side == "first" else tiles[::-1]
        visit = np.empty(tiles.size, np.intp)
        visit[group[tiles]] = np.arange(tiles.size)
        visit = visit[group]
        moving = [k for k in counted if k < depth and self._moves(k, moved_by)]
        uncut = self.needed is not None and self.needed.rank in moved_by
        around = [
            (k < depth and self._moves(k, moved_by), self._repeats({k}))
            for k in range(self.prefix)
            if k not in skipped and self._repeats({k}) > 1
        ]
        mover = max((place for place, (moves, _) in enumerate(around) if moves), default=-1)
        stays = Stays.of(
            self._label(moving)[tiles],
            np.broadcast_to(settled, self.counts.shape)[0, tiles],
            Needs(self.needed, visit) if uncut and self.needed is not None else None,
            prod(trips for _, trips in around[mover + 1 :]),
            prod(trips for moves, trips in around if not moves),
        )
        size = None if stays.size is None else stays.size[visit]
        return stays.loads[visit][None, :], stays.fresh[visit][None, :], self._sized(depth, size)

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

    def _moves(self, place: int, moved_by: frozenset[str]) -> bool:
        """Whether a loop changes a copy, or runs on another instance that shares none."""
        return self.loops[place].name in moved_by or self.loops[place].grid

    def _repeats(self, places: Collection[int]) -> float:
        """Iterations of those loops, among these, that repeat all tiles."""
        return prod(float(self.states[place].trips[0, 0]) for place in places if place < self.prefix)

    def _sized(self, depth: int, needed: Array | None) -> Sizes:
        """Sizes below `depth` loops with so many coordinates of the uncut rank."""
        cut = {loop.rank for loop in self.loops}
        sizes = {**self.sizes[depth]}
        for rank in {self.mask.row, self.mask.column} - cut:
            sizes[rank] = self.sizes[-1][rank] if needed is None else needed[None, :]
        return sizes

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
        self.needed: Needed | None = None

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
        """Leave of an uncut rank of the mask what some point of the tile needs; return the kept part of each tile."""
        mask = self.mask
        args = [side[rank] for rank in (mask.row, mask.column) for side in (self.start, self.size)]
        kept = mask.kept(*args)
        found = []
        if mask.column not in cut:
            found.append(Needed(mask.column, *mask.columns_of(*args[:2])))
        if mask.row not in cut:
            found.append(Needed(mask.row, *mask.rows_of(*args[2:])))
        for needed in found:
            size = needed.united(np.arange(self.tiles))
            self.levels[-1] = {**self.levels[-1], needed.rank: size[None, :]}
        self.needed = found[0] if len(found) == 1 else None
        last = self.levels[-1]
        return kept[None, :] / (last[mask.row] * last[mask.column])


def _taken(state: LoopState, parent: NDArray[np.intp]) -> LoopState:
    def flags(values: Flags | None) -> Flags | None:
        return None if values is None else values[:, parent]

    return LoopState(state.trips[:, parent], flags(state.first), flags(state.last))
