"""Whole mappings to choose from: cuts of a cascade into runs, each run on one of the levels, arranged in time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from itertools import pairwise
from math import inf
from operator import add, le
from typing import Any, Literal

import numpy as np

from mappings.binding import Binding, Issue, balanced, bindings, loads
from mappings.candidate import Candidate
from mappings.closed_form import Space
from mappings.leaf_tables import LeafSchedule
from mappings.mapspace import Leaf, Problem, Run, breakpoints
from mappings.rendering import RunWriter
from mappings.schedules import RunSchedule, best_schedule, common_loops, part_tiles, twice_loaded

Cut = tuple[int, ...]
"""Leaf numbers at which runs begin, the first 0, and the number of leaves at the end."""
Arrangement = Literal["sequence", "pipeline"]
MOST_CUTS = 64
SHARES = (1.0, 0.5, 0.25, 0.05)


class Candidates:
    """Candidate mappings of one problem."""

    def __init__(self, problem: Problem, issue: Issue, variables: Mapping[str, int]) -> None:
        self.problem, self.issue, self.variables = problem, issue, variables
        self.levels = list(problem.machine.memories)[1:]
        self.leaves = problem.leaves()
        self._runs: dict[tuple[int, int], Run | None] = {}
        self._known_bindings: dict[tuple[Any, ...], list[Binding]] = {}
        self._schedules: dict[tuple[Any, ...], RunSchedule | None] = {}

    # Least traffic

    def least_traffic(self, floor_bytes: float) -> Candidate | None:
        """The mapping with the least traffic of the outermost memory, over the levels below it; None if none fits.

        Chunks that fill the units come first: of mappings that move as little, the fastest is taken. A mapping that
        moves no more than `floor_bytes`, what every mapping moves, ends the search.
        """
        best: Candidate | None = None
        proved = False
        for space, tag in self._spaces():
            for made in self._least_in(space, tag, floor_bytes):
                proved |= made.exact or made.moved_bytes <= floor_bytes
                if best is None or (made.moved_bytes, made.estimate_s) < (best.moved_bytes, best.estimate_s):
                    best = made
            if best is not None and best.moved_bytes <= floor_bytes:
                break
        return None if best is None else replace(best, exact=proved)

    def frugal(self, floor_bytes: float) -> list[Candidate]:
        """The mapping with the least traffic by estimate, of each space and level: what a mask moves is an estimate."""
        return [made for space, tag in self._spaces() for made in self._least_in(space, tag, floor_bytes)]

    def _spaces(self) -> list[tuple[Space, str]]:
        if self._width == 1:
            return [(Space(), "all")]
        wide = Space(sizes=self._sizes, grain=self.grain)
        return [(wide, "wide"), (replace(wide, sizes=self.fine_sizes), "fine"), (Space(), "all")]

    def _least_in(self, space: Space, tag: str, floor_bytes: float) -> list[Candidate]:
        """With all tiles of a run in one memory and, where that moves more than the floor, each tile in any of them."""
        found = [made for level in self.levels if (made := self._least_on((level,), space, tag)) is not None]
        if len(self.levels) > 1 and all(made.moved_bytes > floor_bytes for made in found):
            found += filter(None, (self._least_on(tuple(self.levels), space, tag),))
        return found

    def _least_on(self, levels: tuple[str, ...], space: Space, tag: str) -> Candidate | None:
        """Shortest path over the cuts: each run alone has all of the memories."""
        count = len(self.leaves)
        cost = [0.0] + [inf] * count
        before: list[tuple[int, RunSchedule] | None] = [None] * (count + 1)
        exact = len(levels) == len(self.levels) and not self.variables and tag == "all"
        for end in range(1, count + 1):
            for start in range(end):
                if cost[start] == inf:
                    continue
                schedule = self.schedule(start, end, levels, 1.0, space, tag)
                if schedule is None:
                    continue
                exact &= schedule.exact
                if cost[start] + schedule.moved_bytes < cost[end]:
                    cost[end] = cost[start] + schedule.moved_bytes
                    before[end] = start, schedule
        if cost[count] == inf:
            return None
        parts: list[RunSchedule] = []
        at = count
        while at:
            step = before[at]
            assert step is not None
            parts.insert(0, step[1])
            at = step[0]
        return self.candidate(parts, "sequence", exact, overlapped=False)

    def run(self, start: int, end: int) -> Run | None:
        """The run of the leaves from `start` to before `end`."""
        if (start, end) not in self._runs:
            self._runs[start, end] = self.problem.run(self.leaves[start:end])
        return self._runs[start, end]

    def schedule(
        self, start: int, end: int, levels: tuple[str, ...], share: float, space: Space, tag: str = ""
    ) -> RunSchedule | None:
        """The best schedule of a run on a share of some memories: that on all of them, where it fits into the share.

        With several memories, the best with all tiles in one of them is what the search has to beat.
        """
        key = start, end, levels, share, tag, space.buffers
        if key not in self._schedules:
            run = self.run(start, end)
            capacity = {level: float(self.problem.machine.memories[level].capacity_bytes) * share for level in levels}
            whole = self.schedule(start, end, levels, 1.0, space, tag) if share < 1 else None
            if run is None or (share < 1 and whole is None):
                self._schedules[key] = None
            elif whole is not None and all(map(le, whole.room_bytes, capacity.values())):
                self._schedules[key] = whole
            else:
                alone = [self.schedule(start, end, (level,), share, space, tag) for level in levels if len(levels) > 1]
                known = min(filter(None, alone), key=lambda one: one.moved_bytes, default=None)
                self._schedules[key] = best_schedule(self.problem, run, capacity, space, known)
        return self._schedules[key]

    # Whole mappings

    def candidate(
        self,
        parts: Sequence[RunSchedule],
        arrangement: Arrangement,
        exact: bool,
        overlapped: bool,
    ) -> Candidate:
        """The mapping of scheduled runs: one after another, or beside each other under the loops that all share.

        `overlapped`: the leaves of a run work on different tiles at the same time.
        """
        skipped = common_loops(parts) if arrangement == "pipeline" and len(parts) > 1 else 0
        branch: Arrangement = "pipeline" if overlapped else "sequence"
        chosen = self._bound(parts, overlapped)
        used = dict.fromkeys(level for part in parts for level in part.used)
        names = [" ".join(name for leaf in part.run.leaves for name in leaf.einsums) for part in parts]
        return Candidate(
            write=partial(self._nest, parts, branch, skipped, chosen),
            variables=self.variables,
            moved_bytes=sum(part.moved_bytes for part in parts),
            exact=exact,
            description=f"Found by the mapper: {'; then '.join(names)}; tiles in {' and '.join(used)}",
            estimate_s=self._estimate_s(parts, chosen, branch, bool(skipped)),
            tiles=sum(part_tiles(self.problem, part) for part in parts),
        )

    def _nest(
        self,
        parts: Sequence[RunSchedule],
        branch: Arrangement,
        skipped: int,
        chosen: Sequence[Sequence[Binding]],
    ) -> list[Any]:
        """The runs' nest; `skipped` outermost loops lie around all of them."""
        bodies = []
        loaded: set[str] = set()
        for part, own in zip(parts, chosen, strict=True):
            if not skipped:
                loaded = set()
            inner = [self._inner(part, place, loaded) for place in range(len(part.run.leaves))]
            writer = RunWriter(part, branch, inner, self._partition_chunks)
            bodies.append(writer.nodes(own, self.issue, skipped))
        nest: list[Any] = []
        crossing = self._crossing(parts)
        if crossing:
            nest.append({"keep": {next(iter(self.problem.machine.memories)): crossing}})
        if len(parts) == 1:
            nest += bodies[0]
        else:
            if skipped:
                nest.append({"for": dict(parts[0].loops[:skipped])})
            nest.append({"pipeline" if skipped else "sequence": bodies})
        return nest

    @cached_property
    def _partition_chunks(self) -> dict[str, int]:
        return {outer: int(self.problem.ranks.chunk[base].flat[0]) for outer, base in self.problem.outer.items()}

    def _crossing(self, parts: Sequence[RunSchedule]) -> list[str]:
        """Intermediates that go from one run to another, through the outermost memory."""
        cascade = self.problem.cascade
        place = {name: index for index, part in enumerate(parts) for leaf in part.run.leaves for name in leaf.einsums}
        return [
            name
            for name, tensor in cascade.tensors.items()
            if tensor.kind == "intermediate"
            and any(place[reader.name] != place[name] for reader in cascade.consumers(name))
        ]

    def _chunks(self, part: RunSchedule, place: int) -> dict[str, list[int]]:
        """Rank -> nested chunk sizes of the loops around a leaf; chunks of a partition count as one each."""
        chunks: dict[str, list[int]] = {}
        for rank, chunk in (*part.loops, *part.grain, *part.leaves[place].loops):
            chunks.setdefault(rank, []).append(chunk // self._partition_chunks.get(rank, 1) or 1)
        return chunks

    def _bound(self, parts: Sequence[RunSchedule], overlapped: bool) -> list[list[Binding]]:
        ways = [[self._bindings(part, place) for place in range(len(part.run.leaves))] for part in parts]
        flat = balanced([way for part in ways for way in part], overlapped)
        bound, start = [], 0
        for part in ways:
            bound.append(flat[start : start + len(part)])
            start += len(part)
        return bound

    def _bindings(self, part: RunSchedule, place: int) -> list[Binding]:
        leaf, chunks = part.run.leaves[place], self._chunks(part, place)
        key = leaf.einsums, tuple((rank, *sizes) for rank, sizes in chunks.items())
        if key not in self._known_bindings:
            share = self._visited(leaf, chunks)
            found = bindings(self.problem, leaf, chunks, self.issue)
            self._known_bindings[key] = [replace(way, busy_s=way.busy_s * share) for way in found]
        return self._known_bindings[key]

    def _visited(self, leaf: Leaf, chunks: Mapping[str, Sequence[int]]) -> float:
        """The part of a leaf's points that lie in tiles which the mask does not skip."""
        mask, ranks = self.problem.mask, self.problem.ranks
        if mask is None:
            return 1.0
        over = (mask.mask.row, mask.mask.column)
        if not set(over) <= {ranks.base(rank) for rank in leaf.ranks}:
            return 1.0
        sizes = dict(zip(over, (mask.rows, mask.columns), strict=True))
        for rank, nested in chunks.items():
            if ranks.base(rank) in sizes:
                scale = self._partition_chunks.get(rank, 1)
                sizes[ranks.base(rank)] = min(sizes[ranks.base(rank)], *(chunk * scale for chunk in nested))
        return mask.at(sizes[over[0]], sizes[over[1]]).points / (mask.rows * mask.columns)

    def _estimate_s(
        self, parts: Sequence[RunSchedule], bound: Sequence[Sequence[Binding]], branch: Arrangement, together: bool
    ) -> float:
        """Time if nothing waits: the busiest of the outermost memory and the units, run by run or all together."""
        rate = float(self.problem.machine.backing_store.bandwidth_bytes_per_s)
        groups = [list(range(len(parts)))] if together else [[k] for k in range(len(parts))]
        total = 0.0
        for group in groups:
            memory = sum(parts[k].moved_bytes for k in group) / rate
            busy = loads([binding for k in group for binding in bound[k]])
            work = max(busy.values(), default=0.0) if branch == "pipeline" else sum(busy.values())
            total += max(memory, work)
        return total

    # Further levels

    def _inner(
        self, part: RunSchedule, place: int, loaded: set[str]
    ) -> tuple[str, LeafSchedule] | None:
        """How a leaf moves tiles between its run's level and the next one in; each leaf has its share of that level.

        Tensors that every rank of the leaf moves pass the level by, since nothing of them is used twice; so do those
        that another leaf beside it has `loaded` there.
        """
        below = self.levels[self.levels.index(part.levels[-1]) + 1 :]
        if not below:
            return None
        inner = below[0]
        sizes = dict(self.problem.extents)
        for rank, chunk in (*part.loops, *part.grain, *part.leaves[place].loops):
            base = self.problem.ranks.base(rank)
            sizes[base] = np.minimum(sizes[base], chunk)
        leaf = part.run.leaves[place]
        share = 1.0 / max(len(self.leaves), 1)
        capacity = float(self.problem.machine.memories[inner].capacity_bytes) * share
        copies = [spot.buffers for _, chain in part.chains for spot in chain]
        space = Space(sizes=self._sizes, buffers=max(copies, default=1))
        tile = self.problem.within(sizes)
        run = tile.alone(leaf)
        again = {rank for rank in leaf.ranks if tile.coordinates(rank) > 1}
        uses = tuple(
            use
            for use in run.uses[0]
            if use.tensor not in loaded and not all(again <= shape.moved_by for shape in use.shapes)
        )
        loaded.update(use.tensor for use in uses if not use.written)
        found = best_schedule(tile, replace(run, uses=(uses,)), {inner: capacity}, space) if uses else None
        return None if found is None else (inner, found.leaves[0])

    # Mappings for time and energy

    def arranged(self) -> list[Candidate]:
        """Mappings for time and energy, with estimates of their time: every cut on every level, in several ways."""
        found: dict[tuple[Any, ...], Candidate] = {}
        for level in self.levels:
            for cut in self.cuts():
                for buffers, fine in ((2, False), (2, True), (1, False), (1, True)):
                    for candidate in self._arranged(cut, (level,), buffers, fine):
                        key = candidate.description, candidate.moved_bytes, candidate.estimate_s
                        found.setdefault(key, candidate)
        return list(found.values())

    def cuts(self) -> list[Cut]:
        """Ways to cut the cascade into runs: all, or, when there are too many, those with few runs or single leaves."""
        count = len(self.leaves)
        legal = {
            (start, end)
            for start in range(count)
            for end in range(start + 1, count + 1)
            if self.run(start, end) is not None
        }
        found: list[Cut] = []

        def extend(cut: Cut) -> None:
            if len(found) >= MOST_CUTS:
                return
            if cut[-1] == count:
                found.append(cut)
                return
            for end in range(count, cut[-1], -1):
                if (cut[-1], end) in legal:
                    extend((*cut, end))

        extend((0,))
        single = tuple(range(count + 1))
        if all(pair in legal for pair in pairwise(single)) and single not in found:
            found.append(single)
        return found

    def _arranged(self, cut: Cut, levels: tuple[str, ...], buffers: int, fine: bool) -> Iterator[Candidate]:
        """A cut's runs one after another, and, where they have loops in common, all beside each other."""
        space = Space(sizes=self.fine_sizes if fine else self._sizes, grain=self.grain, buffers=buffers)
        tag = "fine" if fine else "wide"
        pairs = list(pairwise(cut))
        whole = [self.schedule(start, end, levels, 1.0, space, tag) for start, end in pairs]
        if all(part is not None for part in whole):
            parts = [part for part in whole if part is not None]
            yield self.candidate(parts, "sequence", False, overlapped=True)
            if len(parts) > 1 and common_loops(parts):
                beside = self._beside(pairs, levels, space, tag)
                if beside is not None and not twice_loaded(beside):
                    yield self.candidate(beside, "pipeline", False, overlapped=True)

    def _beside(
        self, pairs: Sequence[tuple[int, int]], levels: tuple[str, ...], space: Space, tag: str
    ) -> list[RunSchedule] | None:
        """Schedules that fit into the memories together, the least traffic over some shares of them for each run."""
        capacity = tuple(float(self.problem.machine.memories[level].capacity_bytes) for level in levels)
        ways: list[list[RunSchedule]] = []
        for start, end in pairs:
            found = [self.schedule(start, end, levels, share, space, tag) for share in SHARES]
            ways.append([part for part in found if part is not None])
        empty = (0.0,) * len(levels)
        best: dict[tuple[float, ...], tuple[float, list[RunSchedule]]] = {empty: (0.0, [])}
        for run in ways:
            following: dict[tuple[float, ...], tuple[float, list[RunSchedule]]] = {}
            for room, (moved, parts) in best.items():
                for part in run:
                    taken, total = tuple(map(add, room, part.room_bytes)), moved + part.moved_bytes
                    if all(map(le, taken, capacity)) and total < following.get(taken, (inf, []))[0]:
                        following[taken] = total, [*parts, part]
            best = following
        return min(best.values(), key=lambda entry: entry[0], default=(inf, None))[1]

    @cached_property
    def _width(self) -> int:
        """Elements along the widest dimension of any unit."""
        return max(
            (int(size) for unit in self.problem.machine.units.values() for size in unit.dims.values()), default=1
        )

    @cached_property
    def grain(self) -> dict[str, int]:
        """Coordinates of each rank that inner shared loops take at a time: the width of the array."""
        return {rank: self._width for leaf in self.leaves for rank in leaf.ranks}

    def _sizes(self, rank: str, extent: int, shared: bool = False) -> list[int]:
        """Chunks that fill the widest dimension: multiples of it, and the whole rank."""
        width = self._width
        return sorted({min(extent, width * times) for times in breakpoints(-(-extent // width))} | {extent})

    def fine_sizes(self, rank: str, extent: int, shared: bool) -> list[int]:
        """Those, and for loops around several leaves powers of two below."""
        if not shared:
            return self._sizes(rank, extent)
        small = [1 << power for power in range(self._width.bit_length()) if 1 << power < min(self._width, extent)]
        return sorted({*small, *self._sizes(rank, extent)})
