"""How often data moves in a loop nest: the reuse analysis behind all traffic.

A copy of a tensor's tile stays where it is until a loop above it moves on over a rank of the tensor. So a tile is
fetched once per iteration of the loops outside and including the innermost such loop; loops inside that one, over other
ranks, reuse it; loops outside, over other ranks, fetch it again. (Timeloop, ISPASS 2019, section V; a loop with one
trip changes nothing and is skipped.) Ragged chunks are summed exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import mul
from typing import Any

import numpy as np

from einsum.access import Access
from einsum.cascade import Cascade
from einsum.errors import SpecError
from einsum.expressions import Expression
from einsum.symbols import as_floats
from mappings.masked import Space
from mappings.program import Array
from mappings.tiles import Loop, Side, Sizes

Term = tuple[float, str, str]
"""Coefficient, kind, base rank."""
ONE: Array = np.ones((1, 1))
"""At all points and in all classes."""
ONE.flags.writeable = False


@dataclass(frozen=True)
class Dimension:
    """One dimension of a tensor's tile as a sum of coefficient x extent over base ranks (1 + sum c (n - 1) wide).

    kind `whole`: coordinates of a base rank; `outer`, `inner`: chunk index and place in the chunk of a partitioned one.
    """

    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Shape:
    """What a tensor's tile depends on: its dimensions, and the loop names that change its content."""

    dimensions: tuple[Dimension, ...]
    moved_by: frozenset[str]


class Ranks:
    """Rank bookkeeping of one cascade: base ranks, partitions, and the shapes of tensor tiles."""

    def __init__(self, cascade: Cascade, chunk: Mapping[str, Array], env: Mapping[str, Any]) -> None:
        """`chunk`: partitioned base rank -> coordinates of one chunk, (points, 1); `env` holds the variables."""
        self.cascade = cascade
        self.env = env
        self.chunk = chunk
        self.parts = {
            name: (kind, base)
            for base, part in cascade.partitions.items()
            for kind, name in (("outer", part.outer), ("inner", part.inner))
        }

    def base(self, rank: str) -> str:
        """The base rank of a rank as an Einsum writes it."""
        return self.parts[rank][1] if rank in self.parts else rank

    def names_moving(self, rank: str) -> frozenset[str]:
        """Loop names that move on over a rank: a loop over a base rank moves its partition and the other way round."""
        if rank in self.parts:
            return frozenset({rank, self.parts[rank][1]})
        if rank in self.cascade.partitions:
            part = self.cascade.partitions[rank]
            return frozenset({rank, part.outer, part.inner})
        return frozenset({rank})

    def shape(self, access: Access) -> Shape:
        """The tile of a tensor as one access to it cuts it; the place on an iterative rank is no dimension."""
        moved = frozenset(name for rank in access.ranks for name in self.names_moving(rank))
        dropped = self.iterative(access.tensor)
        single = {next(iter(index.terms)) for index in access.indices if len(index.terms) == 1} - dropped
        dimensions: dict[Dimension, None] = {}  # ordered, and a partition's two halves make one dimension
        for index in access.indices:
            ranks = [rank for rank in index.terms if rank not in dropped]
            if not ranks:
                continue
            kinds = [self._kind(rank, single | set(ranks)) for rank in ranks]
            if len(set(kinds)) == 1:
                terms: tuple[Term, ...] = ((1.0, *kinds[0]),)
            else:
                terms = tuple(
                    (self._coefficient(index.terms[rank]), *kind) for rank, kind in zip(ranks, kinds, strict=True)
                )
            dimensions[Dimension(terms)] = None
        return Shape(tuple(dimensions), moved)

    def _kind(self, rank: str, beside: set[str]) -> tuple[str, str]:
        """(kind, base rank) of a rank; outer and inner rank of a partition side by side are the whole base rank."""
        kind, base = self.parts.get(rank, ("whole", rank))
        partner = any(other != rank and self.parts.get(other, ("", ""))[1] == base for other in beside)
        return ("whole", base) if partner else (kind, base)

    def _coefficient(self, value: Any) -> float:
        number = value.evaluate(self.env) if isinstance(value, Expression) else value
        if np.ndim(number):
            raise SpecError("the coefficient of an index must be the same at all design points")
        return float(number)

    def iterative(self, tensor: str) -> frozenset[str]:
        """Iterative ranks along which only the latest value of the tensor is kept."""
        steps = (
            index.step
            for einsum in self.cascade.einsums
            if einsum.output.tensor == tensor
            for index in einsum.output.indices
        )
        return frozenset(step[0] for step in steps if step is not None and step[1] != 0)

    def extent(self, kind: str, base: str, sizes: Mapping[str, Array]) -> Array:
        """Extent of a rank kind when `sizes` coordinates of each base rank are at hand."""
        if kind == "outer":
            return np.ceil(sizes[base] / self.chunk[base])
        if kind == "inner":
            return np.minimum(self.chunk[base], sizes[base])
        return sizes[base]

    def words(self, shape: Shape, sizes: Mapping[str, Array]) -> Array:
        """Words of a tile when `sizes` coordinates of each base rank are at hand."""
        total: Array = ONE
        for dimension in shape.dimensions:
            width = sum((c * (self.extent(kind, base, sizes) - 1) for c, kind, base in dimension.terms), ONE)
            total = total * width
        return total

    def volume(self, names: Iterable[str], sizes: Mapping[str, Array]) -> Array:
        """Points of an iteration space over these ranks when `sizes` coordinates of each base rank are at hand."""
        beside = set(names)
        kinds = dict.fromkeys(self._kind(rank, beside) for rank in names)
        total: Array = ONE
        for kind, base in kinds:
            total = total * self.extent(kind, base, sizes)
        return total

    def moved_words(self, shape: Shape, sizes: Mapping[str, Array], inner: Sequence[InnerLoop]) -> Array:
        """Words over all chunks into which inner loops cut a tile; the halos of affine dimensions are moved again."""
        total: Array = ONE
        for dimension in shape.dimensions:
            if len(dimension.terms) == 1:
                total = total * self.extent(*dimension.terms[0][1:], sizes)
                continue
            trips = [
                reduce(mul, (loop.trips for loop in inner if loop.rank == base), ONE) for _, _, base in dimension.terms
            ]
            chunks = reduce(mul, trips)
            width = chunks
            for (coefficient, kind, base), own in zip(dimension.terms, trips, strict=True):
                width = width + coefficient * (self.extent(kind, base, sizes) * chunks / own - chunks)
            total = total * width
        return total


