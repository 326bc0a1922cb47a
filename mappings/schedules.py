"""The best schedule of one run on some memories: loop orders, tile sizes and placements, counted in closed form.

Each tile lies in one of the memories; room is the sum of the tiles there. For every order of the loops and every
undominated set of placements, all tile sizes are evaluated as arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import factorial

import numpy as np
from numpy.typing import NDArray

from mappings.closed_form import MOST_ORDERS, Frame, Space, orders_of
from mappings.dominance import Chain, Spot, placements
from mappings.fronts import MOST_CELLS, all_joined
from mappings.leaf_tables import LeafSchedule, LeafTable
from mappings.mapspace import Problem, Run
from mappings.program import Array


@dataclass(frozen=True)
class RunSchedule:
    """How one run is executed.

    levels  the memories that tiles may lie in; spots count them
    room_bytes  taken in each of them
    loops   shared loops, (rank, chunk), outermost first
    grain   inner shared loops, below all that is held for the outside
    held    tensors held for several leaves -> where
    inside  where each allocation of the run lies, in the run's order
    exact   whether no schedule of the space moves fewer bytes
    """

    run: Run
    levels: tuple[str, ...]
    moved_bytes: float
    room_bytes: tuple[float, ...]
    loops: tuple[tuple[str, int], ...]
    grain: tuple[tuple[str, int], ...]
    held: Mapping[str, Chain]
    inside: tuple[Spot, ...]
    leaves: tuple[LeafSchedule, ...]
    exact: bool


    @property
    def chains(self) -> list[tuple[str, Chain]]:
        """What is held for the outside, with where: for several leaves, then leaf by leaf."""
        return [entry for held in (self.held, *(leaf.held for leaf in self.leaves)) for entry in held.items()]

    @property
    def used(self) -> list[str]:
        """The memories that tiles lie in."""
        spots = {spot.level for spot in (*self.inside, *(spot for _, chain in self.chains for spot in chain))}
        return [self.levels[level] for level in sorted(spots)]

    def among(self, levels: tuple[str, ...]) -> RunSchedule:
        """The same schedule where more memories could be used."""

        def moved(spot: Spot) -> Spot:
            return spot._replace(level=levels.index(self.levels[spot.level]))

        def all_moved(held: Mapping[str, Chain]) -> dict[str, Chain]:
            return {tensor: tuple(map(moved, chain)) for tensor, chain in held.items()}

        rooms = dict(zip(self.levels, self.room_bytes, strict=True))
        return replace(
            self,
            levels=levels,
            room_bytes=tuple(rooms.get(level, 0.0) for level in levels),
            held=all_moved(self.held),
            inside=tuple(moved(spot) for spot in self.inside),
            leaves=tuple(replace(leaf, held=all_moved(leaf.held)) for leaf in self.leaves),
        )


def best_schedule(
    problem: Problem,
    run: Run,
    capacity_bytes: Mapping[str, float],
    space: Space | None = None,
    known: RunSchedule | None = None,
) -> RunSchedule | None:
    """The schedule of a run with the least traffic to and from memories of so many bytes; None when none fits.

    `known`: a schedule in some of the memories that the search has to beat.
    """
    space = space or Space()
    levels = tuple(capacity_bytes)
    best = None if known is None else known.among(levels)
    capacity = np.array(list(capacity_bytes.values()), dtype=float)
    exact = True
    for order in orders_of(run.shared):
        for grain in grains(run, space):
            frame = _Search(problem, run, order, grain, space, levels)
            found = frame.best(capacity, np.inf if best is None else best.moved_bytes)
            exact &= frame.exact
            if found is not None:
                best = found
    if best is None:
        return None
    return replace(best, exact=exact and factorial(len(run.shared)) <= MOST_ORDERS)


def grains(run: Run, space: Space) -> list[dict[str, int]]:
    """No inner shared loops, or inner loops over the shared ranks that have a coordinate of their own."""
    if len(run.leaves) == 1 or not run.inside:
        return [{}]
    return [{}, {rank: space.grain.get(rank, 1) for rank in run.shared}]


class _Search(Frame):
    """The search over one order of the shared loops."""

    def __init__(
        self,
        problem: Problem,
        run: Run,
        order: tuple[str, ...],
        grain: Mapping[str, int],
        space: Space,
        levels: tuple[str, ...],
    ) -> None:
        """`levels`: the memories that tiles may lie in."""
        super().__init__(problem, run, order, grain, space, len(levels))
        self.names = levels

    def best(self, capacity: Array, limit: float) -> RunSchedule | None:
        """The best schedule of this order that moves fewer bytes than `limit`; `capacity`: bytes of each memory."""
        inside = [
            _Spread([Spot(0, 0)], np.broadcast_to(room, (self.rows, 1)), np.zeros((self.rows, 1)), self.levels)
            for room in self.inside_rooms()
        ]
        best: RunSchedule | None = None
        for held in self._shared_holdings():
            found = self._best_of(inside, held, capacity, limit)
            if found is not None:
                best, limit = found, found.moved_bytes
        return best

    def _shared_holdings(self) -> Iterator[dict[str, _Spread]]:
        """For tensors that several leaves read: one tile for all of them in the shared loops, or each streams."""
        spreads = {}
        for tensor in sorted(self.run.several):
            use = self.joint(tensor)
            places = placements(self.faces(use, self.order), self.idle(tensor))
            rooms = [self.placed_room(use, spot, self.order, self.chunks) for spot in places]
            moved = [self.placed_moved(use, spot, self.order, self.chunks) for spot in places]
            spots = [Spot(0, spot.depth, self.space.buffers if spot.depth else 1) for spot in places]
            spreads[tensor] = _Spread(spots, self._columns(rooms), self._columns(moved), self.levels)
        apart = [False] if self.grain else [False, True]
        for streams in product(apart, repeat=len(spreads)):
            yield {tensor: spreads[tensor] for tensor, alone in zip(spreads, streams, strict=True) if not alone}

    def _columns(self, values: Sequence[Array]) -> Array:
        return np.concatenate([np.broadcast_to(value, (self.rows, 1)) for value in values], axis=1)

    def _best_of(
        self, inside: Sequence[_Spread], held: Mapping[str, _Spread], capacity: Array, limit: float
    ) -> RunSchedule | None:
        pending = [
            (place, leaf, [use for use in uses if use.tensor not in held])
            for place, (leaf, uses) in enumerate(zip(self.run.leaves, self.run.uses, strict=True))
        ]
        busy = [(place, LeafTable(self, leaf, uses)) for place, leaf, uses in pending if uses]
        self.exact &= all(table.exact for _, table in busy)
        if not all(table.options for _, table in busy):
            return None
        spread = [*inside, *held.values()]
        left = limit - self.written_bytes()
        if len(busy) == 1 and self.rows == 1 and not spread:
            return self._single(busy[0], capacity, left)
        tables: list[_Spread | LeafTable] = [*spread, *(table for _, table in busy)]
        best: tuple[float, tuple[float, ...], int, list[int]] | None = None
        step = max(1, MOST_CELLS // max((table.width for table in tables), default=1))
        live = self._live(spread, capacity, left)
        for start in range(0, live.size, step):
            rows = live[start : start + step]
            room_left = np.broadcast_to(capacity[:, None, None], (self.levels, rows.size, 1))
            ways = [table.evaluated(rows, room_left) for table in tables]
            whole, trail = all_joined(ways, room_left, np.full((rows.size, 1), left))
            at = int(np.argmin(whole.moved))
            row, way = divmod(at, whole.moved.shape[1])
            if whole.moved[row, way] < left:
                left = float(whole.moved[row, way])
                best = left, tuple(map(float, whole.room[:, row, way])), int(rows[row]), trail(row, way)
        if best is None:
            return None
        chosen = list(zip(tables, best[3], strict=True))
        spots = [table.spot(way) for table, way in chosen if isinstance(table, _Spread)]
        leaves = [table.schedule(way, self.row(best[2])) for table, way in chosen if isinstance(table, LeafTable)]
        return self._schedule(
            best[:3],
            {tensor: (spot,) for tensor, spot in zip(held, spots[len(inside) :], strict=True)},
            [spot.level for spot in spots[: len(inside)]],
            dict(zip((place for place, _ in busy), leaves, strict=True)),
        )

    def _live(self, spread: Sequence[_Spread], capacity: Array, limit: float) -> NDArray[np.intp]:
        """Rows in which what is always there may fit, all memories taken together, and does not move too much."""
        room = sum((table.room.min(axis=1) for table in spread), np.zeros(self.rows))
        moved = sum((table.moved.min(axis=1) for table in spread), np.zeros(self.rows))
        return np.flatnonzero((room <= capacity.sum()) & (moved < limit))

    def _single(self, busy: tuple[int, LeafTable], capacity: Array, limit: float) -> RunSchedule | None:
        place, table = busy
        found = table.best(capacity, limit)
        self.exact &= table.exact
        if found is None:
            return None
        schedule, moved, room = found
        return self._schedule((moved, tuple(map(float, room)), 0), {}, [], {place: schedule})

    def _schedule(
        self,
        found: tuple[float, tuple[float, ...], int],
        held: Mapping[str, Chain],
        inside: Sequence[int],
        leaves: Mapping[int, LeafSchedule],
    ) -> RunSchedule:
        """The schedule of (bytes moved, room, row) with the memories of what stays `inside`."""
        moved, room, row = found
        own = self.row(row)
        return RunSchedule(
            run=self.run,
            levels=self.names,
            moved_bytes=moved + self.written_bytes(),
            room_bytes=room,
            loops=tuple(own.items()),
            grain=tuple((rank, min(size, own[rank])) for rank, size in self.grain.items()),
            held=held,
            inside=tuple(map(Spot, inside, self.inside_depths())),
            leaves=tuple(leaves.get(place, LeafSchedule((), {})) for place in range(len(self.run.leaves))),
            exact=self.exact,
        )


@dataclass(frozen=True)
class _Spread:
    """Ways to hold one allocation, each in any of the memories: a way's number is (place, memory).

    spots        the places in the loops
    room, moved  (rows, places) bytes
    """

    spots: Sequence[Spot]
    room: Array
    moved: Array
    levels: int

    @property
    def width(self) -> int:
        """Number of ways."""
        return len(self.spots) * self.levels

    def evaluated(self, rows: NDArray[np.intp], room_left: Array) -> tuple[Array, Array]:
        """Bytes, (rows, ways), and room, (memories, rows, ways), in some rows."""
        own = np.eye(self.levels)[:, None, None, :] * self.room[rows][None, :, :, None]
        moved = np.repeat(self.moved[rows], self.levels, axis=1)
        return moved, own.reshape(self.levels, rows.size, self.width)

    def spot(self, way: int) -> Spot:
        """The way of a number."""
        number, level = divmod(way, self.levels)
        return self.spots[number]._replace(level=level)


def common_loops(parts: Sequence[RunSchedule]) -> int:
    """How many outermost loops all runs have alike."""
    count = 0
    for loops in zip(*(part.loops[: len(part.run.batch)] for part in parts), strict=False):
        if len(set(loops)) > 1:
            break
        count += 1
    return count


def twice_loaded(parts: Sequence[RunSchedule]) -> bool:
    """Whether two runs hold a tensor that both read: two loads of it beside each other cannot be told apart."""
    held = [
        use.tensor
        for part in parts
        for use in {use for uses in part.run.uses for use in uses}
        if not use.written and use.tensor in dict(part.chains)
    ]
    return len(set(held)) < len(held)


def part_tiles(problem: Problem, part: RunSchedule) -> float:
    """Tiles of a run that a mask makes differ from one another."""
    mask, ranks = problem.mask, problem.ranks
    if mask is None:
        return 0.0
    most = 0.0
    for leaf in part.leaves:
        sizes = {rank: int(size.flat[0]) for rank, size in problem.extents.items()}
        trips = 1.0
        for rank, chunk in (*part.loops[len(part.run.batch) :], *part.grain, *leaf.loops):
            base = ranks.base(rank)
            trips *= 1 if base in (mask.mask.row, mask.mask.column) else -(-sizes[base] // chunk)
            sizes[base] = min(sizes[base], chunk)
        most = max(most, trips * mask.at(sizes[mask.mask.row], sizes[mask.mask.column]).tiles)
    return most
