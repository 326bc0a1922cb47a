"""All ways to run one leaf inside a run: the order of its own loops, where its tensors are held, its chunk sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

import numpy as np
from numpy.typing import NDArray

from mappings.closed_form import Frame, orders_of, ranks_of, thinned
from mappings.dominance import Chain, Placement, Spot, placements, undominated
from mappings.fronts import MOST_CELLS
from mappings.mapspace import Leaf, Use
from mappings.program import Array

Option = tuple[tuple[str, ...], tuple[Placement, ...]]
"""Order of a leaf's own loops, and where each of its tensors is held."""


@dataclass(frozen=True)
class LeafSchedule:
    """Loops of one leaf below the shared ones (rank, chunk), and where below the whole path tensors are held."""

    loops: tuple[tuple[str, int], ...]
    held: Mapping[str, Chain]


class LeafTable:
    """All undominated ways to place one leaf's tensors, each in any memory, and all chunk sizes of its own loops.

    The number of a way: (option, memories, chunk sizes), the last one running fastest.
    """

    def __init__(self, frame: Frame, leaf: Leaf, uses: list[Use]) -> None:
        self.frame, self.uses, self.exact = frame, uses, True
        self.own = () if frame.grain else tuple(rank for rank in leaf.ranks if rank not in frame.order)
        self.sizes = [frame.sizes(rank) for rank in self.own]
        self.options = self._options(leaf)
        self.levels = list(product(range(frame.levels), repeat=len(uses)))
        if frame.rows > 1:
            self._thin(MOST_CELLS // (4 * max(len(self.options) * len(self.levels), 1)))
        grid = np.meshgrid(*(np.asarray(way, dtype=float) for way in self.sizes), indexing="ij") if self.own else []
        self.columns = prod(len(way) for way in self.sizes)
        self.chunks = {rank: axis.reshape(1, -1) for rank, axis in zip(self.own, grid, strict=True)}
        self.width = self.columns * len(self.options) * len(self.levels)

    def _thin(self, most: int) -> None:
        self.sizes, whole = thinned(self.sizes, max(most, 1))
        self.exact &= whole

    def _options(self, leaf: Leaf) -> list[Option]:
        """Those left that no other beats. They depend on which ranks move which tensors, so they are found once."""
        frame = self.frame
        moved = tuple(frame.faces(use, (*frame.order, *self.own)) for use in self.uses)
        shared = tuple(use.tensor in frame.run.several for use in self.uses)
        idle = tuple(rank not in leaf.ranks for rank in (*frame.order, *self.own))
        return _undominated_options(frame.order, self.own, moved, shared, idle)

    def evaluated(self, rows: NDArray[np.intp], room_left: Array) -> tuple[Array, Array]:
        """Bytes, (rows, ways), and room, (memories, rows, ways), in some rows of the frame.

        Ways that leave no room, of which there is `room_left`, (memories, rows, 1), are infinite.
        """
        chunks = {**{rank: chunk[rows] for rank, chunk in self.frame.chunks.items()}, **self.chunks}
        shape = (len(self.options), len(self.levels), rows.size, self.columns)
        rooms: dict[tuple[str, tuple[frozenset[str], ...]], Array] = {}
        moved, room = np.zeros(shape), np.zeros((self.frame.levels, *shape))
        for number, (order, spots) in enumerate(self.options):
            path = (*self.frame.order, *order)
            for place, (use, spot) in enumerate(zip(self.uses, spots, strict=True)):
                key = use.tensor, tuple(frozenset(ranks_of(cuts, path)) for cuts, _ in spot.faces)
                if key not in rooms:
                    rooms[key] = self.frame.placed_room(use, spot, path, chunks)
                moved[number] += self.frame.placed_moved(use, spot, path, chunks)
                for choice, levels in enumerate(self.levels):
                    room[levels[place], number, choice] += rooms[key]
        out = (room > room_left[:, None, None]).any(axis=0)
        moved[out] = np.inf
        room[:, out] = np.inf
        ways = (rows.size, self.width)
        return (
            moved.transpose(2, 0, 1, 3).reshape(ways),
            room.transpose(0, 3, 1, 2, 4).reshape(self.frame.levels, *ways),
        )

    def schedule(self, way: int, row: Mapping[str, int]) -> LeafSchedule:
        """The way of a number as a schedule."""
        rest, column = divmod(way, self.columns)
        option, choice = divmod(rest, len(self.levels))
        order, spots = self.options[option]
        sizes = {rank: int(self.chunks[rank][0, column]) for rank in order}
        return LeafSchedule(tuple((rank, sizes[rank]) for rank in order), self._held(spots, self.levels[choice]))

    def _held(self, spots: Sequence[Placement], levels: Sequence[int]) -> dict[str, Chain]:
        copies = self.frame.space.buffers
        placed = zip(self.uses, spots, levels, strict=True)
        return {use.tensor: (Spot(at, spot.depth, copies if spot.depth else 1),) for use, spot, at in placed}

    def best(self, room_left: Array, limit: float) -> tuple[LeafSchedule, float, Array] | None:
        """The way with the least traffic, where no shared loop has a choice; None if none moves less than `limit`.

        `room_left`: bytes in each memory. Also gives what the way moves, and its room in each memory. The chunk of the
        rank with the most sizes is not enumerated: traffic never grows with it (unless a mask skips chunks) and room
        is linear in it, so the largest that fits is best.
        """
        frame = self.frame
        dense = [rank for rank in self.own if not frame.masks(rank)]
        last = max(dense, key=lambda rank: len(self.sizes[self.own.index(rank)]), default=None)
        others = [rank for rank in self.own if rank != last]
        ways, whole = thinned([self.sizes[self.own.index(rank)] for rank in others], MOST_CELLS)
        self.exact &= whole and all(len(use.shapes) == 1 for use in self.uses)
        grid = np.meshgrid(*(np.asarray(way, dtype=float) for way in ways), indexing="ij") if others else []
        chunks = {rank: axis.reshape(1, -1) for rank, axis in zip(others, grid, strict=True)}
        best: tuple[LeafSchedule, float, Array] | None = None
        for (order, spots), levels in product(self.options, self.levels):
            found = self._largest(order, (spots, levels), chunks, last, room_left)
            if found[1] < limit:
                best, limit = found, found[1]
        return best

    def _largest(
        self,
        order: tuple[str, ...],
        where: tuple[Sequence[Placement], Sequence[int]],
        given: Mapping[str, Array],
        last: str | None,
        left: Array,
    ) -> tuple[LeafSchedule, float, Array]:
        """The best of the `given` chunks for one option, with the largest chunk of the `last` rank that fits."""
        frame, path = self.frame, (*self.frame.order, *order)
        chunks = {**frame.chunks, **given}
        columns = prod(np.broadcast_shapes((1, 1), *(chunk.shape for chunk in given.values())))
        placed = list(zip(self.uses, *where, strict=True))

        def rooms() -> Array:
            total = np.zeros((frame.levels, columns))
            for use, spot, level in placed:
                total[level] += np.broadcast_to(frame.placed_room(use, spot, path, chunks), (1, columns))[0]
            return total

        if last is not None:
            sizes = np.asarray(self.sizes[self.own.index(last)], dtype=float)
            chunks[last] = np.full((1, columns), 1.0)
            one = rooms()
            chunks[last] = np.full((1, columns), min(2.0, sizes[-1]))
            slope = rooms() - one
            most = np.where(slope > 0, 1 + np.floor((left[:, None] - one) / np.where(slope > 0, slope, 1)), sizes[-1])
            place = np.searchsorted(sizes, most.min(axis=0, keepdims=True), side="right") - 1
            chunks[last] = sizes[np.maximum(place, 0)]
        taken = rooms()
        parts = (frame.placed_moved(use, spot, path, chunks) for use, spot, _ in placed)
        moved = np.broadcast_to(sum(parts, np.zeros((1, columns))), (1, columns))[0]
        total = np.where((taken <= left[:, None]).all(axis=0), moved, np.inf)
        at = int(np.argmin(total))
        loops = tuple((rank, int(np.broadcast_to(chunks[rank], (1, columns))[0, at])) for rank in order)
        return LeafSchedule(loops, self._held(*where)), float(total[at]), taken[:, at]


@lru_cache(maxsize=4096)
def _undominated_options(
    outer: tuple[str, ...],
    own: tuple[str, ...],
    moved: tuple[tuple[tuple[bool, ...], ...], ...],
    several: tuple[bool, ...],
    idle: tuple[bool, ...],
) -> list[Option]:
    """Orders and placements below `outer` and `own` loops, which move the tensors as `moved` says.

    A tensor that `several` leaves of the run read, each on its own, is streamed: each of its words comes once.
    """
    known = (*outer, *own)
    found: list[Option] = []
    keys: list[list[tuple[int, int]]] = []
    for order in orders_of(own):
        places = [known.index(rank) for rank in (*outer, *order)]
        ways = []
        for flags, again in zip(moved, several, strict=True):
            cuts = [[face[place] for place in places] for face in flags]
            spots = placements(cuts, [idle[place] for place in places])
            if again:
                spots = spots[-1:] if all(all(cut) for cut in cuts) else []
            ways.append([(spot, _signature(spot, places)) for spot in spots])
        for chosen in product(*ways):
            found.append((order, tuple(spot for spot, _ in chosen)))
            keys.append([bits for _, pairs in chosen for bits in pairs])
    if not found:
        return []
    table = np.array(keys, dtype=np.uint64).reshape(len(found), -1, 2)
    return [found[place] for place in undominated(table[:, :, 1], table[:, :, 0])]


def _signature(spot: Placement, places: Sequence[int]) -> list[tuple[int, int]]:
    """Cuts and reloads of each tile of a placement, as bits of the loops' numbers in `places`.

    A tensor with several tiles is compared only with placements that cut them alike: its bits stand there twice.
    """

    def moved(bits: int) -> int:
        return sum(1 << to for place, to in enumerate(places) if bits >> place & 1)

    found = [(moved(cuts), moved(reloads)) for cuts, reloads in spot.faces]
    return found if len(found) == 1 else [*found, *((0, cuts) for cuts, _ in found)]
