"""Cascades cut into groups, parts and chunks against plain NumPy: they compute what the whole would."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from einsum import Cascade
from einsum.interpreter import run

Array = NDArray[np.float64]
small = st.integers(1, 3)


def softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), heads=small, group=small, p=st.integers(1, 6), m=st.integers(1, 13),
       chunk=st.integers(1, 15))  # fmt: skip
def test_heads_of_a_group_attend_to_the_same_keys(
    seed: int, heads: int, group: int, p: int, m: int, chunk: int
) -> None:
    random = np.random.default_rng(seed)
    q, k, v = (random.standard_normal(s) for s in ((2, heads, group, p, 4), (2, heads, m, 4), (2, heads, m, 3)))
    found = run(Cascade.load("attention-grouped-1pass"), {"Q": q, "K": k, "V": v}, {"M0": chunk, "G": group})["AV"]
    weights = softmax(np.einsum("bhgpe,bhme->bhgpm", q, k))
    np.testing.assert_allclose(found, np.einsum("bhgpm,bhmf->bhgpf", weights, v), rtol=1e-10, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), group=small, parts=st.integers(1, 4), tiles=small, keys=st.integers(1, 5))
def test_parts_of_the_keys_merge_to_the_whole(seed: int, group: int, parts: int, tiles: int, keys: int) -> None:
    random = np.random.default_rng(seed)
    q = random.standard_normal((2, 2, group, 4))
    k, v = (random.standard_normal((2, 2, parts, tiles, keys, width)) for width in (4, 3))
    sizes = {"M": parts * tiles * keys, "S": parts, "N": keys, "G": group}
    found = run(Cascade.load("attention-split"), {"Q": q, "KC": k, "VC": v}, sizes)["AV"]
    flat = k.reshape(2, 2, -1, 4), v.reshape(2, 2, -1, 3)
    expected = np.einsum("bhgm,bhmf->bhgf", softmax(np.einsum("bhge,bhme->bhgm", q, flat[0])), flat[1])
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), chunks=st.integers(1, 4), chunk=st.integers(1, 5))
def test_chunks_and_a_state_make_causal_linear_attention(seed: int, chunks: int, chunk: int) -> None:
    random = np.random.default_rng(seed)
    q, k = (random.standard_normal((2, 2, chunks, chunk, 4)) for _ in range(2))
    v = random.standard_normal((2, 2, chunks, chunk, 3))
    sizes = {"P": chunks * chunk, "C": chunk}
    found = run(Cascade.load("linear-attention-causal"), {"Q": q, "K": k, "V": v}, sizes)["AV"]
    rows = [x.reshape(2, 2, chunks * chunk, -1) for x in (q, k, v)]
    expected = np.tril(rows[0] @ rows[1].swapaxes(-1, -2)) @ rows[2]
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-10, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 4), columns=st.integers(1, 20), chunk=st.integers(1, 9))
def test_a_running_maximum_gives_the_same_softmax(seed: int, rows: int, columns: int, chunk: int) -> None:
    x = 30 * np.random.default_rng(seed).standard_normal((rows, columns))
    for name, sizes in (("softmax", {}), ("softmax-online", {"M0": chunk})):
        np.testing.assert_allclose(run(Cascade.load(name), {"X": x}, sizes)["A"], softmax(x), rtol=1e-10, atol=1e-300)
