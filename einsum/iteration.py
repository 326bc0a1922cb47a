"""The points of an Einsum as NumPy axes: coordinates of ranks, which points are kept, and tensors read at the points.

An array "over the space" has one axis per rank of the space, of length 1 where it does not depend on that rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.access import Access, Index
from einsum.cascade import Cascade
from einsum.conditions import Comparison, Condition, Kept
from einsum.errors import SpecError

Array = NDArray[Any]


@dataclass(frozen=True)
class Space:
    """Some ranks of a cascade as axes, others fixed at one coordinate.

    ranks    the ranks that are axes, in order
    fixed    coordinates of the ranks of enclosing loops
    values   variables by name
    extents  rank -> extent
    """

    cascade: Cascade
    ranks: tuple[str, ...]
    fixed: Mapping[str, int]
    values: Mapping[str, Any]
    extents: Mapping[str, int]

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the axes."""
        return tuple(self.extents[rank] for rank in self.ranks)

    def extended(self, extra: tuple[str, ...]) -> Space:
        """The space with further axes at the end."""
        return Space(self.cascade, self.ranks + extra, self.fixed, self.values, self.extents)

    def covers(self, rank: str) -> bool:
        """Whether a rank is an axis or fixed."""
        return rank in self.ranks or rank in self.fixed

    def coordinate(self, rank: str) -> Array | int:
        """The coordinate of a rank at every point; of a partitioned rank, with absent parts at 0."""
        if rank in self.fixed:
            return self.fixed[rank]
        if rank in self.ranks:
            axis = self.ranks.index(rank)
            shape = [1] * len(self.ranks)
            shape[axis] = self.extents[rank]
            return np.arange(self.extents[rank]).reshape(shape)
        if rank in self.cascade.partitions:
            return self.position(self.cascade.coordinate(rank))
        return 0

    def position(self, index: Index) -> Array | int:
        """The value of an index at every point."""
        total: Array | int = int(index.offset.number(self.values))
        for rank, factor in index.terms.items():
            total = total + self.coordinate(rank) * int(factor.number(self.values))
        return total

    def kept(self, conditions: tuple[Condition, ...], tensors: Mapping[str, Array]) -> Array | None:
        """Where the points exist and satisfy all conditions, over the space; None when all do.

        A condition on a partitioned rank of which inner parts are absent keeps a chunk if it keeps any point of it.
        """
        absent = {
            part
            for condition in conditions
            for rank in condition.names & self.cascade.ranks.keys()
            for part in self.cascade.family(rank)
            if not self.covers(part)
        }
        extra = tuple(rank for rank in self.cascade.ranks if rank in absent)
        space = self.extended(extra) if extra else self
        mask = space._ragged()
        for condition in conditions:
            clause = space._holds(condition, tensors, mask)
            mask = clause if mask is None else np.asarray(mask & clause)
        if mask is not None and extra:
            axes = tuple(range(len(self.ranks), len(space.ranks)))
            mask = np.asarray(mask.reshape((1,) * (len(space.ranks) - mask.ndim) + mask.shape).any(axis=axes))
        return None if mask is None or bool(np.all(mask)) else mask

    def _ragged(self) -> Array | None:
        """Where the coordinates of partitioned ranks exist, or None where no last chunk is ragged."""
        mask: Array | None = None
        for rank in self.cascade.partitions:
            if self.cascade.base(rank) == rank and self.covers(self.cascade.family(rank)[0]):
                exists = np.asarray(self.coordinate(rank)) < self.extents[rank]
                if not exists.all():
                    mask = exists if mask is None else np.asarray(mask & exists)
        return mask

    def _holds(self, condition: Condition, tensors: Mapping[str, Array], mask: Array | None) -> Array:
        if isinstance(condition, Comparison):
            ranks = condition.names & self.cascade.ranks.keys()
            env = {**self.values, **{rank: self.coordinate(rank) for rank in ranks}}
            return np.asarray(condition.expression.evaluate(env), dtype=bool)
        return self._kept_at_run_time(condition, tensors, mask)

    def _kept_at_run_time(self, condition: Kept, tensors: Mapping[str, Array], mask: Array | None) -> Array:
        access, member = condition.access, condition.member
        if member is None:
            return np.asarray(self.read(access, tensors, mask) != 0)
        if is_mask(self.cascade, condition):
            index = self.cascade.coordinate(member)
            return np.asarray(self.read(Access(access.tensor, (*access.indices, index)), tensors, mask) != 0)
        here = np.asarray(self.coordinate(member))
        found = np.zeros((1,) * len(self.ranks), dtype=bool)
        for place in range(tensors[access.tensor].shape[-1]):
            listed = self.read(Access(access.tensor, (*access.indices, Index.at(place))), tensors, mask)
            found = np.asarray(found | (listed == here))
        return found

    def read(self, access: Access, tensors: Mapping[str, Array], mask: Array | None = None) -> Array:
        """The elements of a tensor over the space.

        Coordinates outside the tensor are allowed only at points that `mask` leaves out; else SpecError.
        """
        array = tensors[access.tensor]
        axes = [rank for index in access.indices for rank in index.ranks if rank in self.ranks]
        if len(axes) != len(set(axes)):
            places = [np.asarray(place) for place in self._places(access, array, mask)]
            found = np.asarray(array[tuple(places)])
            return found.reshape((1,) * (len(self.ranks) - found.ndim) + found.shape)
        order: list[str] = []
        for index, place in zip(access.indices, self._places(access, array, mask), strict=True):
            axis = len(order)
            moving = [rank for rank in self.ranks if rank in index.ranks]
            if not moving:
                array = array.take(int(np.asarray(place).item()), axis=axis)
                continue
            whole = index.rank is not None and array.shape[axis] == self.extents[index.rank]
            if not whole:
                array = array.take(np.asarray(place).reshape([self.extents[rank] for rank in moving]), axis=axis)
            order += moving
        array = array.transpose([order.index(rank) for rank in self.ranks if rank in order])
        return array.reshape([self.extents[rank] if rank in order else 1 for rank in self.ranks])

    def _places(self, access: Access, array: Array, mask: Array | None) -> list[Array | int]:
        """The coordinates of an access per dimension, clipped into the tensor where no point in use reads them."""
        places = []
        for index, size in zip(access.indices, array.shape, strict=True):
            place = self.position(index)
            outside = (np.asarray(place) < 0) | (np.asarray(place) >= size)
            if outside.any():
                if mask is None or bool((outside & mask).any()):
                    raise SpecError(f"the index '{index}' of '{access}' leaves the tensor, whose size there is {size}")
                place = np.clip(place, 0, size - 1)
            places.append(place)
        return places


def is_mask(cascade: Cascade, condition: Kept) -> bool:
    """Whether `j in T[...]` reads a 0/1 mask over j; otherwise T lists coordinates along its last dimension."""
    tensor = cascade.tensors[condition.access.tensor]
    producer = cascade.producers(tensor.name)
    if producer and producer[0].reduction == "topk":
        return False
    assert condition.member is not None
    last, member = tensor.ranks[-1], condition.member
    return last == member or cascade.ranks[last].extent == cascade.ranks[member].extent
