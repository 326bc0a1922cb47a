"""Schedules of one run for time and energy: every tensor with tiles of its own in one or several memories, and buffers.

For each order of the loops and all chunk sizes, each tensor has a table of ways: a tile in one memory, or smaller and
smaller ones in several, with one buffer or two. A way costs energy, time of every port, time that waits, and room in
every memory. Costs add up over the tensors, so ways that another beats in every cost are dropped, and tables are joined
tensor by tensor, then leaf by leaf (`mappings.fronts`).

Time by estimate: the busiest of the ports and the units; transfers that nothing overlaps (all of a tile with one
buffer, the first of a tile with two) are added to the units' time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product

import numpy as np

from mappings.binding import Issue
from mappings.candidate import ranking
from mappings.closed_form import Frame, Space, orders_of, thinned
from mappings.dominance import Chain, Placement, Spot, placements
from mappings.fronts import all_joined
from mappings.leaf_tables import LeafSchedule
from mappings.mapspace import Inside, Leaf, Problem, Run, Use
from mappings.program import Array
from mappings.schedules import RunSchedule, grains
from mappings.traffic_costs import Bill, Path, Prices, Work

MOST_CELLS = 2_048
"""Chunk sizes of shared and own loops that are tried for one order of the loops."""
FEW_CELLS = 128
MOST_WAYS = 16
"""With more chunk sizes, and where leaves are fused, about so many ways of each table are kept for each of them."""
MOST_STREAMED = 1
"""Tensors that several leaves read and that stream while others are held."""
KEPT = 8


@dataclass(frozen=True)
class Weighed:
    """A schedule with its energy and time by estimate."""

    schedule: RunSchedule
    energy_j: float
    latency_s: float


def weighed_schedules(
    problem: Problem, run: Run, capacity_bytes: Mapping[str, float], space: Space, issue: Issue, objective: str
) -> list[Weighed]:
    """The best schedules of a run for an objective by estimate, in memories of so many bytes."""
    levels = tuple(capacity_bytes)
    capacity = np.array(list(capacity_bytes.values()), dtype=float)
    works = [Work(problem, leaf, issue) for leaf in run.leaves]
    found: list[Weighed] = []
    for order in orders_of(run.shared):
        for grain in grains(run, space):
            found += _Weighing(problem, run, order, grain, space, levels, works, objective).best(capacity)
    return sorted(found, key=lambda one: ranking(objective, one.energy_j, one.latency_s))[: 2 * KEPT]


Decode = Callable[[int, int], LeafSchedule]
"""(row, way) -> how a leaf is run."""


class _Weighing(Frame):
    """The search over one order of the shared loops."""

    def __init__(
        self,
        problem: Problem,
        run: Run,
        order: tuple[str, ...],
        grain: Mapping[str, int],
        space: Space,
        levels: tuple[str, ...],
        works: Sequence[Work],
        objective: str,
    ) -> None:
        """`levels`: the memories that tiles may lie in; `works`: the leaves on their units."""
        super().__init__(problem, run, order, grain, space, len(levels))
        self.names, self.works, self.objective = levels, works, objective
        self.numbers = [list(problem.machine.memories).index(level) for level in levels]
        self.prices = Prices(problem.machine)
        self.units = list(dict.fromkeys(work.binding.unit for work in works))

    # A table is an array (costs, rows, ways): energy, the ports, the units with what they wait for, the memories.

    @cached_property
    def _costs(self) -> list[int]:
        """The costs that ways are compared in, beside the room."""
        times = list(range(1, 1 + len(self.prices.ports) + len(self.units)))
        return {"energy": [0], "latency": [*times, 0]}.get(self.objective, [0, *times])

    def _row_of(self, bill: Bill, shape: tuple[int, ...], room: Mapping[int, Array]) -> Array:
        """A bill and bytes taken in some memories as one way, (costs, *shape)."""
        values = [bill.energy_j, *bill.port_s, *(bill.wait_s for _ in self.units)]
        values += [room.get(level, np.zeros((1, 1))) for level in range(self.levels)]
        return np.stack([np.broadcast_to(value, shape) for value in values])

    def _chains(self, depths: Sequence[int]) -> Iterator[Chain]:
        """Tiles at some depths, each smaller one in a memory further in, with one buffer or two where time counts."""
        for length in range(1, self.levels + 1):
            for levels, places in product(combinations(range(self.levels), length), combinations(depths, length)):
                outer = [0, *(self.numbers[level] for level in levels)]
                copies = [
                    (1, 2) if depth and self.objective != "energy" and any(map(self.prices.limited, pair)) else (1,)
                    for depth, *pair in zip(places, outer, outer[1:], strict=False)
                ]
                for chosen in product(*copies):
                    yield tuple(map(Spot, levels, places, chosen))

    def _held_table(
        self, use: Use, spots: Sequence[Placement], paths: Sequence[Path], names: Sequence[str], shape: tuple[int, int],
        chunks: Mapping[str, Array],
    ) -> tuple[Array, list[Chain]]:  # fmt: skip
        """Ways to hold a tensor below some loops, for the leaves with these paths: (costs, *shape, ways), chains."""
        tiles = {spot.depth: self.placed_room(use, spot, names, chunks) for spot in spots}
        hops: dict[tuple[int, Spot], Array] = {}
        ends: dict[int, Array] = {}
        chains, ways = list(self._chains(list(tiles))), []
        for chain in chains:
            total, outer = np.zeros(()), 0
            for spot in chain:
                if (outer, spot) not in hops:
                    inner = self.numbers[spot.level]
                    bill = paths[0].hop(use, outer, inner, spot, tiles[spot.depth])
                    hops[outer, spot] = self._row_of(bill, shape, {spot.level: spot.buffers * tiles[spot.depth]})
                total, outer = total + hops[outer, spot], self.numbers[spot.level]
            if outer not in ends:
                touched = [path.touched(use.tensor, use.written, use.shapes, outer) for path in paths]
                ends[outer] = sum((self._row_of(bill, shape, {}) for bill in touched), np.zeros(()))
            ways.append(total + ends[outer])
        return np.stack(ways, axis=-1), chains

    def _path(self, place: int, own: Mapping[str, Array], order: Sequence[str] = ()) -> Path:
        grain = [(rank, np.minimum(self.chunks[rank], size)) for rank, size in self.grain.items()]
        return Path(self.works[place], [*self.chunks.items(), *grain, *((r, own[r]) for r in order)], self.prices)

    def _shared_tables(self) -> dict[str, tuple[Array, list[Chain]]]:
        """Tensors that several leaves read, held once for all of them."""
        tables = {}
        for tensor in sorted(self.run.several):
            use = self.joint(tensor)
            paths = [self._path(place, {}) for place, uses in enumerate(self.run.uses) if use.tensor in
                     {one.tensor for one in uses if not one.written}]  # fmt: skip
            spots = placements(self.faces(use, self.order), self.idle(tensor))
            table, chains = self._held_table(use, spots, paths, self.order, (self.rows, 1), self.chunks)
            tables[tensor] = table[:, :, 0], chains
        return tables

    def _inside_table(self, group: Inside, room: Array) -> Array:
        """A value that stays in the run, in any of the memories, (costs, rows, ways)."""
        ways = []
        for level, number in enumerate(self.numbers):
            nothing = self.prices.access(number, np.zeros((1, 1)), np.zeros((1, 1)))
            total = self._row_of(nothing, (self.rows, 1), {level: room})
            for place, leaf in enumerate(self.run.leaves):
                for einsum in self.problem.einsums(leaf):
                    accesses = [(access, False) for access in einsum.inputs if access.tensor not in leaf.einsums]
                    for access, written in [*accesses, (einsum.output, True)]:
                        if access.tensor in group.tensors:
                            shape = (self.problem.ranks.shape(access),)
                            bill = self._path(place, {}).touched(access.tensor, written, shape, number)
                            total = total + self._row_of(bill, (self.rows, 1), {})
            ways.append(total[:, :, 0])
        return np.stack(ways, axis=-1)

    def _leaf_table(self, place: int, leaf: Leaf, uses: Sequence[Use], capacity: Array) -> tuple[Array, Decode]:
        """All ways to run a leaf, (costs, rows, ways), from which dominated ones are left out for each chunk size."""
        own = () if self.grain else tuple(rank for rank in leaf.ranks if rank not in self.order)
        sizes, _ = thinned([self.sizes(rank) for rank in own], max(MOST_CELLS // self.rows, 1))
        grid = np.meshgrid(*(np.asarray(way, dtype=float) for way in sizes), indexing="ij") if own else []
        chunks = {rank: axis.reshape(1, -1) for rank, axis in zip(own, grid, strict=True)}
        shape = self.rows, int(np.prod([len(way) for way in sizes], dtype=int))
        tables, decoders = [], []
        for order in orders_of(own):
            table, decode = self._ordered(place, order, uses, chunks, shape, capacity)
            tables.append(table)
            decoders.append(decode)
        ends = np.cumsum([table.shape[2] for table in tables])

        def found(row: int, way: int) -> LeafSchedule:
            number = int(np.searchsorted(ends, way, side="right"))
            return decoders[number](row, way - int(ends[number] - tables[number].shape[2]))

        return np.concatenate(tables, axis=2), found

    def _ordered(
        self, place: int, order: tuple[str, ...], uses: Sequence[Use], own: Mapping[str, Array], shape: tuple[int, int],
        capacity: Array,
    ) -> tuple[Array, Decode]:  # fmt: skip
        """The ways with one order of a leaf's own loops."""
        path, names, chunks = self._path(place, own, order), (*self.order, *order), {**self.chunks, **own}
        idle = [self.problem.ranks.base(rank) not in {self.problem.ranks.base(r) for r in self.run.leaves[place].ranks}
                for rank in names]  # fmt: skip
        unit = self.units.index(self.works[place].binding.unit)
        busy = np.zeros((len(self._all_left(capacity)), *shape, 1))
        busy[1 + len(self.prices.ports) + unit, ..., 0] = np.broadcast_to(path.busy_s, shape)
        tables, chains = [busy], []
        for use in uses:
            spots = placements(self.faces(use, names), idle)
            if use.tensor in self.run.several:
                spots = spots[-1:] if all(all(face) for face in self.faces(use, names)) else []
            if not spots:
                return np.full((len(busy), shape[0], 1), np.inf), lambda row, way: LeafSchedule((), {})
            table, ways = self._held_table(use, spots, [path], names, shape, chunks)
            tables.append(table)
            chains.append(ways)
        cells = [table.reshape(len(table), shape[0] * shape[1], -1) for table in tables]
        whole, trail = self._joined(cells, capacity)

        def decode(row: int, way: int) -> LeafSchedule:
            column, kept = divmod(way, whole.shape[2])
            chosen = trail(row * shape[1] + column, kept)[1:]
            loops = tuple((rank, int(own[rank][0, column])) for rank in order)
            held = {use.tensor: ways[number] for use, ways, number in zip(uses, chains, chosen, strict=True)}
            return LeafSchedule(loops, held)

        return whole.reshape(len(whole), shape[0], -1), decode

    def _all_left(self, capacity: Array) -> Array:
        return np.concatenate([np.full(1 + len(self.prices.ports) + len(self.units), np.inf), capacity])

    def _joined(self, tables: Sequence[Array], capacity: Array) -> tuple[Array, Callable[[int, int], list[int]]]:
        """The undominated sums of tables, (costs, rows, ways), and how to find each table's way again."""
        rooms = list(range(len(self._all_left(capacity)) - self.levels, len(self._all_left(capacity))))
        first, *others = self._costs
        picked = [*others, *rooms]
        rows = tables[0].shape[1]
        most = MOST_WAYS if rows > FEW_CELLS or len(self.run.leaves) > 1 else None
        left = np.broadcast_to(self._all_left(capacity)[picked][:, None, None], (len(picked), rows, 1))
        whole, trail = all_joined([(t[first], t[picked]) for t in tables], left, np.full((rows, 1), np.inf), most)
        costs = np.zeros((tables[0].shape[0], *whole.moved.shape))
        costs[first], costs[picked] = whole.moved, whole.room
        return costs, trail

    def best(self, capacity: Array) -> list[Weighed]:
        """The best schedules of this order."""
        inside = [
            self._inside_table(group, np.broadcast_to(room, (self.rows, 1)))
            for group, room in zip(self.run.inside, self.inside_rooms(), strict=True)
        ]
        shared = self._shared_tables()
        found: list[Weighed] = []
        for streams in product([False] if self.grain else [False, True], repeat=len(shared)):
            if MOST_STREAMED < sum(streams) < len(streams):
                continue
            held = {tensor: shared[tensor] for tensor, alone in zip(shared, streams, strict=True) if not alone}
            found += self._best_of(inside, held, capacity)
        return found

    def _best_of(
        self, inside: Sequence[Array], held: Mapping[str, tuple[Array, list[Chain]]], capacity: Array
    ) -> list[Weighed]:
        leaves = [
            self._leaf_table(place, leaf, [use for use in uses if use.tensor not in held], capacity)
            for place, (leaf, uses) in enumerate(zip(self.run.leaves, self.run.uses, strict=True))
        ]
        tables = [*inside, *(table for table, _ in held.values()), *(table for table, _ in leaves)]
        whole, trail = self._joined(tables, capacity)
        count = 1 + len(self.prices.ports) + len(self.units)
        energy, latency = whole[0], whole[1:count].max(axis=0)
        keys = {"edp": ("edp", "energy", "latency"), "pareto": ("edp", "energy", "latency")}
        chosen: dict[tuple[int, int], None] = {}
        for kind in keys.get(self.objective, (self.objective,)):
            value = np.where(np.isfinite(whole[self._costs[0]]), ranking(kind, energy, latency), np.inf)
            row_best = np.arange(self.rows) * value.shape[1] + value.argmin(axis=1)
            at_all = np.argsort(value, axis=None)[:KEPT]
            for place in (*at_all, *row_best[np.argsort(value.flat[row_best])[:KEPT]]):
                row, way = divmod(int(place), value.shape[1])
                if np.isfinite(value[row, way]):
                    chosen[row, way] = None
        return [
            Weighed(
                self._schedule(row, trail(row, way), len(inside), held, [decode for _, decode in leaves]),
                float(energy[row, way]),
                float(latency[row, way]),
            )
            for row, way in chosen
        ]

    def _schedule(
        self,
        row: int,
        ways: Sequence[int],
        inside: int,
        held: Mapping[str, tuple[Array, list[Chain]]],
        decoders: Sequence[Decode],
    ) -> RunSchedule:
        own = self.row(row)
        shared = zip(held.items(), ways[inside : inside + len(held)], strict=True)
        held_spots = {tensor: chains[way] for (tensor, (_, chains)), way in shared}
        leaves = [decode(row, way) for decode, way in zip(decoders, ways[inside + len(held) :], strict=True)]
        return RunSchedule(
            run=self.run,
            levels=self.names,
            moved_bytes=self._moved_bytes(own, held_spots, leaves),
            room_bytes=(0.0,) * self.levels,
            loops=tuple(own.items()),
            grain=tuple((rank, min(size, own[rank])) for rank, size in self.grain.items()),
            held=held_spots,
            inside=tuple(map(Spot, ways[:inside], self.inside_depths())),
            leaves=tuple(leaves),
            exact=False,
        )

    def _moved_bytes(
        self, row: Mapping[str, int], held: Mapping[str, Chain], leaves: Sequence[LeafSchedule]
    ) -> float:
        """Traffic of the outermost memory with some chunk sizes of the shared loops."""
        total, loaded = self.written_bytes(), set[str]()
        for leaf, uses, work in zip(leaves, self.run.uses, self.works, strict=True):
            loops = [(rank, np.full((1, 1), float(size))) for rank, size in (*row.items(), *leaf.loops)]
            path = Path(work, loops, self.prices)
            for use in uses:
                if use.tensor in held and use.tensor in loaded:
                    continue
                loaded.add(use.tensor)
                (first, *_) = held.get(use.tensor) or leaf.held[use.tensor]
                down, up = path.passed(use.tensor, use.written, use.shapes, first.depth)
                total += float((down + up).flat[0])
        return total
