"""Tile spaces: the iterations of a loop nest, gathered into classes of tiles that are alike.

A nest of loops over chunks of ranks visits many tiles, but few kinds of them: the last chunk of a rank may be ragged,
and some work belongs to the first or the last iteration of a loop only. A `TileSpace` enumerates those kinds with
their exact counts, for many design points at once, and can also list the kinds in execution order for one point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from einsum.symbols import as_index, chosen
from mappings.program import Array, over_classes

Flags = NDArray[np.bool_]
Side = Literal["first", "last"]


Gather = Callable[[Array], Array]
"""Sums values over the parts of each tile."""
Sizes = Mapping[str, Array]
"""Base rank -> its coordinates in each tile class, (points, classes)."""


@dataclass(frozen=True, eq=False)
class Loop:
    """One temporal loop of a nest: it visits `rank` (a base rank) in chunks of `chunk` coordinates, (points, 1).

    `name` is the rank as the mapping wrote it: the base rank itself, or the outer or inner rank of a partition. The
    iterations of a `grid` loop are instances that run side by side: nothing is reused from one to the next; those of a
    `backward` one start with the last.
    """

    name: str
    rank: str
    chunk: Array
    grid: bool = False
    backward: bool = False


Positions = frozenset[tuple[Loop, Side]]
"""Loops whose first, or last, iterations are told apart from the others."""


class PositionsNeeded(Exception):
    """The tile space has to tell more iterations apart."""

    def __init__(self, positions: Positions) -> None:
        super().__init__(", ".join(sorted(f"{side} {loop.name}" for loop, side in positions)))
        self.positions = positions


@dataclass(frozen=True)
class LoopState:
    """What a tile class says of one loop: trips of the loop, and whether the tile lies in its first or last one.

    Each is (points, classes). `first` and `last` are None when nobody asked for the position in this loop.
    """

    trips: Array
    first: Flags | None
    last: Flags | None


@dataclass(frozen=True)
class TileSpace:
    """The tile classes of a nest.

    loops    outermost first
    counts   tiles of each class, (points, classes)
    states   one LoopState per loop
    sizes    sizes[d][rank]: coordinates of a rank in one iteration of the d outermost loops, (points, classes)
    owner    for a space that cuts another one's tiles: the class of the tile that each class lies in, (classes,)
    """

    loops: tuple[Loop, ...]
    counts: Array
    states: tuple[LoopState, ...]
    sizes: tuple[Mapping[str, Array], ...]
    owner: NDArray[np.intp]
    positions: Positions
    _children: tuple[NDArray[np.int32], ...]
    _trips: tuple[Array, ...]
    _starts: dict[int, NDArray[np.int32]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def build(
        cls,
        loops: Sequence[Loop],
        extents: Mapping[str, Array],
        positions: Positions,
        points: int,
        outer: int | None = None,
    ) -> TileSpace:
        """Enumerate the classes of `loops` over ranks of the given extents, (points, 1) each.

        outer  number of loops whose tile classes are the owners
        """
        shape = (points, 1)
        counts = np.ones(shape)
        sizes: list[dict[str, Array]] = [{rank: np.broadcast_to(extent, shape) for rank, extent in extents.items()}]
        states: list[LoopState] = []
        children: list[NDArray[np.int32]] = []
        trips_before: list[Array] = []
        owner = np.zeros(1, dtype=np.intp)
        for place, loop in enumerate(loops):
            if place == outer:
                owner = np.arange(counts.shape[1])
            parent = sizes[-1][loop.rank]
            trips = np.ceil(parent / loop.chunk)
            sides = frozenset(side for at, side in positions if at is loop)
            segments = _segments(parent, loop.chunk, trips, sides)
            classes = counts.shape[1]
            take = np.repeat(np.arange(classes), len(segments))
            counts = counts[:, take] * _flatten([segment.count for segment in segments])
            used = np.flatnonzero((counts > 0).any(axis=0))
            child = np.full((classes, 3), -1, dtype=np.int32)
            for index, column in enumerate(used):
                child[take[column], list(segments[column % len(segments)].slots)] = index
            children.append(child)
            trips_before.append(trips)
            keep = take[used]
            owner = owner[keep]
            counts = counts[:, used]
            sizes = [{rank: size[:, keep] for rank, size in level.items()} for level in sizes]
            states = [_narrow(state, keep) for state in states]
            sizes.append({**sizes[-1], loop.rank: _flatten([segment.size for segment in segments])[:, used]})
            first, last = (
                _flatten([getattr(segment, side) for segment in segments])[:, used] if side in sides else None
                for side in ("first", "last")
            )
            states.append(LoopState(trips[:, keep], first, last))
        spaces = tuple(loops), counts, tuple(states), tuple(sizes), owner, positions
        return cls(*spaces, tuple(children), tuple(trips_before))

    def replaced(
        self, moved_by: frozenset[str], depth: int, settled: Flags, skipped: frozenset[int], side: Side
    ) -> tuple[Array, Array, Sizes]:
        """Per tile class: how often a copy below `depth` loops is replaced, how often by what was never there before.

        And the sizes of the ranks in the copy, each time.

        moved_by  names of loops that change the copy's content
        settled   classes in which loops inside the tile replace it anyway, so that nothing is left to reuse
        skipped   places of loops that do not count, since the work is gated to one of their iterations
        side      a copy above some of the loops is loaded in their `first` iteration, written back in their `last`

        Raises PositionsNeeded when the space merges classes that have to be told apart.
        """
        shape = self.counts.shape
        weight, fresh = np.ones(shape), np.ones(shape)
        needed: set[tuple[Loop, Side]] = set()

        def at_side(place: int, free: Flags) -> Array:
            state = self.states[place]
            flags = state.first if side == "first" else state.last
            if flags is not None:
                return np.where(free | flags, 1.0, 0.0)
            if not free.all():
                needed.add((self.loops[place], side))
            return np.ones(shape)

        for place in reversed(range(len(self.loops))):
            if place in skipped:
                continue
            single = np.broadcast_to(self.states[place].trips <= 1, shape)
            if place >= depth:
                weight = weight * at_side(place, single)
            elif self.loops[place].name in moved_by or self.loops[place].grid:
                settled = settled | ~single
            else:
                weight = weight * at_side(place, settled | single)
                fresh = fresh * at_side(place, single)
        if needed:
            raise PositionsNeeded(frozenset(needed))
        return weight, weight * fresh, self.sizes[depth]

    def gated(self, gates: Mapping[int, str]) -> Array:
        """The share of work, per tile class, that gates leave: place of a loop -> `first`, `last` or `spread`.

        Work runs in the first or last iteration of a gated loop only, or an equal part in each. Raises PositionsNeeded.
        """
        weight = np.ones(self.counts.shape)
        needed: set[tuple[Loop, Side]] = set()
        for place, side in gates.items():
            state = self.states[place]
            if side == "spread":
                weight = weight / state.trips
                continue
            flags = state.first if side == "first" else state.last
            if flags is not None:
                weight = weight * flags
            elif (state.trips > 1).any():
                needed.add((self.loops[place], "first" if side == "first" else "last"))
        if needed:
            raise PositionsNeeded(frozenset(needed))
        return weight

    def worked(self, skipped: frozenset[int]) -> Sizes:
        """Sizes of the ranks in a tile, for work that is gated in the loops at the skipped places."""
        del skipped
        return self.sizes[-1]

    def within(self, loops: Sequence[Loop]) -> tuple[TileSpace, Gather]:
        """The space in which work under `loops` is counted, and how its values become values per tile.

        Loops inside the tiles are cut into classes of their own, whose values are summed over each tile.
        """
        if all(loop in self.loops for loop in loops):
            return self, lambda values: values
        points = self.counts.shape[0]
        extents = {rank: size[:, :1] for rank, size in self.sizes[0].items()}
        inside = TileSpace.build(loops, extents, self.positions, points, len(self.loops))
        members = [np.flatnonzero(inside.owner == tile) for tile in range(self.counts.shape[1])]
        # Parts of a class per tile of its owner; a class that a point does not have counts for nothing.
        parts = inside.counts / np.maximum(self.counts[:, inside.owner], 1e-300)

        def gather(values: Array) -> Array:
            spread = np.broadcast_to(values * parts, inside.counts.shape)
            return np.stack([over_classes(spread[:, cut]) for cut in members], axis=1)

        return inside, gather

    def ends(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Classes of the first and of the last tile, (points,) each."""
        points = self.counts.shape[0]
        first, last = np.zeros(points), np.zeros(points)
        for child, trips in zip(self._children, self._trips, strict=True):
            wide = np.broadcast_to(trips, (points, trips.shape[1]))
            several = np.take_along_axis(wide, as_index(first)[:, None], axis=1)[:, 0] > 1
            first = np.where(several, chosen(child[:, 0], first), chosen(child[:, 2], first))
            last = chosen(child[:, 2], last)
        return as_index(first), as_index(last)

    def kept_share(self, ranks: frozenset[str]) -> Array | float:
        """The part of a tile's points over these base ranks that no mask leaves out: all of them."""
        del ranks
        return 1.0

    def order(self, point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
        """Class of each of an instance's tiles in execution order (see `program.TileOrder`)."""
        depth = sum(loop.grid for loop in self.loops)
        if point not in self._starts:
            self._starts[point] = self._expanded(np.zeros(1, dtype=np.int32), point, range(depth), None)
        start = self._starts[point][instance : instance + 1]
        return self._expanded(start, point, range(depth, len(self.loops)), limit)

    def instances(self) -> Array:
        """Iterations of the grid loops, (points,)."""
        grid = [loop for loop in self.loops if loop.grid]
        extents = {rank: size[:, :1] for rank, size in self.sizes[0].items()}
        return over_classes(TileSpace.build(grid, extents, frozenset(), self.counts.shape[0]).counts)

    def _expanded(
        self, sequence: NDArray[np.int32], point: int, places: Sequence[int], limit: int | None
    ) -> NDArray[np.int32]:
        """Classes after the loops at some places, from those before them."""
        for place in places:
            child, trips = self._children[place], self._trips[place]
            row = point if trips.shape[0] > 1 else 0
            lengths = trips[row][sequence].astype(np.int64)
            if limit is not None:
                wanted = int(np.searchsorted(np.cumsum(lengths), limit)) + 1
                sequence, lengths = sequence[:wanted], lengths[:wanted].copy()
                lengths[-1] = min(lengths[-1], max(limit - int(lengths[:-1].sum()), 1)) if lengths.size else 0
            ends = np.cumsum(lengths)
            index = np.arange(int(ends[-1])) - np.repeat(ends - lengths, lengths)
            parents = np.repeat(sequence, lengths)
            total = np.repeat(trips[row][sequence].astype(np.int64), lengths)
            slot = np.where(index == total - 1, 2, np.where(index == 0, 0, 1))
            sequence = child[parents, slot]
        return sequence


@dataclass(frozen=True)
class _Segment:
    """Iterations of a loop that are alike: those in `slots` (0: first of several, 1: middle, 2: last or only one)."""

    slots: tuple[int, ...]
    count: Array
    size: Array
    first: Flags
    last: Flags


def _segments(parent: Array, chunk: Array, trips: Array, sides: frozenset[str]) -> list[_Segment]:
    """The kinds of iterations of a loop over `parent` coordinates: merged where nothing asks to tell them apart."""
    remainder = parent - (trips - 1) * chunk
    single = trips == 1
    full = np.minimum(chunk, parent)
    no = np.zeros(parent.shape, dtype=bool)
    one = np.ones(parent.shape)
    ragged = not (remainder == full).all()
    if not sides and not ragged:
        return [_Segment((0, 1, 2), trips, full, no, no)]
    if "first" not in sides:
        return [_Segment((0, 1), trips - 1, full, no, no), _Segment((2,), one, remainder, single, ~no)]
    if "last" not in sides and not ragged:
        # An only iteration takes slot 2; slot 0 and it are never both used.
        return [
            _Segment((0,), np.where(single, 0.0, 1.0), full, ~no, no),
            _Segment((1, 2), np.where(single, 1.0, trips - 1), full, single, no),
        ]
    return [
        _Segment((0,), np.where(single, 0.0, 1.0), full, ~no, no),
        _Segment((1,), np.maximum(trips - 2, 0.0), full, no, no),
        _Segment((2,), one, remainder, single, ~no),
    ]


def _flatten(columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Interleave (points, classes) arrays, one per segment, into (points, classes x segments)."""
    return np.stack(columns, axis=-1).reshape(columns[0].shape[0], -1)


def _narrow(state: LoopState, keep: NDArray[np.intp]) -> LoopState:
    return LoopState(
        state.trips[:, keep],
        None if state.first is None else state.first[:, keep],
        None if state.last is None else state.last[:, keep],
    )
