"""What makes a cascade meaningless, each found before anything runs, and said in one sentence with its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from einsum.access import Access, Index
from einsum.body import reads, symbols
from einsum.conditions import Kept
from einsum.dependences import schedule
from einsum.einsum import Einsum
from einsum.errors import SpecError, nearest
from einsum.expressions import closed, resolve

if TYPE_CHECKING:
    from einsum.cascade import Cascade


def check_cascade(cascade: Cascade) -> None:
    """Raise SpecError for the first mistake."""
    for position, einsum in enumerate(cascade.statements):
        try:
            _check_einsum(cascade, einsum)
        except SpecError as error:
            raise error.located(key=f"einsums[{position}]") from None
    _check_conditions(cascade)
    _check_sizes(cascade)
    _check_use(cascade)
    schedule(cascade.einsums, cascade.iterative)


def _check_einsum(cascade: Cascade, einsum: Einsum) -> None:
    known = _symbols(cascade)
    accesses = [einsum.output, *einsum.inputs, *(reads(einsum.initial) if einsum.initial is not None else ())]
    for access in accesses:
        _check_access(cascade, access, known)
    names = [*symbols(einsum.body), *(symbols(einsum.initial) if einsum.initial is not None else ())]
    for name in names:
        if name not in known and name not in cascade.ranks:
            hint = nearest(name, known | cascade.ranks.keys() | cascade.tensors.keys())
            raise SpecError(f"unknown name '{name}' in '{einsum}'{hint}")
    for rank in einsum.ranks:
        if rank in cascade.partitions and (parts := set(cascade.family(rank)) & set(einsum.ranks)):
            both = f"'{rank}' and its part '{sorted(parts)[0]}'"
            raise SpecError(f"{both} are used together in '{einsum}': write {rank} as {cascade.coordinate(rank)}")
    for index in einsum.output.indices:
        _check_output_index(cascade, einsum, index)
    iterates = any(step[1] > 0 for step in (index.step for index in einsum.output.indices) if step)
    if iterates and einsum.initial is None:
        raise SpecError(f"'{einsum.name}' is iterative but has no initial value (add it under 'initial')")
    if not iterates and einsum.initial is not None:
        raise SpecError(f"'{einsum.name}' has an initial value but is not iterative, as in {einsum.name}[...,i+1]")


def _symbols(cascade: Cascade) -> set[str]:
    """Names that stand for a number: variables, extents, chunk counts."""
    return {*cascade.definitions, *cascade.parameters}


def _check_output_index(cascade: Cascade, einsum: Einsum, index: Index) -> None:
    step = index.step
    if step is not None and step[1] == 0:
        return
    if step is not None and step[1] == 1 and step[0] in cascade.iterative:
        return
    if step is not None and step[1] > 0:
        raise SpecError(f"'{einsum.output}' writes ahead along '{step[0]}', which is not listed as iterative")
    if any(index == cascade.coordinate(rank) for rank in cascade.partitions):
        return
    raise SpecError(f"the output '{einsum.output}' is indexed by '{index}', expected a rank")


def _check_access(cascade: Cascade, access: Access, known: set[str]) -> None:
    tensor = cascade.tensors.get(access.tensor)
    if tensor is None:
        raise SpecError(f"unknown tensor '{access.tensor}'{nearest(access.tensor, cascade.tensors)}")
    members = len(tensor.ranks)
    if len(access.indices) != members and not _is_membership(cascade, access):
        shape = f"{tensor.name}[{','.join(tensor.ranks)}]"
        raise SpecError(f"'{access}' has {len(access.indices)} indices, but {shape} has {members}")
    for position, index in enumerate(access.indices):
        unknown = sorted(index.variables - known)
        if unknown:
            hint = nearest(unknown[0], known | cascade.ranks.keys())
            raise SpecError(f"unknown rank or variable '{unknown[0]}' in '{access}'{hint}")
        _check_extent(cascade, access, index, tensor.ranks[position])


def _is_membership(cascade: Cascade, access: Access) -> bool:
    """Whether the access belongs to a clause `j in KEEP[...]`, which leaves out the last dimension."""
    clauses = [*cascade.where, *(condition for einsum in cascade.statements for condition in einsum.conditions)]
    members = [c for c in clauses if isinstance(c, Kept) and c.member is not None and c.access == access]
    return bool(members) and len(access.indices) == len(cascade.tensors[access.tensor].ranks) - 1


def _check_extent(cascade: Cascade, access: Access, index: Index, dimension: str) -> None:
    """A plain rank must have the extent of the dimension that it indexes; other indices are checked with sizes."""
    step = index.step
    rank = step[0] if step else next((r for r in cascade.partitions if index == cascade.coordinate(r)), None)
    if rank is None or rank == dimension or (step and step[1] != 0 and not cascade.ranks[rank].iterative):
        return
    used, declared = cascade.ranks[rank].extent, cascade.ranks[dimension].extent
    if used != declared:
        raise SpecError(
            f"the extents do not match in '{access}': '{index}' runs over {used}, "
            f"but the dimension {dimension} of {access.tensor} has {declared}"
        )


def _check_conditions(cascade: Cascade) -> None:
    known = _symbols(cascade)
    clauses = [(f"where[{position}]", condition, None) for position, condition in enumerate(cascade.where)]
    places: list[tuple[str, Any, Einsum | None]] = [*clauses]
    for position, einsum in enumerate(cascade.statements):
        places += [(f"einsums[{position}]", condition, einsum) for condition in einsum.conditions]
    for key, condition, where in places:
        if isinstance(condition, Kept):
            try:
                _check_access(cascade, condition.access, known)
            except SpecError as error:
                raise error.located(key=key) from None
        unknown = sorted(name for name in condition.names if name not in known and name not in cascade.ranks)
        if unknown:
            hint = nearest(unknown[0], known | cascade.ranks.keys())
            raise SpecError(f"unknown rank or variable '{unknown[0]}' in '{condition}'{hint}", key=key)
        targets = cascade.statements if where is None else (where,)
        if not any(cascade.restricts(condition, target) for target in targets):
            place = "no Einsum iterates" if where is None else f"'{where.name}' does not iterate"
            raise SpecError(f"{place} over all ranks of the condition '{condition}'", key=key)


def is_size(value: Any) -> bool:
    """Whether a value, or every entry of an array, is a whole number of at least 1."""
    array = np.asarray(value)
    return array.dtype.kind in "iuf" and bool(np.all((array >= 1) & (array % 1 == 0)))


def _check_sizes(cascade: Cascade) -> None:
    """Extents that follow from the cascade alone."""
    defaults = closed(cascade.variables, ())
    values = resolve(defaults, {})
    for rank in cascade.ranks.values():
        if rank.extent.names <= defaults.keys():
            check_size(rank.extent.evaluate(values), rank.name, str(rank.extent), f"ranks.{rank.name}")


def check_size(extent: Any, rank: str, text: str, key: str | None = None) -> None:
    """Refuse an extent that is not a whole number of at least 1."""
    if not is_size(extent):
        named = "" if text == str(extent) else f" {text}"
        found = f"the extent{named} of rank '{rank}' is {extent}"
        raise SpecError(f"{found}, expected a whole number of at least 1", key=key)


def _check_use(cascade: Cascade) -> None:
    read = {access.tensor for einsum in cascade.einsums for access in einsum.inputs}
    read |= {a.tensor for e in cascade.einsums if e.initial is not None for a in reads(e.initial)}
    produced = {einsum.name for einsum in cascade.einsums}
    for tensor in cascade.tensors.values():
        if tensor.kind == "output" and tensor.name not in produced:
            hint = nearest(tensor.name, produced)
            raise SpecError(f"no Einsum produces the output '{tensor.name}'{hint}", key="outputs")
        if tensor.kind == "input" and tensor.name not in read:
            raise SpecError(f"the input '{tensor.name}' is never used", key=f"inputs.{tensor.name}")
        if tensor.kind == "intermediate" and tensor.name not in read:
            raise SpecError(f"'{tensor.name}' is never used and is not an output", key=f"einsums.{tensor.name}")
    used = {rank for einsum in cascade.einsums for rank in (*einsum.ranks, *einsum.output.ranks)}
    used |= {rank for tensor in cascade.tensors.values() for rank in tensor.ranks}
    used |= {cascade.base(rank) for rank in used}
    for rank in cascade.ranks:
        parent = next((p for p in cascade.partitions.values() if rank in (p.outer, p.inner)), None)
        if rank not in used and not (parent is not None and rank in cascade.partitions):
            raise SpecError(f"the rank '{rank}' is never used", key=f"ranks.{rank}")


def check_ranges(cascade: Cascade, values: Mapping[str, Any], extents: Mapping[str, Any]) -> None:
    """With sizes known, every index that is not a plain rank must stay inside its tensor.

    Einsums under conditions are left out: a condition may keep the index inside, which running them will show.
    """
    for position, einsum in enumerate(cascade.einsums):
        if einsum.conditions:
            continue
        for access in einsum.inputs:
            sizes = cascade.shape(access.tensor, extents)
            for index, dimension, size in zip(access.indices, cascade.tensors[access.tensor].ranks, sizes, strict=True):
                if index.rank is not None or index == cascade.coordinate(dimension):
                    continue
                low, high = _span(index, values, extents)
                if np.any(low < 0) or np.any(high >= size):
                    raise SpecError(
                        f"the index '{index}' of '{access}' runs from {_shown(low)} to {_shown(high)}, "
                        f"but the dimension {dimension} has {_shown(size)} coordinates",
                        key=f"einsums[{position}]",
                    )


def _span(index: Index, values: Mapping[str, Any], extents: Mapping[str, Any]) -> tuple[Any, Any]:
    low: Any = index.offset.evaluate(values)
    high = low
    for rank, factor in index.terms.items():
        reach: Any = np.asarray(factor.evaluate(values)) * (np.asarray(extents[rank]) - 1)
        low, high = low + np.minimum(reach, 0), high + np.maximum(reach, 0)
    return np.asarray(low), np.asarray(high)


def _shown(value: Any) -> str:
    array = np.asarray(value)
    return f"{array.item():g}" if array.ndim == 0 else f"{array.max():g}"

