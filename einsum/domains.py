"""The points of an Einsum, counted without visiting them.

Ranks that no condition touches multiply. Ranks that conditions relate form a group, which is counted row by row from
the intervals of `masks`; a group that keeps no intervals is enumerated, one slice at a time where it is large.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.cascade import Cascade
from einsum.conditions import Comparison, Kept
from einsum.einsum import Einsum
from einsum.errors import SpecError
from einsum.iteration import Space
from einsum.masks import MaskIntervals, NotIntervals, solve

MAX_ENUMERATED = 2**33
_SLICE = 2**24


@dataclass(frozen=True)
class Axis:
    """How an Einsum runs over a base rank.

    ranks   the ranks of the Einsum that belong to it
    size    coordinates of the base rank per point: 1 for all of it, the chunk size for chunks, None for something else
    extent  points along the axis
    """

    base: str
    ranks: tuple[str, ...]
    size: Any
    extent: Any


@dataclass(frozen=True)
class Group:
    """Base ranks that conditions relate to each other, with these conditions."""

    bases: tuple[str, ...]
    conditions: tuple[Comparison, ...]


@dataclass(frozen=True)
class Domain:
    """The iteration space of one Einsum for given sizes; `values` and `extents` may hold arrays if nothing is masked.

    kept    tensor of a run-time condition -> points kept: per fiber for `m in KEEP[...]`, in all for `KEEP[...]`
    solved  intervals found so far, shared by the domains of a cascade
    """

    cascade: Cascade
    einsum: Einsum
    values: Mapping[str, Any]
    extents: Mapping[str, Any]
    kept: Mapping[str, float]
    solved: dict[tuple[str, ...], MaskIntervals | None] = field(default_factory=dict, compare=False)

    @cached_property
    def axes(self) -> dict[str, Axis]:
        """Base rank -> what of it the Einsum iterates."""
        found: dict[str, Axis] = {}
        for rank in self.einsum.ranks:
            base = self.cascade.base(rank)
            if base not in found:
                ranks = tuple(other for other in self.einsum.ranks if self.cascade.base(other) == base)
                found[base] = self._axis(base, ranks)
        return found

    def _axis(self, base: str, ranks: tuple[str, ...]) -> Axis:
        family = self.cascade.family(base)
        covered = {part for rank in ranks for part in self.cascade.family(rank)}
        present = [part for part in family if part in covered]
        if len(present) == len(family):
            return Axis(base, ranks, 1, self.extents[base])
        if present == list(family[: len(present)]):
            size: Any = self.cascade.coordinate(base).terms[present[-1]].evaluate(self.values)
            return Axis(base, ranks, size, -(-self.extents[base] // size))
        extent = math.prod(self.extents[part] for part in present)
        if family[0] in present:
            extent = self._enumerated(Group((base,), ()), present)
        return Axis(base, ranks, None, extent)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The conditions known before run time, by the base ranks that they relate."""
        groups: list[Group] = []
        for condition in self.einsum.conditions:
            if not isinstance(condition, Comparison):
                continue
            bases = {self.cascade.base(name) for name in condition.names if name in self.cascade.ranks}
            touching = [group for group in groups if bases & set(group.bases)]
            merged = sorted(bases.union(*(group.bases for group in touching)))
            clauses = [clause for group in touching for clause in group.conditions]
            groups = [group for group in groups if group not in touching]
            groups.append(Group(tuple(merged), (*clauses, condition)))
        return tuple(groups)

    def points(self) -> Any:
        """Points of the iteration space: an int, or an array where sizes are arrays."""
        groups, total = self.groups, 1
        free = dict(self.axes)
        for condition in self.einsum.conditions:
            if isinstance(condition, Kept):
                number, bases = self._kept_points(condition, groups)
                groups = tuple(group for group in groups if not set(group.bases) & set(bases))
                total = total * number
                free = {base: axis for base, axis in free.items() if base not in bases}
        for group in groups:
            total = total * self.count(group)
            free = {base: axis for base, axis in free.items() if base not in group.bases}
        for axis in free.values():
            total = total * axis.extent
        return total

    @property
    def empty(self) -> bool:
        """Whether the conditions known before run time keep no point at all."""
        return any(self.count(group) == 0 for group in self.groups)

    def count(self, group: Group) -> int:
        """Points of the axes of a group that its conditions keep."""
        if self._closed(group):
            for column in sorted(group.bases, key=lambda base: (self.axes[base].size == 1, base)):
                rows = [base for base in group.bases if base != column]
                mask = self.intervals(group, rows, column)
                if mask is not None:
                    return self._count_rows(mask, rows, column)
        leaves = [rank for base in group.bases for rank in self.axes[base].ranks]
        return self._enumerated(group, leaves)

    def _closed(self, group: Group) -> bool:
        """Whether intervals can describe the group: whole ranks or chunks, and conditions on base ranks."""
        named = {name for condition in group.conditions for name in condition.names if name in self.cascade.ranks}
        sizes = [self.axes[base].size for base in group.bases]
        chunks = [size for size in sizes if size != 1]
        return named <= set(group.bases) and None not in sizes and (len(sizes) <= 2 or not chunks)

    def intervals(self, group: Group, rows: Iterable[str], column: str) -> MaskIntervals | None:
        """Kept coordinates of one base rank for each point of the others (flattened), None if they are no intervals."""
        rows = list(rows)
        key = (column, *rows, *map(str, group.conditions))
        if key not in self.solved:
            self.solved[key] = self._solve(group, rows, column)
        return self.solved[key]

    def _solve(self, group: Group, rows: list[str], column: str) -> MaskIntervals | None:
        shape = [int(self.extents[base]) for base in rows]
        if math.prod(shape) > _SLICE:
            return None
        grid = {}
        for axis, base in enumerate(rows):
            line = np.arange(shape[axis]).reshape([-1 if place == axis else 1 for place in range(len(rows))])
            grid[base] = np.broadcast_to(line, shape).ravel()
        scope = {**self.values, **grid}
        try:
            starts, ends = solve(group.conditions, column, int(self.extents[column]), scope, math.prod(shape))
        except NotIntervals:
            return None
        return MaskIntervals(" x ".join(rows), column, int(self.extents[column]), starts, ends)

    def _count_rows(self, mask: MaskIntervals, rows: list[str], column: str) -> int:
        size = int(self.axes[column].size)
        row_size = int(self.axes[rows[0]].size) if len(rows) == 1 else 1
        if row_size > 1:
            return int(mask.tiles(row_size, size).tiles.sum())
        return mask.points if size == 1 else int(mask.chunks(size).sum())

    def _enumerated(self, group: Group, ranks: Iterable[str]) -> int:
        """Count by evaluating the conditions at every point."""
        total = 0
        for _, mask in self.slices(group, tuple(ranks)):
            total += int(np.count_nonzero(mask))
        return total

    def slices(self, group: Group, ranks: tuple[str, ...]) -> Iterable[tuple[Space, NDArray[np.bool_]]]:
        """The kept points over some ranks, cut along the first ones so that no piece is too large."""
        sizes = [int(self.extents[rank]) for rank in ranks]
        if math.prod(sizes) > MAX_ENUMERATED:
            clauses = " and ".join(str(condition) for condition in group.conditions)
            raise SpecError(f"'{clauses}' keeps no intervals, and {math.prod(sizes):.3g} points are too many to visit")
        cut = 0
        while cut < len(sizes) and math.prod(sizes[cut:]) > _SLICE:
            cut += 1
        for place in np.ndindex(*sizes[:cut]):
            fixed = dict(zip(ranks[:cut], place, strict=True))
            space = Space(self.cascade, ranks[cut:], fixed, self.values, self.extents)
            mask = space.kept(group.conditions, {})
            yield space, np.broadcast_to(True if mask is None else mask, space.shape)

    # Kept sets that only run time knows

    def _kept_points(self, condition: Kept, groups: tuple[Group, ...]) -> tuple[Any, tuple[str, ...]]:
        """How many points a run-time condition keeps, and the base ranks that this number stands for."""
        tensor = condition.access.tensor
        if condition.member is None:
            bases = tuple(self.cascade.base(rank) for rank in condition.access.ranks)
            if tensor in self.kept:
                return self.kept[tensor], bases
            member = self._selected(tensor)
            if member is None:
                raise self._unknown(condition)
        else:
            member = condition.member
        base = self.cascade.base(member)
        if self.axes[base].size != 1:
            raise SpecError(f"how many chunks of '{base}' '{condition}' keeps in '{self.einsum.name}' is not known")
        if condition.member is not None and tensor in self.kept:
            return self.kept[tensor], (base,)
        limit = self._selection_size(tensor)
        if limit is None:
            raise self._unknown(condition)
        group = self._candidates(tensor, base, groups)
        if group is None:
            return np.minimum(limit, self.extents[base]) if np.ndim(limit) else min(limit, self.extents[base]), (base,)
        rows = [other for other in group.bases if other != base]
        mask = self.intervals(group, rows, base)
        if mask is None:
            raise SpecError(f"'{condition}' selects among points that are no intervals of {base}")
        return int(np.minimum(mask.widths, limit).sum()), group.bases

    def kept_words(self, condition: Kept, extent: Any) -> Any:
        """The least number of coordinates along the member's dimension that a clause `m in KEEP[...]` keeps."""
        tensor = condition.access.tensor
        limit = self.kept[tensor] if tensor in self.kept else self._selection_size(tensor)
        if limit is None:
            raise self._unknown(condition)
        return np.minimum(limit, extent) if np.ndim(limit) or np.ndim(extent) else min(limit, extent)

    def _unknown(self, condition: Kept) -> SpecError:
        return SpecError(
            f"how many points '{condition}' keeps in '{self.einsum.name}' is known only at run time; "
            f"give the number kept for '{condition.access.tensor}'"
        )

    def _selected(self, tensor: str) -> str | None:
        producer = self.cascade.producers(tensor)
        selects = bool(producer) and producer[0].reduction == "topk_mask"
        return producer[0].reduced[0] if selects else None

    def _selection_size(self, tensor: str) -> Any:
        """How many coordinates a list holds, or a top-k mask marks; None for other masks."""
        producer = self.cascade.producers(tensor)
        if producer and producer[0].keep is not None:
            return producer[0].keep.evaluate(self.values)
        lists = bool(producer) and producer[0].reduction == "topk"
        return self.extents[self.cascade.tensors[tensor].ranks[-1]] if lists else None

    def _candidates(self, tensor: str, base: str, groups: tuple[Group, ...]) -> Group | None:
        """The conditions under which the selection was made, which must include those of this Einsum."""
        producer = self.cascade.producers(tensor)[0]
        made = Domain(self.cascade, producer, self.values, self.extents, self.kept, self.solved)
        mine = next((group for group in groups if base in group.bases), None)
        theirs = next((group for group in made.groups if base in group.bases), None)
        if mine is not None and (theirs is None or any(clause not in theirs.conditions for clause in mine.conditions)):
            clauses = " and ".join(str(condition) for condition in mine.conditions)
            raise SpecError(f"how many points that '{tensor}' keeps satisfy '{clauses}' is known only at run time")
        return theirs
