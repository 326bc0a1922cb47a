"""How much work and traffic a cascade needs at least: operations by kind, and the words that must be moved once.

Masks are counted exactly: a point that a condition leaves out costs nothing, and a word that no kept point touches is
not moved. Sizes may be arrays, one entry per design point; the counts then are arrays as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from einsum.access import Access
from einsum.cascade import Cascade, Tensor
from einsum.domains import Domain
from einsum.errors import SpecError
from einsum.footprints import footprint, joined_words


def count_points(
    cascade: Cascade, env: Mapping[str, Any], kept: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Einsum -> points of its iteration space, as ints, or float arrays where sizes are arrays.

    env   sizes and variables by name
    kept  tensor of a run-time condition -> points that it keeps: per fiber for `m in KEEP[...]`, in all for `KEEP[...]`
    """
    together = not any(einsum.conditions for einsum in cascade.einsums)
    return _for_each_point(cascade, env, together, lambda point: _points(cascade, point, kept or {}))


def _points(cascade: Cascade, env: Mapping[str, Any], kept: Mapping[str, float]) -> dict[str, Any]:
    return {domain.einsum.name: domain.points() for domain in _domains(cascade, env, kept)}


def _domains(cascade: Cascade, env: Mapping[str, Any], kept: Mapping[str, float]) -> list[Domain]:
    values, extents = cascade.environment(env), cascade.extents(env)
    solved: dict[tuple[str, ...], Any] = {}
    return [Domain(cascade, einsum, values, extents, kept, solved) for einsum in cascade.einsums]


def count_operations(
    cascade: Cascade, env: Mapping[str, Any], kept: Mapping[str, float] | None = None
) -> dict[str, dict[str, Any]]:
    """Einsum -> kind of operation -> number, exact under masks; arguments and types as for `count_points`.

    A summed product is one `mac` per point, another reduction one operation of its kind per point.
    """
    points = count_points(cascade, env, kept)
    return {e.name: {kind: each * points[e.name] for kind, each in e.ops.items()} for e in cascade.einsums}


def total_operations(counts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Kind of operation -> number over all Einsums, from what `count_operations` returns."""
    totals: dict[str, Any] = {}
    for kinds in counts.values():
        for kind, number in kinds.items():
            totals[kind] = totals.get(kind, 0) + number
    return totals


def compulsory_words(
    cascade: Cascade, env: Mapping[str, Any], kept: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Words that any schedule moves: of each input those that a kept point reads, of each output those written.

    Arguments as for `count_points`. Where a run-time condition decides, the smallest possible number counts.
    """
    return _for_each_point(cascade, env, _is_plain(cascade), lambda point: _words(cascade, point, kept or {}))


def _is_plain(cascade: Cascade) -> bool:
    """Whether every word of the inputs and outputs is used, so that sizes may be arrays."""
    moved = {tensor.name for tensor in (*cascade.inputs, *cascade.outputs)}
    accesses = [a for einsum in cascade.einsums for a in (*einsum.inputs, einsum.output) if a.tensor in moved]
    dimensions = [
        (index, rank) for a in accesses for index, rank in zip(a.indices, cascade.tensors[a.tensor].ranks, strict=False)
    ]
    plain = all(index.rank is not None or index.step or index == cascade.coordinate(rank) for index, rank in dimensions)
    return plain and not any(einsum.conditions for einsum in cascade.einsums)


def _words(cascade: Cascade, env: Mapping[str, Any], kept: Mapping[str, float]) -> dict[str, Any]:
    domains = _domains(cascade, env, kept)
    found: dict[str, Any] = {}
    for tensor in (*cascade.inputs, *cascade.outputs):
        uses: list[tuple[Domain, Access]] = []
        for domain in domains:
            accesses = domain.einsum.inputs if tensor.kind == "input" else (domain.einsum.output,)
            uses += [(domain, access) for access in accesses if access.tensor == tensor.name]
        footprints = [footprint(domain, access) for domain, access in uses if not domain.empty]
        if footprints:
            found[tensor.name] = joined_words(footprints)
        else:  # nothing is computed from it, or only an initial value
            found[tensor.name] = 0 if uses else math.prod(cascade.shape(tensor.name, cascade.extents(env)))
    return found


def compulsory_traffic(
    cascade: Cascade,
    env: Mapping[str, Any],
    word_bytes: float | Mapping[str, float] = 2.0,
    kept: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Tensor -> bytes that any schedule moves; inputs are read, outputs written.

    word_bytes  bytes per word for all tensors, or by tensor; `bits` of the cascade hold where a tensor is not named
    """
    values = cascade.environment(env)
    words = compulsory_words(cascade, env, kept)
    return {name: count * _word_bytes(cascade.tensors[name], word_bytes, values) for name, count in words.items()}


def _word_bytes(tensor: Tensor, word_bytes: float | Mapping[str, float], values: Mapping[str, Any]) -> Any:
    if isinstance(word_bytes, Mapping) and tensor.name in word_bytes:
        return word_bytes[tensor.name]
    if tensor.bits is not None:
        bits: Any = tensor.bits.evaluate(values)
        return bits / 8
    if isinstance(word_bytes, Mapping):
        raise SpecError(f"no word size is given for '{tensor.name}'")
    return word_bytes


def _for_each_point(
    cascade: Cascade,
    env: Mapping[str, Any],
    together: bool,
    count: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Count all design points together where arrays serve as well as numbers, else once per distinct combination."""
    relevant = {name: np.asarray(env[name]) for name in env if name in _names(cascade)}
    arrays = {name: value for name, value in relevant.items() if value.ndim and value.dtype.kind in "biuf"}
    if not arrays or together:
        return count(env)
    shape = np.broadcast_shapes(*(value.shape for value in arrays.values()))
    table = np.stack([np.broadcast_to(value, shape).ravel() for value in arrays.values()], axis=1)
    distinct, place = np.unique(table, axis=0, return_inverse=True)
    rows = []
    for row in distinct:
        point = {name: _scalar(number) for name, number in zip(arrays, row, strict=True)}
        rows.append(count({**env, **point}))
    spread = place.reshape(shape)
    return {name: np.array([row[name] for row in rows], dtype=np.float64)[spread] for name in rows[0]}


def _names(cascade: Cascade) -> set[str]:
    return {*cascade.parameters, *cascade.definitions}


def _scalar(number: Any) -> int | float:
    return int(number) if float(number).is_integer() else float(number)
