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
from mappings.dominance import Placement, placements, undominated
from mappings.mapspace import Leaf, Use
from mappings.program import Array

Option = tuple[tuple[str, ...], tuple[Placement, ...]]
"""Order of a leaf's own loops, and where each of its tensors is held."""
MOST_CELLS = 1_000_000


@dataclass(frozen=True)
class LeafSchedule:
    """Loops of one leaf below the shared ones (rank, chunk), and at which depth of the whole path tensors are held."""

    loops: tuple[tuple[str, int], ...]
    held: Mapping[str, int]


class LeafTable:
    """All undominated ways to place one leaf's tensors, and all chunk sizes of its own loops, (1, columns)."""

    def __init__(self, frame: Frame, leaf: Leaf, uses: list[Use]) -> None:
        self.frame, self.uses, self.exact = frame, uses, True
        self.own = () if frame.grain else tuple(rank for rank in leaf.ranks if rank not in frame.order)
        self.sizes = [frame.sizes(rank) for rank in self.own]
        self.options = self._options(leaf)
        if frame.rows > 1:
            self._thin(MOST_CELLS // (4 * max(len(self.options), 1)))
        grid = np.meshgrid(*(np.asarray(way, dtype=float) for way in self.sizes), indexing="ij") if self.own else []
        self.columns = prod(len(way) for way in self.sizes)
        self.chunks = {rank: axis.reshape(1, -1) for rank, axis in zip(self.own, grid, strict=True)}
        self.width = self.columns * len(self.options)

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
        """(bytes, room) of every way in some rows of the frame; ways that leave no room are infinite."""
        chunks = {**{rank: chunk[rows] for rank, chunk in self.frame.chunks.items()}, **self.chunks}
        shape = (rows.size, self.columns)
        rooms: dict[tuple[str, tuple[frozenset[str], ...]], Array] = {}
        parts: list[tuple[Array, Array]] = []
        for order, spots in self.options:
            path = (*self.frame.order, *order)
            moved, room = np.zeros(shape), np.zeros(shape)
            for use, spot in zip(self.uses, spots, strict=True):
                key = use.tensor, tuple(frozenset(ranks_of(cuts, path)) for cuts, _ in spot.faces)
                if key not in rooms:
                    rooms[key] = self.frame.placed_room(use, spot, path, chunks)
                room += rooms[key]
                moved += self.frame.placed_moved(use, spot, path, chunks)
            parts.append((moved, np.where(room <= room_left, room, np.inf)))
        return np.concatenate([m for m, _ in parts], axis=1), np.concatenate([r for _, r in parts], axis=1)

    def schedule(self, way: int, row: Mapping[str, int]) -> LeafSchedule:
        """The way of a number as a schedule."""
        option, column = divmod(way, self.columns)
        order, spots = self.options[option]
        sizes = {rank: int(self.chunks[rank][0, column]) for rank in order}
        held = {use.tensor: spot.depth for use, spot in zip(self.uses, spots, strict=True)}
        return LeafSchedule(tuple((rank, sizes[rank]) for rank in order), held)

    def best(self, room_left: float, limit: float) -> tuple[LeafSchedule, float, float] | None:
        """The way with the least traffic, where no shared loop has a choice; None if none moves less than `limit`.

        The chunk of the rank with the most sizes is not enumerated: traffic never grows with it (unless a mask skips
        chunks) and room is linear in it, so the largest that fits is best.
        """
        frame = self.frame
        dense = [rank for rank in self.own if not frame.masks(rank)]
        last = max(dense, key=lambda rank: len(self.sizes[self.own.index(rank)]), default=None)
        others = [rank for rank in self.own if rank != last]
        ways, whole = thinned([self.sizes[self.own.index(rank)] for rank in others], MOST_CELLS)
        self.exact &= whole and all(len(use.shapes) == 1 for use in self.uses)
        grid = np.meshgrid(*(np.asarray(way, dtype=float) for way in ways), indexing="ij") if others else []
        columns = prod(len(way) for way in ways)
        chunks = {**frame.chunks, **{rank: axis.reshape(1, -1) for rank, axis in zip(others, grid, strict=True)}}
        best: tuple[LeafSchedule, float, float] | None = None
        for order, spots in self.options:
            path = (*frame.order, *order)

            def room(path: Sequence[str] = path, spots: Sequence[Placement] = spots) -> Array:
                parts = (frame.placed_room(u, s, path, chunks) for u, s in zip(self.uses, spots, strict=True))
                return sum(parts, np.zeros((1, columns)))

            if last is not None:
                sizes = np.asarray(self.sizes[self.own.index(last)], dtype=float)
                chunks[last] = np.full((1, columns), 1.0)
                one = room()
                chunks[last] = np.full((1, columns), min(2.0, sizes[-1]))
                slope = room() - one
                most = np.where(slope > 0, 1 + np.floor((room_left - one) / np.where(slope > 0, slope, 1)), sizes[-1])
                place = np.searchsorted(sizes, most, side="right") - 1
                chunks[last] = sizes[np.maximum(place, 0)]
            taken = room()
            moved = sum(
                (frame.placed_moved(u, s, path, chunks) for u, s in zip(self.uses, spots, strict=True)),
                np.zeros((1, columns)),
            )
            total = np.where(taken <= room_left, moved, np.inf)
            spot = int(np.argmin(total))
            if total.flat[spot] < limit:
                limit = float(total.flat[spot])
                loops = tuple((rank, int(np.broadcast_to(chunks[rank], (1, columns))[0, spot])) for rank in order)
                held = {use.tensor: where.depth for use, where in zip(self.uses, spots, strict=True)}
                best = LeafSchedule(loops, held), limit, float(taken.flat[spot])
        return best


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
