"""Which unit computes each leaf, and which of its ranks are laid over the unit's dimensions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Literal

from mappings.mapspace import Leaf, Problem

Issue = Literal["serial", "chained"]
MOST_ASSIGNMENTS = 4096


@dataclass(frozen=True)
class Binding:
    """A leaf on a unit: rank -> dimension, and the seconds that the unit is busy with the whole leaf."""

    unit: str
    spatial: Mapping[str, str]
    busy_s: float


def bindings(problem: Problem, leaf: Leaf, chunks: Mapping[str, Sequence[int]], issue: Issue) -> list[Binding]:
    """The fastest way on each unit that can run the leaf. `chunks`: rank -> nested chunk sizes, outermost first."""
    found = []
    for name in problem.units(problem.einsums(leaf)):
        unit = problem.machine.units[name]
        slots = 0.0
        for einsum in problem.einsums(leaf):
            costs = [float(unit.op(kind).cycles) * count for kind, count in einsum.ops.items()]
            slots += (max(costs) if issue == "chained" else sum(costs)) if costs else 0.0
        best = min(
            (_passes(problem, leaf, chunks, name, spatial), k, spatial)
            for k, spatial in enumerate(_layouts(problem, leaf, name))
        )
        found.append(Binding(name, best[2], best[0] * slots / float(unit.clock_hz)))
    return sorted(found, key=lambda binding: binding.busy_s)


def _layouts(problem: Problem, leaf: Leaf, unit: str) -> list[dict[str, str]]:
    """Ranks on dimensions: every choice of a rank for each dimension, reduced ranks last."""
    dims = list(problem.machine.units[unit].dims)
    first, *_ = problem.einsums(leaf)
    ranks = sorted(first.ranks, key=lambda rank: rank in first.reduced)
    laid = min(len(dims), len(ranks))
    return [dict(zip(chosen, dims, strict=False)) for chosen in permutations(ranks, laid)] or [{}]


def _passes(
    problem: Problem, leaf: Leaf, chunks: Mapping[str, Sequence[int]], unit: str, spatial: Mapping[str, str]
) -> float:
    """Steps of the unit over the whole leaf."""
    ranks, total = problem.ranks, 1.0
    widths = problem.machine.units[unit].dims
    for rank in problem.einsums(leaf)[0].ranks:
        kind, base = ranks.parts.get(rank, ("whole", rank))
        extent = problem.coordinates(base)
        width = int(widths[spatial[rank]]) if rank in spatial else 1
        if kind == "outer":
            total *= _count(-(-extent // int(ranks.chunk[base].flat[0])), [*chunks.get(rank, ()), width])
        elif kind == "inner":
            total *= -(-min(extent, int(ranks.chunk[base].flat[0])) // width)
        else:
            total *= _count(extent, [*chunks.get(base, ()), width])
    return total


def _count(extent: int, chunks: Sequence[int]) -> int:
    """Innermost chunks of nested chunk sizes, the last ones ragged."""
    if not chunks:
        return extent
    if len(chunks) == 1:
        return -(-extent // chunks[0])
    first = min(chunks[0], extent)
    full, rest = divmod(extent, first)
    return full * _count(first, chunks[1:]) + (_count(rest, chunks[1:]) if rest else 0)


def balanced(choices: Sequence[Sequence[Binding]], overlapped: bool) -> list[Binding]:
    """One binding for each leaf: the fastest each, or, where leaves overlap, those with the least busy unit."""
    sizes = 1
    for ways in choices:
        sizes *= len(ways)
    if not overlapped or sizes > MOST_ASSIGNMENTS:
        return [ways[0] for ways in choices]

    def strain(chosen: Sequence[Binding]) -> tuple[float, float]:
        busy = list(loads(chosen).values())
        return max(busy), sum(busy)

    return min((list(chosen) for chosen in product(*choices)), key=strain)


def loads(chosen: Sequence[Binding]) -> dict[str, float]:
    """Busy seconds of each unit."""
    total: dict[str, float] = {}
    for binding in chosen:
        total[binding.unit] = total.get(binding.unit, 0.0) + binding.busy_s
    return total
