"""The best schedule of one run on one buffer: loop orders, tile sizes and placements, counted in closed form.

Room is the sum of all tiles. For every order of the loops and every undominated set of placements, all tile sizes are
evaluated as arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import factorial

import numpy as np

from mappings.closed_form import MOST_ORDERS, Frame, Space, orders_of
from mappings.dominance import Front, Placement, front, joined, placements, steady_depth
from mappings.leaf_tables import MOST_CELLS, LeafSchedule, LeafTable
from mappings.mapspace import Problem, Run, Use
from mappings.program import Array


@dataclass(frozen=True)
class RunSchedule:
    """How one run is executed.

    loops   shared loops, (rank, chunk), outermost first
    grain   inner shared loops, below all that is held for the outside
    held    tensors held for several leaves -> depth
    inside  depth of each allocation of the run, in the run's order
    exact   whether no schedule of the space moves fewer bytes
    """

    run: Run
    moved_bytes: float
    room_bytes: float
    loops: tuple[tuple[str, int], ...]
    grain: tuple[tuple[str, int], ...]
    held: Mapping[str, int]
    inside: tuple[int, ...]
    leaves: tuple[LeafSchedule, ...]
    exact: bool


def best_schedule(problem: Problem, run: Run, capacity_bytes: float, space: Space | None = None) -> RunSchedule | None:
    """The schedule of a run with the least traffic to and from a buffer of so many bytes; None when none fits."""
    space = space or Space()
    best: RunSchedule | None = None
    exact = True
    for order in orders_of(run.shared):
        for grain in _grains(run, space):
            frame = _Search(problem, run, order, grain, space)
            found = frame.best(capacity_bytes, np.inf if best is None else best.moved_bytes)
            exact &= frame.exact
            if found is not None:
                best = found
    if best is None:
        return None
    return replace(best, exact=exact and factorial(len(run.shared)) <= MOST_ORDERS)


def _grains(run: Run, space: Space) -> list[dict[str, int]]:
    """No inner shared loops, or inner loops over the shared ranks that have a coordinate of their own."""
    if len(run.leaves) == 1 or not run.inside:
        return [{}]
    return [{}, {rank: space.grain.get(rank, 1) for rank in run.shared}]


class _Search(Frame):
    """The search over one order of the shared loops."""

    def best(self, capacity: float, limit: float) -> RunSchedule | None:
        """The best schedule of this order that moves fewer bytes than `limit`."""
        fixed = np.zeros((self.rows, 1)) + sum(self._inside_room(), np.zeros((1, 1)))
        written = sum(
            float(
                np.prod(self.problem.ranks.words(self.problem.shape(t), self.problem.extents)) * self.problem.bytes[t]
            )
            for group in self.run.inside
            for t in group.stored
        )
        best: RunSchedule | None = None
        for held in self._shared_holdings():
            room, moved = fixed.copy(), np.full((self.rows, 1), written)
            for use, spot in held.items():
                room = room + self.placed_room(use, spot, self.order, self.chunks)
                moved = moved + self.placed_moved(use, spot, self.order, self.chunks)
            found = self._best_leaves(room, moved, {use.tensor: spot for use, spot in held.items()}, capacity, limit)
            if found is not None:
                best, limit = found, found.moved_bytes
        return best

    def inside_depths(self) -> tuple[int, ...]:
        """How many shared loops, the inner ones included, enclose each allocation of the run."""
        loops = (*self.order, *self.grain)
        depths = []
        for group in self.run.inside:
            latest = self.problem.ranks.iterative(group.tensors[0])
            cut = [
                moved and rank not in latest
                for rank, moved in zip(loops, self.cut_by(self.problem.shape(group.tensors[0]), loops), strict=True)
            ]
            depths.append(steady_depth(cut))
        return tuple(depths)

    def _inside_room(self) -> Iterator[Array]:
        loops = (*self.order, *self.grain)
        for group, depth in zip(self.run.inside, self.inside_depths(), strict=True):
            chunks = dict(self.chunks)
            for place, rank in enumerate(loops[:depth]):
                if place >= len(self.order):
                    chunks[rank] = np.minimum(chunks[rank], self.grain[rank])
            cuts = [
                rank
                for rank, cut in zip(loops, self.cut_by(self.problem.shape(group.tensors[0]), loops), strict=True)
                if cut
            ]
            yield self.room(group.tensors, [rank for rank in cuts if rank in loops[:depth]], chunks)

    def _shared_holdings(self) -> Iterator[dict[Use, Placement]]:
        """For tensors that several leaves read: one tile for all of them in the shared loops, or each streams."""
        several = [self._joint(tensor) for tensor in sorted(self.run.several)]
        apart: list[None] = [] if self.grain else [None]
        ways = [[*apart, *placements(self.faces(use, self.order), self._idle(use.tensor))] for use in several]
        for chosen in product(*ways):
            yield {use: spot for use, spot in zip(several, chosen, strict=True) if spot is not None}

    def _joint(self, tensor: str) -> Use:
        """The use of a tensor by all of its readers."""
        found = [use for uses in self.run.uses for use in uses if use.tensor == tensor]
        return Use(tensor, False, tuple(dict.fromkeys(shape for use in found for shape in use.shapes)))

    def _idle(self, tensor: str) -> list[bool]:
        """Shared loops that none of a tensor's readers iterates."""
        readers = [leaf for leaf, uses in zip(self.run.leaves, self.run.uses, strict=True)
                   if any(use.tensor == tensor for use in uses)]  # fmt: skip
        return [all(rank not in leaf.ranks for leaf in readers) for rank in self.order]

    def _best_leaves(
        self, room: Array, moved: Array, held: Mapping[str, Placement], capacity: float, limit: float
    ) -> RunSchedule | None:
        pending = [
            (place, leaf, [use for use in uses if use.tensor not in held])
            for place, (leaf, uses) in enumerate(zip(self.run.leaves, self.run.uses, strict=True))
        ]
        busy = [(place, LeafTable(self, leaf, uses)) for place, leaf, uses in pending if uses]
        self.exact &= all(table.exact for _, table in busy)
        if not all(table.options for _, table in busy):
            return None
        if len(busy) == 1 and self.rows == 1:
            table = busy[0][1]
            return self._single(table, busy[0][0], float(room.flat[0]), float(moved.flat[0]), held, capacity, limit)
        live = np.flatnonzero((room[:, 0] <= capacity) & (moved[:, 0] < limit))
        if not live.size:
            return None
        best: tuple[float, float, int, list[int]] | None = None
        width = max((table.width for _, table in busy), default=1)
        step = max(1, MOST_CELLS // width)
        for start in range(0, live.size, step):
            rows = live[start : start + step]
            fronts = [front(*table.evaluated(rows, capacity - room[rows])) for _, table in busy]
            whole, trail = _all_joined(fronts, rows.size)
            total = np.where(whole.room + room[rows] <= capacity, whole.moved + moved[rows], np.inf)
            spot = int(np.argmin(total))
            row, way = divmod(spot, total.shape[1])
            if total.flat[spot] < limit:
                limit = float(total.flat[spot])
                best = limit, float(whole.room[row, way] + room[rows][row, 0]), int(rows[row]), trail(row, way)
        if best is None:
            return None
        chosen = {
            place: table.schedule(way, self._row(best[2])) for (place, table), way in zip(busy, best[3], strict=True)
        }
        return self._schedule(best[0], best[1], best[2], held, chosen)

    def _single(
        self,
        table: LeafTable,
        place: int,
        room: float,
        moved: float,
        held: Mapping[str, Placement],
        capacity: float,
        limit: float,
    ) -> RunSchedule | None:
        found = table.best(capacity - room, limit - moved)
        self.exact &= table.exact
        if found is None:
            return None
        schedule, bytes_moved, bytes_room = found
        return self._schedule(bytes_moved + moved, bytes_room + room, 0, held, {place: schedule})

    def _row(self, row: int) -> dict[str, int]:
        return {rank: int(chunk[row, 0]) for rank, chunk in self.chunks.items()}

    def _schedule(
        self, moved: float, room: float, row: int, held: Mapping[str, Placement], leaves: Mapping[int, LeafSchedule]
    ) -> RunSchedule:
        own = self._row(row)
        return RunSchedule(
            run=self.run,
            moved_bytes=moved,
            room_bytes=room,
            loops=tuple(own.items()),
            grain=tuple((rank, min(size, own[rank])) for rank, size in self.grain.items()),
            held={tensor: spot.depth for tensor, spot in held.items()},
            inside=self.inside_depths(),
            leaves=tuple(leaves.get(place, LeafSchedule((), {})) for place in range(len(self.run.leaves))),
            exact=self.exact,
        )


def _all_joined(fronts: Sequence[Front], rows: int) -> tuple[Front, Callable[[int, int], list[int]]]:
    """One front of all leaves, and a function that finds each leaf's way again."""
    empty = Front(np.zeros((rows, 1)), np.zeros((rows, 1)), np.zeros((rows, 1), dtype=np.int64))
    if not fronts:
        return empty, lambda row, way: []
    stages = [fronts[0]]
    for following in fronts[1:]:
        stages.append(joined(stages[-1], following))

    def trail(row: int, way: int) -> list[int]:
        found: list[int] = []
        for stage, following in zip(reversed(stages[1:]), reversed(fronts[1:]), strict=True):
            way, last = divmod(int(stage.way[row, way]), following.moved.shape[1])
            found.append(int(following.way[row, last]))
        return [int(fronts[0].way[row, way]), *reversed(found)]

    return stages[-1], trail
