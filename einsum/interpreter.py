"""Runs any cascade on NumPy arrays: what the text means, in numbers.

Each Einsum is evaluated over its whole iteration space at once; recurrences run as a loop over their iterative rank.
Points that a condition or a ragged last chunk leaves out are not computed: they do not enter reductions, an output
that only they would give stays 0, and an iterative tensor keeps its value there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from einsum.body import MAPS, REDUCTIONS, Body, Literal, Map, Read, Symbol
from einsum.cascade import Cascade
from einsum.dependences import Loop, Schedule, flatten
from einsum.einsum import Einsum
from einsum.errors import SpecError, nearest
from einsum.evaluation import Name
from einsum.iteration import Array, Space


def run(
    cascade: Cascade,
    inputs: Mapping[str, Any],
    extents: Mapping[str, Any] | None = None,
    dtype: DTypeLike = np.float64,
) -> dict[str, Array]:
    """Evaluate a cascade; returns every produced tensor by name, outputs and intermediates.

    inputs   tensor -> array with one axis per rank of the tensor
    extents  sizes and variables by name, such as {'M': 1009, 'M0': 256}; sizes that the shapes of the inputs show may
             be left out
    dtype    of all tensors

    An iterative tensor has one more coordinate along its iterative rank, the first being the initial value. SpecError
    for missing or unknown inputs, for shapes that do not fit, and for an index that leaves its tensor.
    """
    unknown = next((name for name in inputs if name not in {tensor.name for tensor in cascade.inputs}), None)
    if unknown is not None:
        raise SpecError(f"unknown input '{unknown}'{nearest(unknown, (tensor.name for tensor in cascade.inputs))}")
    arrays = {}
    for tensor in cascade.inputs:
        if tensor.name not in inputs:
            raise SpecError(f"the input '{tensor.name}[{','.join(tensor.ranks)}]' is missing")
        arrays[tensor.name] = np.asarray(inputs[tensor.name], dtype=dtype)
        if arrays[tensor.name].ndim != len(tensor.ranks):
            shape = f"{tensor.name}[{','.join(tensor.ranks)}]"
            found = arrays[tensor.name].ndim
            raise SpecError(f"the input {shape} has {found} dimensions, expected {len(tensor.ranks)}")
    env = {**_sizes_of(cascade, arrays), **(extents or {})}
    sizes = {rank: int(extent) for rank, extent in cascade.extents(env).items()}
    for tensor in cascade.inputs:
        expected, given = cascade.shape(tensor.name, sizes), arrays[tensor.name].shape
        if expected != given:
            raise SpecError(f"the input {tensor.name}[{','.join(tensor.ranks)}] has shape {given}, expected {expected}")
    execution = _Execution(cascade, arrays, cascade.environment(env), sizes, np.dtype(dtype))
    with np.errstate(all="ignore"):
        execution.execute(cascade.schedule, {})
    return {einsum.name: execution.arrays[einsum.name] for einsum in cascade.einsums}


def _sizes_of(cascade: Cascade, arrays: Mapping[str, Array]) -> dict[str, int]:
    """Sizes that the shapes of the inputs show: extents that are a plain name."""
    sizes: dict[str, int] = {}
    for tensor in cascade.inputs:
        for rank, size in zip(tensor.ranks, arrays[tensor.name].shape, strict=True):
            extent = cascade.ranks[rank].extent.root
            if isinstance(extent, Name) and extent.name in cascade.parameters:
                sizes.setdefault(extent.name, size)
    return sizes


class _Execution:
    """The tensors of one run."""

    def __init__(
        self,
        cascade: Cascade,
        arrays: dict[str, Array],
        values: Mapping[str, Any],
        extents: Mapping[str, int],
        dtype: np.dtype[Any],
    ) -> None:
        self.cascade = cascade
        self.arrays = arrays
        self.values = values
        self.extents = extents
        self.dtype = dtype

    def execute(self, order: Schedule, fixed: Mapping[str, int]) -> None:
        for item in order:
            if isinstance(item, Loop):
                for position in flatten(item.body):
                    self.allocate(self.cascade.einsums[position])
                for step in range(self.extents[item.rank]):
                    self.execute(item.body, {**fixed, item.rank: step})
            else:
                einsum = self.cascade.einsums[item]
                self.allocate(einsum)
                self.evaluate(einsum, fixed)

    def allocate(self, einsum: Einsum) -> None:
        """Make room for an output, with its initial value before the first iteration."""
        if einsum.name in self.arrays:
            return
        array = np.zeros(self.cascade.shape(einsum.name, self.extents), dtype=self.dtype)
        self.arrays[einsum.name] = array
        if einsum.initial is None:
            return
        ranks = tuple(rank for rank in self.cascade.tensors[einsum.name].ranks)
        stepped = [axis for axis, slots in enumerate(self.cascade.slots(einsum.name)) if slots]
        outer = {ranks[axis]: 0 for axis in stepped}
        space = self.space(tuple(rank for rank in ranks if rank not in outer), outer)
        value = self.value(einsum.initial, space, None)
        place = tuple(0 if axis in stepped else slice(None) for axis in range(array.ndim))
        array[place] = np.broadcast_to(value, space.shape)

    def space(self, ranks: tuple[str, ...], fixed: Mapping[str, int]) -> Space:
        return Space(self.cascade, ranks, fixed, self.values, self.extents)

    def evaluate(self, einsum: Einsum, fixed: Mapping[str, int]) -> None:
        """Compute all points of an Einsum, ranks in `fixed` at one coordinate."""
        space = self.space(tuple(rank for rank in einsum.ranks if rank not in fixed), fixed)
        mask = space.kept(einsum.conditions, self.arrays)
        ahead = [step[0] for step in (index.step for index in einsum.output.indices) if step and step[1]]
        moving = [rank for rank in ahead if rank not in fixed]
        if mask is not None and moving:  # a point that is left out keeps the value of the iteration before
            for step in range(self.extents[moving[0]]):
                self.evaluate(einsum, {**fixed, moving[0]: step})
            return
        if einsum.reduction is None:
            result = np.broadcast_to(self.value(einsum.body, space, mask), space.shape)
            computed = mask
        elif REDUCTIONS[einsum.reduction].ufunc is None:
            result, computed = self.select(einsum, space, mask), None
        else:
            result = self.reduce(einsum, space, mask)
            axes = tuple(axis for axis, rank in enumerate(space.ranks) if rank in einsum.reduced)
            carried = mask is not None and bool(ahead)
            computed = np.asarray(np.broadcast_to(np.asarray(mask), space.shape).any(axis=axes)) if carried else None
        self.write(einsum, fixed, result, computed, bool(ahead))

    def value(self, body: Body, space: Space, mask: Array | None) -> Array:
        """The body over the space, axes of length 1 where nothing depends on them."""
        if isinstance(body, Read):
            return space.read(body.access, self.arrays, mask)
        if isinstance(body, Literal):
            return np.asarray(body.value, dtype=self.dtype)
        if isinstance(body, Symbol):
            known = body.name in self.cascade.ranks
            value = space.coordinate(body.name) if known else self.values[body.name]
            return np.asarray(value, dtype=self.dtype)
        operands = [self.value(operand, space, mask) for operand in body.operands]
        return np.asarray(MAPS[body.function].apply(*operands), dtype=self.dtype)

    def reduce(self, einsum: Einsum, space: Space, mask: Array | None) -> Array:
        """Combine the kept points along the reduced ranks."""
        assert einsum.reduction is not None
        reduction = REDUCTIONS[einsum.reduction]
        assert reduction.ufunc is not None
        if einsum.reduction == "sum":
            factors = [self.value(factor, space, mask) for factor in _factors(einsum.body)]
            contracted = _contract(factors, mask, space, einsum.reduced)
            if contracted is not None:
                return contracted
        values = np.broadcast_to(self.value(einsum.body, space, mask), space.shape)
        axes = tuple(axis for axis, rank in enumerate(space.ranks) if rank in einsum.reduced)
        where = True if mask is None else np.broadcast_to(mask, space.shape)
        return np.asarray(reduction.ufunc.reduce(values, axis=axes, where=where, initial=reduction.identity))

    def select(self, einsum: Einsum, space: Space, mask: Array | None) -> Array:
        """The largest points along the selected rank: their coordinates, their values, or a mask of them."""
        axis = space.ranks.index(einsum.reduced[0])
        values = np.broadcast_to(self.value(einsum.body, space, mask), space.shape)
        kept = np.ones(space.shape, bool) if mask is None else np.broadcast_to(mask, space.shape)
        order = np.lexsort((-values, ~kept), axis=axis)  # stable: ties go to the smaller coordinate
        if einsum.reduction == "topk_mask":
            assert einsum.keep is not None
            wanted = int(einsum.keep.number(self.values))
            place = np.argsort(order, axis=axis, kind="stable")
            return ((place < wanted) & kept).astype(self.dtype)
        wanted = self.extents[str(einsum.output.indices[-1].rank)]
        best = np.take(order, range(min(wanted, space.shape[axis])), axis=axis)
        found = np.take_along_axis(kept, best, axis)
        chosen = best if einsum.reduction == "topk" else np.take_along_axis(values, best, axis)
        empty = REDUCTIONS[str(einsum.reduction)].identity
        result = np.moveaxis(np.where(found, chosen, empty), axis, -1)
        missing = wanted - result.shape[-1]
        return np.pad(result, [(0, 0)] * (result.ndim - 1) + [(0, missing)], constant_values=empty)

    def write(
        self, einsum: Einsum, fixed: Mapping[str, int], result: Array, computed: Array | None, ahead: bool
    ) -> None:
        """Store a result (axes in the order of the output's ranks) where it was computed."""
        array = self.arrays[einsum.name]
        steps = [index.step for index in einsum.output.indices]
        if None in steps or len(einsum.output.ranks) < len(steps):
            self.scatter(einsum, fixed, result, computed)
            return
        places: list[int | slice] = []
        for step in steps:
            assert step is not None
            rank, offset = step
            places.append(fixed[rank] + offset if rank in fixed else slice(offset, None))
        target = tuple(places)
        if computed is None:
            array[target] = result
            return
        before: Array | float = 0.0
        if ahead:  # inside the loop over the iterative rank
            at = [
                place - step[1] if step and isinstance(place, int) else place
                for place, step in zip(places, steps, strict=True)
            ]
            before = array[tuple(at)]
        array[target] = np.where(computed, result, before)

    def scatter(self, einsum: Einsum, fixed: Mapping[str, int], result: Array, computed: Array | None) -> None:
        """Store a result at computed coordinates, such as `S[m1*M0+m0]`."""
        array = self.arrays[einsum.name]
        space = self.space(tuple(rank for rank in einsum.output.ranks if rank not in fixed), fixed)
        places = [np.broadcast_to(space.position(index), space.shape) for index in einsum.output.indices]
        valid = np.broadcast_to(True if computed is None else computed, space.shape).copy()
        for place, size in zip(places, array.shape, strict=True):
            valid &= place < size
        array[tuple(place[valid] for place in places)] = result[valid]


def _factors(body: Body) -> list[Body]:
    if isinstance(body, Map) and body.function == "*":
        return [factor for operand in body.operands for factor in _factors(operand)]
    return [body]


def _contract(factors: list[Array], mask: Array | None, space: Space, reduced: tuple[str, ...]) -> Array | None:
    """A sum of products by matrix products; None where that would differ from summing the kept points.

    Points that the mask leaves out become a factor 0, which is only right for finite factors.
    """
    if mask is not None:
        if not all(np.isfinite(factor).all() for factor in factors):
            return None
        factors = [*factors, mask.astype(factors[0].dtype)]
    sizes = space.shape
    operands: list[Any] = []
    seen: set[int] = set()
    for factor in factors:
        shape = (1,) * (len(sizes) - factor.ndim) + factor.shape
        axes = [axis for axis, size in enumerate(shape) if size > 1]
        seen.update(axes)
        operands += [factor.reshape([shape[axis] for axis in axes]), axes]
    kept = [axis for axis, rank in enumerate(space.ranks) if rank not in reduced]
    summed = [axis for axis, rank in enumerate(space.ranks) if rank in reduced]
    if any(sizes[axis] > 1 and axis not in seen for axis in summed) or len(sizes) > 50:
        return None
    output = [axis for axis in kept if axis in seen]
    result = np.einsum(*operands, output, optimize=len(factors) > 1)
    shaped = np.asarray(result).reshape([sizes[axis] if axis in seen else 1 for axis in kept])
    return np.broadcast_to(shaped, [sizes[axis] for axis in kept])

