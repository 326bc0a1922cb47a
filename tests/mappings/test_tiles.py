"""Tile spaces against plain nested loops: every tile's sizes, position, count, and place in the order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings.tiles import Loop, PositionsNeeded, Side, TileSpace

RANKS = ("a", "b")


@dataclass(frozen=True)
class Tile:
    """What plain loops see: for each depth the sizes, for each loop its trips and whether it is the first, the last."""

    sizes: tuple[dict[str, int], ...]
    loops: tuple[tuple[int, bool, bool], ...]


def walk(chunks: list[tuple[str, int]], sizes: dict[str, int]) -> Iterator[Tile]:
    """The tiles of nested loops in order."""
    if not chunks:
        yield Tile((sizes,), ())
        return
    (rank, chunk), rest = chunks[0], chunks[1:]
    starts = range(0, sizes[rank], chunk)
    for start in starts:
        inside = {**sizes, rank: min(chunk, sizes[rank] - start)}
        for tile in walk(rest, inside):
            state = len(starts), start == starts[0], start == starts[-1]
            yield Tile((sizes, *tile.sizes), (state, *tile.loops))


@st.composite
def spaces(draw: Any) -> tuple[TileSpace, list[list[Tile]]]:
    """A space over some design points, and the tiles of each point."""
    points = draw(st.integers(1, 3))
    numbers = st.lists(st.integers(1, 7), min_size=points, max_size=points)
    ranks = draw(st.lists(st.sampled_from(RANKS), max_size=4))
    chunks = [draw(numbers) for _ in ranks]
    extents = {rank: draw(numbers) for rank in RANKS}

    def column(values: list[int]) -> np.ndarray:
        return np.array(values, dtype=float).reshape(-1, 1)

    loops = [Loop(rank, rank, column(chunk)) for rank, chunk in zip(ranks, chunks, strict=True)]
    sides = [(loop, side) for loop in loops for side in ("first", "last")]
    positions = frozenset(side for side in sides if draw(st.booleans()))
    space = TileSpace.build(loops, {rank: column(values) for rank, values in extents.items()}, positions, points)
    tiles = [
        list(
            walk(
                [(rank, chunk[point]) for rank, chunk in zip(ranks, chunks, strict=True)],
                {rank: values[point] for rank, values in extents.items()},
            )
        )
        for point in range(points)
    ]
    return space, tiles


def at(values: np.ndarray, point: int, tile_class: int) -> Any:
    """One value of an array that broadcasts to (points, classes)."""
    return values[min(point, values.shape[0] - 1), min(tile_class, values.shape[1] - 1)]


@given(spaces())
def test_every_tile_in_order(case: tuple[TileSpace, list[list[Tile]]]) -> None:
    space, points = case
    for point, tiles in enumerate(points):
        order = space.order(point, 0)
        assert len(order) == len(tiles)
        for tile_class, tile in zip(order.tolist(), tiles, strict=True):
            for sizes, expected in zip(space.sizes, tile.sizes, strict=True):
                assert {rank: at(sizes[rank], point, tile_class) for rank in RANKS} == expected
            for state, (trips, first, last) in zip(space.states, tile.loops, strict=True):
                assert at(state.trips, point, tile_class) == trips
                assert state.first is None or at(state.first, point, tile_class) == first
                assert state.last is None or at(state.last, point, tile_class) == last


@given(spaces())
def test_counts_are_those_of_the_order(case: tuple[TileSpace, list[list[Tile]]]) -> None:
    space, points = case
    classes = space.counts.shape[1]
    for point in range(len(points)):
        assert np.bincount(space.order(point, 0), minlength=classes).tolist() == space.counts[point].tolist()


@given(spaces(), st.integers(1, 60))
def test_a_limit_gives_the_beginning_of_the_order(case: tuple[TileSpace, list[list[Tile]]], limit: int) -> None:
    space, points = case
    for point in range(len(points)):
        assert space.order(point, 0, limit).tolist() == space.order(point, 0)[:limit].tolist()


def built(*chunks: int, extent: int = 8, sides: tuple[Side, ...] = ()) -> TileSpace:
    loops = [Loop("a", "a", np.array([[float(chunk)]])) for chunk in chunks]
    positions = frozenset((loops[0], side) for side in sides)
    return TileSpace.build(loops, {"a": np.array([[float(extent)]])}, positions, 1)


def test_a_billion_alike_tiles_are_one_class() -> None:
    space = built(2, 1, extent=2 * 10**9)
    assert space.counts.tolist() == [[2e9]]
    assert space.order(0, 0, limit=5).tolist() == [0] * 5


def test_a_ragged_end_is_a_class_of_its_own() -> None:
    space = built(3, extent=8)
    assert space.counts.tolist() == [[2, 1]]
    assert space.sizes[1]["a"].tolist() == [[3, 2]]
    assert space.order(0, 0).tolist() == [0, 0, 1]


def test_positions_are_asked_for_when_reuse_depends_on_them() -> None:
    outer, inner = (Loop(rank, rank, np.array([[1.0]])) for rank in "ab")
    extents = {rank: np.array([[4.0]]) for rank in "ab"}
    settled = np.zeros((1, 1), dtype=bool)
    merged = TileSpace.build([outer, inner], extents, frozenset(), 1)
    with pytest.raises(PositionsNeeded) as needed:  # a copy of what `a` moves, below both: reused while `b` goes on
        merged.replaced(frozenset("a"), 2, settled, frozenset(), "first")
    assert needed.value.positions == {(inner, "first")}
    apart = TileSpace.build([outer, inner], extents, needed.value.positions, 1)
    weight, fresh, _ = apart.replaced(frozenset("a"), 2, np.zeros(apart.counts.shape, dtype=bool), frozenset(), "first")
    assert (weight * apart.counts).sum() == (fresh * apart.counts).sum() == 4


def test_gates_leave_the_first_or_last_iteration_or_an_equal_part_of_each() -> None:
    space = built(2, sides=("first", "last"))
    for side in ("first", "last", "spread"):
        assert (space.gated({0: side}) * space.counts).sum() == 1
    assert space.gated({0: "spread"}).tolist() == [[0.25] * space.counts.shape[1]]
    with pytest.raises(PositionsNeeded):
        built(2).gated({0: "first"})
