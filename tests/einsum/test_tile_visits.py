"""Masks in tiles against masks drawn point by point, and the published bounds of neighborhood attention."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from einsum import Cascade, SpecError
from einsum.interpreter import run
from einsum.tile_visits import TileVisits, end_to_end, tile_visits

NEIGHBORHOOD = Cascade.load("attention-neighborhood")


def kept(extent: int, window: int, stride: int, causal: bool) -> NDArray[np.bool_]:
    """(queries, keys) of one axis, query by query, as the definition tells it."""
    keep = np.zeros((extent, extent), dtype=np.bool_)
    for query in range(extent):
        group = query // stride * stride
        if causal:
            leader = min(group + stride - 1, extent - 1)
            keys = range(max(leader - window + 1, 0), query + 1)
        else:
            leader = min(group + stride // 2, extent - 1)
            first, last = leader - window // 2, leader + window // 2 + (window % 2 - 1)
            moved = -first if first < 0 else min(0, extent - 1 - last)
            keys = range(first + moved, last + moved + 1)
        keep[query, list(keys)] = True
    return keep


tile = st.integers(1, 6)
axis = st.integers(1, 14).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(1, n), st.integers(1, n), st.booleans(), tile, tile)
)


@settings(max_examples=60, deadline=None)
@given(st.tuples(axis, axis))
def test_visits_are_those_of_the_mask_drawn_point_by_point(axes: tuple[Any, ...]) -> None:
    names = "XY"
    env: dict[str, Any] = {"B": 1, "H": 1, "E": 1, "F": 1}
    drawn = []
    for name, (extent, window, stride, causal, _, _) in zip(names, axes, strict=True):
        env |= {name: extent, f"W{name}": window, f"S{name}": stride, f"C{name}": int(causal)}
        drawn.append(kept(extent, window, stride, causal))
    rows = {f"p{n.lower()}": axes[i][4] for i, n in enumerate(names)}
    columns = {f"m{n.lower()}": axes[i][5] for i, n in enumerate(names)}
    found = tile_visits(NEIGHBORHOOD, rows, columns, env)
    mask = np.einsum("ij,kl->ikjl", *drawn)  # (px, py, mx, my)
    for tile in np.ndindex(*found.visited.shape):
        queries = mask[tuple(slice(t * s, (t + 1) * s) for t, s in zip(tile, rows.values(), strict=True))]
        steps = [range(0, mask.shape[2 + i], size) for i, size in enumerate(columns.values())]
        blocks = [queries[:, :, a : a + axes[0][5], b : b + axes[1][5]] for a, b in product(*steps)]
        assert found.visited[tile] == sum(block.any() for block in blocks)
        assert found.whole[tile] == sum(block.all() for block in blocks)
        assert found.points[tile] == queries.sum()
    assert found.column_tiles == len(blocks)
    assert found.density == pytest.approx(mask.mean())


def test_neighborhood_attention_is_softmax_attention_over_the_box() -> None:
    random = np.random.default_rng(5)
    sizes = {"Y": 4, "Z": 3, "WX": 3, "SX": 2, "WY": 2, "CY": 1, "WZ": 2}
    shape = (2, 1, 5, 4, 3, 6)
    inputs = {name: random.standard_normal(shape) for name in "QKV"}
    flat = {name: value.reshape(2, 1, 60, 6) for name, value in inputs.items()}
    masks = kept(5, 3, 2, False), kept(4, 2, 1, True), kept(3, 2, 1, False)
    keep = np.einsum("ab,cd,ef->acebdf", *masks).reshape(60, 60)
    scores = np.where(keep, flat["Q"] @ flat["K"].swapaxes(-1, -2), -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    expected = (weights / weights.sum(axis=-1, keepdims=True)) @ flat["V"]
    np.testing.assert_allclose(run(NEIGHBORHOOD, inputs, sizes)["AV"].reshape(expected.shape), expected, rtol=1e-11)


Shape = tuple[int, ...]


def visits(grid: Shape, rows: Shape, columns: Shape, window: Shape, stride: Shape) -> TileVisits:
    env: dict[str, Any] = {"B": 1, "H": 1, "E": 128, "F": 128}
    for name, extent, w, s in zip("XYZ", grid, window, stride, strict=False):
        env |= {name: extent, f"W{name}": w, f"S{name}": s}
    names = "xyz"[: len(grid)]
    return tile_visits(
        NEIGHBORHOOD,
        {f"p{n}": size for n, size in zip(names, rows, strict=True)},
        {f"m{n}": size for n, size in zip(names, columns, strict=True)},
        env,
    )


FLUX = ((256, 256), (16, 16), (16, 8), (80, 80), 0.518)
HUNYUAN = ((30, 48, 80), (4, 8, 8), (2, 8, 8), (30, 40, 40), 0.607)


@pytest.mark.parametrize(
    ("model", "stride", "published", "digits"),
    [
        (FLUX, (1, 1), 1.76, 0.005),
        (FLUX, (16, 1), 1.84, 0.005),
        (FLUX, (16, 16), 1.88, 0.005),
        # Published 1.21: it takes 71.4 % of the tiles, and the definition gives 15 x 6 x 7 of 15 x 6 x 10, 70 %.
        (HUNYUAN, (1, 1, 1), 1.21, 0.015),
        (HUNYUAN, (1, 1, 8), 1.44, 0.005),
        (HUNYUAN, (1, 32, 8), 1.55, 0.005),
    ],
)
def test_published_end_to_end_bounds(model: Any, stride: tuple[int, ...], published: float, digits: float) -> None:
    """Generalized neighborhood attention (arXiv 2504.16922): bounds for FLUX and HunyuanVideo, two decimals."""
    grid, rows, columns, window, share = model
    found = visits(grid, rows, columns, window, stride)
    assert end_to_end(found.speedup_bound, share) == pytest.approx(published, abs=digits)


def test_tiles_are_perfectly_sparse_when_they_divide_window_and_stride() -> None:
    assert visits((256, 256), (16, 16), (16, 8), (80, 80), (16, 16)).perfectly_sparse
    assert not visits((256, 256), (16, 16), (16, 8), (80, 80), (16, 1)).perfectly_sparse


@pytest.mark.parametrize(
    ("where", "rows", "columns", "message"),
    [
        ("m <= p", {"q": 1}, {"m": 1}, "has no rank 'q'"),
        ("m <= p", {"p": 0}, {"m": 1}, "a tile of at least 1, found p = 0"),
        ("m <= p", {"m": 1}, {"m": 1}, "both a row and a column"),
        ("m <= p", {}, {"m": 1}, "at least one row rank"),
        ("m <= p", {"e": 2}, {"m": 1}, "relates m to p, which has no tile"),
        ("m <= p + e", {"p": 2, "e": 1}, {"m": 1}, "more than one row rank"),
        ("m < 3", {"p": 2}, {"m": 1}, "restricts m alone"),
    ],
)
def test_what_cannot_be_counted_in_tiles_is_refused(where: str, rows: Any, columns: Any, message: str) -> None:
    cascade = Cascade.load("attention-3pass").with_condition(where)
    with pytest.raises(SpecError, match=message):
        tile_visits(cascade, rows, columns, {"B": 1, "H": 1, "P": 8, "M": 8, "E": 2, "F": 2})
