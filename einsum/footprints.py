"""Which words of a tensor the points of an Einsum touch.

A footprint is a product of parts, each for some dimensions of the tensor: all their coordinates, those that a condition
or an affine index reaches, or a number alone where only run time knows which ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.access import Access, Index
from einsum.conditions import Kept
from einsum.domains import Domain, Group

Marks = NDArray[np.bool_]
_MAX_MARKS = 2**27


@dataclass(frozen=True)
class Part:
    """Some dimensions of a tensor and their coordinates in use.

    words  number of coordinates in use (of tuples of them, for several dimensions)
    used   marks them, one axis per dimension; None when all are in use, or (not `known`) when only the number is known
    """

    dimensions: tuple[int, ...]
    words: Any
    used: Marks | None = None
    known: bool = True

    @property
    def whole(self) -> bool:
        """Whether every coordinate is in use."""
        return self.used is None and self.known


@dataclass(frozen=True)
class Footprint:
    """The words of one access: the product of its parts, which together have all dimensions of the tensor."""

    shape: tuple[Any, ...]
    parts: tuple[Part, ...]

    @property
    def words(self) -> Any:
        """Words in use."""
        return math.prod(part.words for part in self.parts)

    def marks(self, dimensions: Sequence[int]) -> Marks:
        """The words in use over some dimensions that hold every part that is not whole."""
        result = np.ones([int(self.shape[place]) for place in dimensions], dtype=bool)
        for part in self.parts:
            if part.used is None:
                continue
            order = np.argsort(part.dimensions)
            used = part.used.transpose(order)
            spread = [int(self.shape[place]) if place in part.dimensions else 1 for place in dimensions]
            result &= used.reshape(spread)
        return result


def joined_words(uses: Sequence[Footprint]) -> Any:
    """Words in the union of several accesses to one tensor.

    Where only numbers are known, or the union is too large to mark, the largest access counts: the union has no less.
    """
    for use in uses:
        if len(uses) == 1 or all(part.whole for part in use.parts):
            return use.words
    parts = [part for use in uses for part in use.parts if not part.whole]
    shape = uses[0].shape
    dimensions = sorted({place for part in parts for place in part.dimensions})
    marked = math.prod(int(shape[place]) for place in dimensions)
    if marked > _MAX_MARKS or not all(part.known for part in parts):
        return max(use.words for use in uses)
    union = np.zeros([int(shape[place]) for place in dimensions], dtype=bool)
    for use in uses:
        union |= use.marks(dimensions)
    rest = math.prod(shape[place] for place in range(len(shape)) if place not in dimensions)
    return int(np.count_nonzero(union)) * rest


def footprint(domain: Domain, access: Access) -> Footprint:
    """The words that an access touches at the points of an Einsum (initial values of iterative tensors left out)."""
    ranks = domain.cascade.tensors[access.tensor].ranks
    shape = tuple(domain.extents[rank] for rank in ranks)
    clause = len(access.indices) < len(shape)  # `m in KEEP[...]` looks up the last dimension, kept or not
    if clause:
        access = Access(access.tensor, (*access.indices, Index.of_rank(ranks[-1])))
    parts: list[Part] = []
    left = list(range(len(shape)))
    for group in domain.groups:
        inside = [place for place in left if _touches(domain, access.indices[place], group.bases)]
        if inside:
            parts.append(_restricted(domain, access, group, inside, shape))
            left = [place for place in left if place not in inside]
    for condition in domain.einsum.conditions:
        if clause or not isinstance(condition, Kept) or condition.member is None:
            continue
        member = domain.cascade.base(condition.member)
        for place in [place for place in left if _point_base(domain, access.indices[place]) == member]:
            parts.append(Part((place,), domain.kept_words(condition, shape[place]), known=False))
            left.remove(place)
    return Footprint(shape, (*parts, *_free(domain, access, left, shape)))


def _point_base(domain: Domain, index: Index) -> str | None:
    """The base rank that an index runs over point by point; None for other indices."""
    cascade = domain.cascade
    rank = index.rank
    if rank is None:
        rank = next((name for name in cascade.partitions if index == cascade.coordinate(name)), None)
    if rank is None or cascade.base(rank) != rank or rank not in domain.axes or domain.axes[rank].size != 1:
        return None
    return rank


def _touches(domain: Domain, index: Index, bases: Sequence[str]) -> bool:
    return any(domain.cascade.base(rank) in bases for rank in index.ranks)


def _restricted(domain: Domain, access: Access, group: Group, inside: list[int], shape: tuple[Any, ...]) -> Part:
    """The dimensions that a group of conditions restricts."""
    plain = [base for place in inside if (base := _point_base(domain, access.indices[place])) is not None]
    named = {name for clause in group.conditions for name in clause.names if name in domain.cascade.ranks}
    rest = [base for base in group.bases if base not in plain]
    simple = len(plain) == len(inside) == len(set(plain)) and named <= set(group.bases)
    sizes = [int(shape[place]) for place in inside]
    if simple and len(rest) == 1 and math.prod(sizes) <= _MAX_MARKS:
        mask = domain.intervals(group, plain, rest[0])
        if mask is not None:
            used = (mask.widths > 0).reshape(sizes)
            return Part(tuple(inside), int(np.count_nonzero(used)), used)
    if simple and not rest and math.prod(sizes) > _MAX_MARKS:
        return Part(tuple(inside), domain.count(group), known=False)
    return _enumerated(domain, access, group, inside, sizes)


def _enumerated(domain: Domain, access: Access, group: Group, inside: Sequence[int], sizes: Sequence[int]) -> Part:
    """Mark the coordinates of all kept points, one slice of points after the other."""
    indexed = {rank for place in inside for rank in access.indices[place].ranks}
    ranks = [r for r in domain.einsum.ranks if r in indexed or domain.cascade.base(r) in group.bases]
    used = np.zeros(sizes, dtype=bool)
    for space, mask in domain.slices(group, tuple(ranks)):
        places = [np.broadcast_to(space.position(access.indices[place]), space.shape)[mask] for place in inside]
        # A point past a ragged chunk or an edge reads nothing
        valid = np.logical_and.reduce([(at >= 0) & (at < size) for at, size in zip(places, sizes, strict=True)])
        used[tuple(at[valid] for at in places)] = True
    return Part(tuple(inside), int(np.count_nonzero(used)), used)


def _free(domain: Domain, access: Access, left: Sequence[int], shape: tuple[Any, ...]) -> list[Part]:
    """The dimensions that no condition restricts: whole where a rank runs over them, else what the indices reach."""
    parts = []
    waiting = list(left)
    while waiting:
        place = waiting.pop(0)
        index = access.indices[place]
        sharing = [p for p in waiting if set(access.indices[p].ranks) & set(index.ranks)]
        step = index.step
        along = step is not None and (step[1] == 0 or access == domain.einsum.output)
        if not sharing and (along or _point_base(domain, index) is not None):
            parts.append(Part((place,), shape[place]))
        elif not index.ranks:
            used = np.zeros(int(shape[place]), dtype=bool)
            used[min(int(index.offset.number(domain.values)), len(used) - 1)] = True
            parts.append(Part((place,), 1, used))
        else:
            waiting = [p for p in waiting if p not in sharing]
            inside = [place, *sharing]
            sizes = [int(shape[p]) for p in inside]
            parts.append(_enumerated(domain, access, Group((), ()), inside, sizes))
    return parts
