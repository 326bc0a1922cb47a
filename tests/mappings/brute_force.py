"""The least traffic of small problems by trying every schedule of the mapper's space, one by one.

Nothing here is in closed form: loads are counted by walking the iterations of the loops and watching when the tile
changes. All chunk sizes are tried, not only those that differ in their number of chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from math import inf, prod
from operator import add, le

Path = tuple[tuple[str, int], ...]
"""Loops, outermost first: rank and chunk."""
Ranks = tuple[str, ...]
Ways = list[tuple[int, ...]]
"""(words moved, words of room in each memory on chip)"""


@dataclass(frozen=True)
class Outside:
    """A tensor that a leaf takes from the slow memory, or writes there."""

    ranks: Ranks
    written: bool = False


@dataclass(frozen=True)
class Part:
    """A leaf: its ranks, and what it exchanges with the slow memory."""

    ranks: Ranks
    outside: tuple[Outside, ...]


@dataclass(frozen=True)
class Fused:
    """Leaves under shared loops; `inside`: ranks of each allocation that stays in the buffer; `common`: inputs that
    several leaves read."""

    parts: tuple[Part, ...]
    shared: Ranks = ()
    inside: tuple[Ranks, ...] = ()
    common: tuple[Ranks, ...] = ()


Keeps = Callable[[Mapping[str, int]], bool]
"""A mask: whether it keeps a point of its ranks."""


def least_words(
    fused: Fused,
    extents: Mapping[str, int],
    capacities: Sequence[int | tuple[int, ...]],
    keeps: Keeps | None = None,
    over: Ranks = (),
) -> list[float]:
    """The fewest words that any schedule of some leaves moves, for each buffer size; infinite where none fits.

    A size may be a tuple, of as many memories on chip: each tile lies in any of them. Under a mask over some
    ranks, iterations without a point that it keeps are skipped.
    """
    _MASK[:] = [(over, keeps)] if keeps else []
    _loads.cache_clear()
    _distinct.cache_clear()
    sizes = tuple(sorted(extents.items()))
    best = [inf] * len(capacities)
    all_rooms = [given if isinstance(given, tuple) else (given,) for given in capacities]
    for moved, *rooms in _schedules(fused, sizes, len(all_rooms[0])):
        for place, capacity in enumerate(all_rooms):
            if moved < best[place] and all(room <= most for room, most in zip(rooms, capacity, strict=True)):
                best[place] = moved
    return best


_MASK: list[tuple[Ranks, Keeps]] = []


def _empty(box: Mapping[str, tuple[int, int]]) -> bool:
    """Whether a mask keeps nothing of a box."""
    for ranks, keeps in _MASK:
        points = product(*(range(*box[rank]) for rank in ranks))
        return not any(keeps(dict(zip(ranks, point, strict=True))) for point in points)
    return False


def _schedules(fused: Fused, sizes: Path, levels: int) -> Iterator[tuple[int, ...]]:
    extents = dict(sizes)
    for order in permutations(fused.shared):
        for chunks in product(*(range(1, extents[rank] + 1) for rank in order)):
            shared = tuple(zip(order, chunks, strict=True))
            for fine in (False, True) if len(fused.parts) > 1 else (False,):
                grain = tuple((rank, 1) for rank in order) if fine else ()
                yield from _below(fused, shared, grain, sizes, levels)


def _below(fused: Fused, shared: Path, grain: Path, sizes: Path, levels: int) -> Iterator[tuple[int, ...]]:
    ways: Ways = [(0,) * (levels + 1)]
    for ranks in fused.inside:
        path = (*shared, *grain)
        room = min(
            _room(path[:d], ranks, sizes)
            for d in range(len(path) + 1)
            if _loads(path[:d], ranks, sizes) == _distinct(path[:d], ranks, sizes)
        )
        ways = _added(ways, _anywhere([(0, room)], levels))
    for ranks in fused.common:
        together = [_held(shared[:d], Outside(ranks), sizes) for d in range(len(shared) + 1)]
        readers = sum(set(ranks) >= set(part.ranks) for part in fused.parts)
        streamed = [] if grain else [(prod(dict(sizes)[rank] for rank in ranks) * readers, readers)]
        ways = _added(ways, _anywhere([*together, *streamed], levels))
    for part in fused.parts:
        if part.outside:
            ways = _added(ways, _leaf_ways(part, shared, bool(grain), sizes, levels))
    yield from ways


def _leaf_ways(part: Part, shared: Path, plain: bool, sizes: Path, levels: int) -> Ways:
    extents = dict(sizes)
    own = [] if plain else [rank for rank in part.ranks if rank not in dict(shared)]
    found: Ways = []
    for order in permutations(own):
        for chunks in product(*(range(1, extents[rank] + 1) for rank in order)):
            path = (*shared, *zip(order, chunks, strict=True))
            ways: Ways = [(0,) * (levels + 1)]
            for tensor in part.outside:
                held = [_held(path[:d], tensor, sizes) for d in range(len(path) + 1)]
                ways = _added(ways, _anywhere(held, levels))
            found += ways
    return _pareto(found)


def _added(first: Ways, second: Ways) -> Ways:
    return _pareto([tuple(map(add, one, other)) for one in first for other in second])


def _anywhere(ways: list[tuple[int, int]], levels: int) -> Ways:
    """Ways to hold a tile, with its room in any one of the memories."""
    spots = [[int(level == spot) for level in range(levels)] for spot in range(levels)]
    return [(moved, *(room * here for here in spot)) for moved, room in ways for spot in spots]


def _pareto(ways: Ways) -> Ways:
    kept: Ways = []
    for way in sorted(set(ways)):
        if not any(all(map(le, other, way)) for other in kept):
            kept.append(way)
    return kept


def _held(path: Path, tensor: Outside, sizes: Path) -> tuple[int, int]:
    loads = _loads(path, tensor.ranks, sizes)
    whole = _distinct(path, tensor.ranks, sizes)
    return (2 * loads - whole if tensor.written else loads), _room(path, tensor.ranks, sizes)


def _room(path: Path, ranks: Ranks, sizes: Path) -> int:
    extents = dict(sizes)
    return prod(min([extents[rank], *(chunk for name, chunk in path if name == rank)]) for rank in ranks)


@lru_cache(maxsize=1_000_000)
def _loads(path: Path, ranks: Ranks, sizes: Path) -> int:
    """Words that are brought below the loops of a path, walking all their iterations."""
    words, there = 0, None
    for box in _boxes(path, dict.fromkeys(dict(sizes)) | {rank: (0, size) for rank, size in sizes}):
        tile = tuple(box[rank] for rank in ranks)
        if tile != there:
            words += prod(end - start for start, end in tile)
            there = tile
    return words


@lru_cache(maxsize=1_000_000)
def _distinct(path: Path, ranks: Ranks, sizes: Path) -> int:
    """Words of all the different tiles that the loops of a path visit."""
    boxes = _boxes(path, {rank: (0, size) for rank, size in sizes})
    tiles = {tuple(box[rank] for rank in ranks) for box in boxes}
    return sum(prod(end - start for start, end in tile) for tile in tiles)


def _boxes(path: Path, box: dict[str, tuple[int, int]]) -> Iterator[dict[str, tuple[int, int]]]:
    if _empty(box):
        return
    if not path:
        yield box
        return
    (rank, chunk), *rest = path
    first, end = box[rank]
    for start in range(first, end, chunk):
        yield from _boxes(tuple(rest), {**box, rank: (start, min(start + chunk, end))})