@dataclass(frozen=True)
class InnerLoop:
    """A loop below the tile loops: its average trips given the tile, (points, classes)."""

    name: str
    rank: str
    trips: Array


def inner_loops(loops: Sequence[Loop], sizes: Mapping[str, Array]) -> tuple[InnerLoop, ...]:
    """Trips of loops inside one tile of the given sizes; the products over a rank's loops are exact chunk counts."""
    chunks: dict[str, list[Array]] = {}
    result = []
    for loop in loops:
        before = chunks.setdefault(loop.rank, [])
        visited = count_chunks(sizes[loop.rank], before)
        before.append(loop.chunk)
        result.append(InnerLoop(loop.name, loop.rank, count_chunks(sizes[loop.rank], before) / visited))
    return tuple(result)


def count_chunks(size: Array, chunks: Sequence[Array]) -> Array:
    """Innermost chunks when `size` coordinates are cut by nested chunk sizes, outermost first, the last ragged."""
    if not chunks:
        return np.ones_like(size)
    last = chunks[-1]
    if (last == 1).all():
        return size  # single coordinates, however they are grouped
    if len(chunks) == 1:
        return np.ceil(size / last)
    first, rest = np.minimum(chunks[0], size), chunks[1:]
    full = np.floor(size / first)
    remainder = size - full * first
    whole = full * count_chunks(first, rest)
    return np.where(remainder > 0, whole + count_chunks(np.maximum(remainder, 1), rest), whole)


@dataclass(frozen=True)
class Visits:
    """Visits of a child copy per tile, (points, classes): `all`, and those that see a tile for the first time.

    sizes   of the ranks in the copy that comes
    """

    all: Array
    distinct: Array
    sizes: Sizes


def visits(
    moved_by: frozenset[str],
    space: Space,
    depth: int,
    inner: Sequence[InnerLoop],
    skipped: frozenset[int] = frozenset(),
    side: Side = "first",
) -> Visits:
    """How often, per tile, a copy that sits below `depth` tile loops and all `inner` loops is replaced.

    Chunks that inner loops over the copy's own ranks cut are not counted here: they sum to the tile's words. See
    `TileSpace.replaced` for the other arguments and what is raised.
    """
    settled = np.zeros(space.counts.shape, dtype=bool)
    again = np.ones(space.counts.shape)
    for loop in reversed(inner):
        if loop.name in moved_by:
            settled = settled | (loop.trips > 1)
        else:
            again = again * np.where(settled, loop.trips, 1.0)
    weight, fresh, sizes = space.replaced(moved_by, depth, settled, skipped, side)
    return Visits(again * weight, fresh, sizes)


def column(value: Any) -> Array:
    """A number or an array over design points as a (points, 1) or (1, 1) array."""
    return as_floats(value).reshape(-1, 1)
