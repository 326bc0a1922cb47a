"""Masks in closed form against masks evaluated point by point."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from einsum import Cascade, SpecError
from einsum.expressions import Expression
from einsum.masks import MaskIntervals, mask_intervals

PLAIN = Cascade.load("attention-3pass")
SIZES = {"B": 1, "H": 1, "E": 2, "F": 2, "Wd": 3, "Bk": 4}


def intervals(mask: str, p: int, m: int) -> MaskIntervals:
    names = Cascade.parse({**DATA, "variables": {"Wd": 3, "Bk": 4}}).with_condition(mask)
    return mask_intervals(names, "p", "m", {**SIZES, "P": p, "M": m})


DATA = {
    "cascade": "scores",
    "ranks": {"p": "P", "m": "M", "e": "E"},
    "inputs": {"Q": ["p", "e"], "K": ["m", "e"]},
    "outputs": ["QK"],
    "einsums": ["QK[m,p] = Q[p,e] * K[m,e]"],
}


def pointwise(mask: str, p: int, m: int) -> NDArray[np.bool_]:
    env = {**SIZES, "P": p, "M": m, "p": np.arange(p)[:, None], "m": np.arange(m)[None, :]}
    return np.broadcast_to(np.asarray(Expression.parse(mask).evaluate(env), dtype=bool), (p, m))


def as_points(mask: MaskIntervals) -> NDArray[np.bool_]:
    columns = np.arange(mask.extent)[None, None, :]
    return np.asarray(((mask.starts[..., None] <= columns) & (columns < mask.ends[..., None])).any(axis=0))


ONE_INTERVAL = [
    "m <= p",
    "m < p",
    "m <= p + (M - P)",
    "m <= p and p - m < Wd",
    "p - m <= Wd and m - p <= Wd",
    "abs(p - m) < Wd",
    "abs(2*m - p) <= Wd",
    "m // Bk <= p // Bk",
    "m // Bk == p // Bk",
    "(m + 1) // Bk < p",
    "not m > p",
    "2*m <= p + 1 and 3*m >= p - 5",
    "m >= p / 2",
    "p >= 2",
    "m == p",
    "-m >= -p",
    "p * m <= 12",
    "(p - 3) * m <= 4",
    "0 <= m - p < 4",
    "m < max(p, 3) and m >= min(p, 2)",
    "m >= p // Wd * Wd and m < p // Wd * Wd + Wd",
]
SEVERAL = [
    "m <= p and (p - m < Wd or m < 2)",
    "m != p",
    "abs(p - m) >= 2",
    "m // Bk != p // Bk",
    "m < 2 or p < 2 or m == p",
    "not (m <= p and p - m < Wd)",
    "abs(p - m) > 1 and abs(p - m) < 4",
]


@pytest.mark.parametrize("mask", ONE_INTERVAL + SEVERAL)
@settings(max_examples=12, deadline=None)
@given(p=st.integers(1, 20), m=st.integers(1, 20), row_tile=st.integers(1, 9), column_tile=st.integers(1, 9))
def test_intervals_and_tiles_match_the_points(mask: str, p: int, m: int, row_tile: int, column_tile: int) -> None:
    found, kept = intervals(mask, p, m), pointwise(mask, p, m)
    np.testing.assert_array_equal(as_points(found), kept)
    assert found.points == kept.sum()
    np.testing.assert_array_equal(found.widths, kept.sum(axis=1))
    np.testing.assert_array_equal(found.chunks(column_tile), [_tiles(row[None], column_tile) for row in kept])
    if mask in ONE_INTERVAL:
        assert found.contiguous
        assert found.starts.shape == (1, p)
    tiles = found.tiles(row_tile, column_tile)
    for chunk in range(-(-p // row_tile)):
        rows = kept[chunk * row_tile : (chunk + 1) * row_tile]
        used = np.flatnonzero(rows.any(axis=0))
        hull = (used[0], used[-1] + 1) if used.size else (0, 0)
        assert (tiles.lo[chunk], tiles.hi[chunk]) == hull
        assert tiles.points[chunk] == rows.sum()
        assert tiles.columns[chunk] == used.size
        assert tiles.tiles[chunk] == _tiles(rows, column_tile)
        assert tiles.whole[chunk] == _tiles(rows, column_tile, whole=True)


def _tiles(rows: NDArray[np.bool_], size: int, whole: bool = False) -> int:
    parts = (rows[:, start : start + size] for start in range(0, rows.shape[1], size))
    return sum(bool(part.all() if whole else part.any()) for part in parts)


def test_rows_and_columns_may_change_places() -> None:
    cascade = PLAIN.with_condition("m <= p and p - m < 5")
    by_query = mask_intervals(cascade, "p", "m", {**SIZES, "P": 17, "M": 13})
    by_key = mask_intervals(cascade, "m", "p", {**SIZES, "P": 17, "M": 13})
    np.testing.assert_array_equal(as_points(by_query), as_points(by_key).T)


def test_without_a_mask_everything_is_kept() -> None:
    found = mask_intervals(PLAIN, "p", "m", {**SIZES, "P": 3, "M": 5})
    assert (found.points, found.contiguous) == (15, True)


def test_a_causal_window_of_65536_keys_takes_well_under_a_tenth_of_a_second() -> None:
    cascade = PLAIN.with_condition("m <= p", "p - m < 4096")
    env = {**SIZES, "P": 65536, "M": 65536}
    start = time.perf_counter()
    found = mask_intervals(cascade, "p", "m", env)
    tiles = found.tiles(128, 64)
    assert time.perf_counter() - start < 0.1
    assert found.points == 65536 * 4096 - 4096 * 4095 // 2
    assert tiles.points.sum() == found.points
    assert tiles.tiles[-1] == (4096 + 128) // 64  # the window of the first row starts inside a tile


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ("m % 2 == 0", "does not keep intervals of m for each p"),
        ("m * m <= p", "does not keep intervals"),
        ("m // p <= 2 and p > 0", "does not keep intervals"),
    ],
)
def test_what_keeps_no_intervals_is_said(mask: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        intervals(mask, 4, 4)


def test_further_ranks_are_refused() -> None:
    cascade = PLAIN.with_condition("m <= p + h")
    with pytest.raises(SpecError, match="involves other ranks than p and m"):
        mask_intervals(cascade, "p", "m", {**SIZES, "P": 4, "M": 4})
