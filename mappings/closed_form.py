"""What a placement costs, in closed form and for arrays of tile sizes: room in the buffer, bytes that pass.

Traffic of a tensor = its words x the trips of the loops that reload its tile (`mappings.movement` states the rule); a
result that a loop still reduces is written at each visit and read back at each but the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import permutations
from math import prod
from operator import mul

import numpy as np

from mappings.dominance import Placement, steady_depth
from mappings.mapspace import Problem, Run, Use, breakpoints
from mappings.movement import InnerLoop, Shape
from mappings.program import Array

Face = tuple[int, int]
"""Loops that cut a tile and loops that reload it, as bits of their places in a path."""
MOST_ORDERS = 120
MOST_ROWS = 20_000
MOST_MASKED = 64
"""Ranks of a mask up to this extent are tried with every chunk size."""


@dataclass(frozen=True)
class Space:
    """What of a run's space is searched.

    sizes    chunk sizes that are tried for (rank, extent, whether the loop is shared), ascending; None: all breakpoints
    grain    rank -> chunk of the inner loops that cut what stays on chip finer than what comes from outside
    buffers  copies of every tile that is replaced
    rows     most combinations of chunk sizes of the shared loops
    """

    sizes: Callable[[str, int, bool], list[int]] | None = None
    grain: Mapping[str, int] = field(default_factory=dict)
    buffers: int = 1
    rows: int = MOST_ROWS


class Frame:
    """One order of a run's shared loops: arrays over all their chunk sizes, (rows, 1), and what placements cost.

    `exact` tells whether no chunk size had to be left out, and no tile overlaps the next, so that pruning is exact.
    """

    def __init__(
        self,
        problem: Problem,
        run: Run,
        order: tuple[str, ...],
        grain: Mapping[str, int],
        space: Space,
        levels: int = 1,
    ) -> None:
        """`levels`: in how many memories tiles may lie."""
        self.problem, self.run, self.space, self.levels = problem, run, space, levels
        self.order = (*run.batch, *order)
        self.grain = {rank: size for rank, size in grain.items() if rank not in problem.outer}
        single = [r for r in run.batch if space.sizes is None or r in problem.universal]
        ways, self.exact = thinned([[1] if rank in single else self.sizes(rank) for rank in self.order], space.rows)
        uses = [use for uses in run.uses for use in uses]
        halos = any(len(d.terms) > 1 for use in uses for shape in use.shapes for d in shape.dimensions)
        # Cutting a tile with a halo, or one of two tiles that were the same, takes less room but moves more; under a
        # mask chunks that are as many differ.
        self.exact &= not halos and all(len(use.shapes) == 1 for use in uses) and problem.mask is None
        grid = np.meshgrid(*(np.asarray(way, dtype=float) for way in ways), indexing="ij") if ways else []
        self.rows = prod(len(way) for way in ways)
        self.chunks = {rank: axis.reshape(-1, 1) for rank, axis in zip(self.order, grid, strict=True)}

    def sizes(self, rank: str) -> list[int]:
        """Chunks of a rank in coordinates: breakpoints, the space's own, or one chunk of a partition."""
        extent = self.problem.coordinates(rank)
        if rank in self.problem.outer:
            return [min(int(self.problem.ranks.chunk[self.problem.outer[rank]].flat[0]), extent)]
        if self.space.sizes is not None:
            return self.space.sizes(rank, extent, rank in self.run.shared)
        return list(range(1, extent + 1)) if self.masks(rank) and extent <= MOST_MASKED else breakpoints(extent)

    def masks(self, rank: str) -> bool:
        """Whether the cascade's mask relates a rank to another."""
        mask = self.problem.mask
        return mask is not None and self.problem.ranks.base(rank) in (mask.mask.row, mask.mask.column)

    # `chunks` has a chunk size for every rank that some loop of the path visits.

    def room(self, tensors: Sequence[str], cuts: Sequence[str], chunks: Mapping[str, Array]) -> Array:
        """Bytes of the largest of some tensors' tiles."""
        sizes = dict(self.problem.extents)
        for rank in cuts:
            base = self.problem.ranks.base(rank)
            sizes[base] = np.minimum(sizes[base], chunks[rank])
        return reduce(np.maximum, (self.problem.tile_bytes(tensor, sizes) for tensor in tensors))

    def trips(self, rank: str, chunks: Mapping[str, Array]) -> Array:
        """Iterations of a loop."""
        return np.ceil(self.problem.coordinates(rank) / chunks[rank])

    def moved(self, use: Use, shape: Shape, path: Sequence[str], face: Face, chunks: Mapping[str, Array]) -> Array:
        """Bytes that pass between the buffer and the memory outside for one tile of a tensor."""
        problem = self.problem
        cuts, reloads = ranks_of(face[0], path), ranks_of(face[1], path)
        inner = [InnerLoop(rank, problem.ranks.base(rank), self.trips(rank, chunks)) for rank in cuts]
        words = problem.ranks.moved_words(shape, problem.extents, inner)
        visits = reduce(mul, (self.trips(rank, chunks) for rank in reloads if not self.masks(rank)), np.ones((1, 1)))
        distinct = np.ones((1, 1))
        if problem.mask is not None:
            roles = {problem.ranks.base(rank): "reload" for rank in reloads if self.masks(rank)}
            roles |= {problem.ranks.base(rank): "cut" for rank in cuts if self.masks(rank)}
            sizes = {problem.ranks.base(rank): chunk for rank, chunk in chunks.items()}
            masked, stay = problem.mask.visits(roles, sizes)
            outer = max((path.index(rank) for rank in reloads if self.masks(rank)), default=len(path))
            inside = (self.trips(r, chunks) for r in cuts if path.index(r) > outer and not self.masks(r))
            masked = masked - stay * (reduce(mul, inside, np.ones((1, 1))) == 1)
            visits = visits * masked
            distinct = masked if set(roles.values()) == {"cut"} else distinct
        return words * problem.bytes[use.tensor] * (2 * visits - distinct if use.written else visits)

    def cut_by(self, shape: Shape, ranks: Sequence[str]) -> tuple[bool, ...]:
        """Which of some loops change a tile."""
        return tuple(rank in shape.moved_by for rank in ranks)

    def faces(self, use: Use, ranks: Sequence[str]) -> tuple[tuple[bool, ...], ...]:
        """For each tile of a use, which of some loops change it; tiles that the same loops change are one."""
        return tuple(dict.fromkeys(self.cut_by(shape, ranks) for shape in use.shapes))

    def shape_of(self, use: Use, face: int, path: Sequence[str]) -> Shape:
        """A shape that a use's tile of some number has."""
        flags = self.faces(use, path)[face]
        return next(shape for shape in use.shapes if self.cut_by(shape, path) == flags)

    def placed_room(self, use: Use, spot: Placement, path: Sequence[str], chunks: Mapping[str, Array]) -> Array:
        """Bytes that a placed tensor takes in the buffer."""
        copies = self.space.buffers if spot.depth else 1
        tiles = []
        for number, (cuts, _) in enumerate(spot.faces):
            sizes = dict(self.problem.extents)
            for rank in ranks_of(cuts, path):
                base = self.problem.ranks.base(rank)
                sizes[base] = np.minimum(sizes[base], chunks[rank])
            tiles.append(self.problem.ranks.words(self.shape_of(use, number, path), sizes))
        return copies * self._together(spot, path, chunks, tiles) * self.problem.bytes[use.tensor]

    def placed_moved(self, use: Use, spot: Placement, path: Sequence[str], chunks: Mapping[str, Array]) -> Array:
        """Bytes that pass between the buffer and the memory outside for a placed tensor."""
        shapes = [self.shape_of(use, number, path) for number in range(len(spot.faces))]
        tiles = [self.moved(use, shape, path, face, chunks) for shape, face in zip(shapes, spot.faces, strict=True)]
        return self._together(spot, path, chunks, tiles)

    def _together(
        self, spot: Placement, path: Sequence[str], chunks: Mapping[str, Array], values: Sequence[Array]
    ) -> Array:
        """Sum over a tensor's tiles; two that only loops of one iteration tell apart are one."""
        if len(values) == 1:
            return values[0]
        kept: list[Array] = []
        for number, value in enumerate(values):
            alone = np.ones((1, 1), dtype=bool)
            for other in range(number):
                apart = ranks_of(spot.faces[number][0] ^ spot.faces[other][0], path)
                same = alone & (reduce(mul, (self.trips(rank, chunks) for rank in apart), np.ones((1, 1))) == 1)
                kept[other] = np.where(same, np.maximum(kept[other], value), kept[other])
                alone = alone & ~same
            kept.append(np.where(alone, value, 0.0))
        return sum(kept, np.zeros((1, 1)))

    def written_bytes(self) -> float:
        """Bytes of what stays in the run and is written outside as well."""
        ranks = self.problem.ranks
        return sum(
            float(np.prod(ranks.words(self.problem.shape(t), self.problem.extents)) * self.problem.bytes[t])
            for group in self.run.inside
            for t in group.stored
        )

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

    def inside_rooms(self) -> Iterator[Array]:
        """Bytes of each allocation of the run."""
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

    def joint(self, tensor: str) -> Use:
        """The use of a tensor by all of its readers."""
        found = [use for uses in self.run.uses for use in uses if use.tensor == tensor]
        return Use(tensor, False, tuple(dict.fromkeys(shape for use in found for shape in use.shapes)))

    def idle(self, tensor: str) -> list[bool]:
        """Shared loops that none of a tensor's readers iterates."""
        readers = [leaf for leaf, uses in zip(self.run.leaves, self.run.uses, strict=True)
                   if any(use.tensor == tensor for use in uses)]  # fmt: skip
        return [all(rank not in leaf.ranks for leaf in readers) for rank in self.order]

    def row(self, row: int) -> dict[str, int]:
        """Chunk sizes of the shared loops in one row."""
        return {rank: int(chunk[row, 0]) for rank, chunk in self.chunks.items()}


def thinned(ways: Sequence[Sequence[int]], most: int) -> tuple[list[list[int]], bool]:
    """Chunk sizes thinned out evenly until their product is small enough, and whether that was not necessary."""
    kept = [list(way) for way in ways]
    whole = True
    while prod(len(way) for way in kept) > most:
        longest = max(range(len(kept)), key=lambda k: len(kept[k]))
        if len(kept[longest]) == 1:
            break
        kept[longest] = kept[longest][::-2][::-1]
        whole = False
    return kept, whole


def ranks_of(bits: int, path: Sequence[str]) -> list[str]:
    """The ranks of a path's loops at the places of some bits."""
    return [rank for place, rank in enumerate(path) if bits >> place & 1]


def orders_of(ranks: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Orders of some loops, at most `MOST_ORDERS`."""
    for count, order in enumerate(permutations(ranks)):
        if count >= MOST_ORDERS:
            return
        yield order
