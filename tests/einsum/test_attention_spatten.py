"""The pruned attention of SpAtten, run layer after layer on the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from einsum import Cascade
from einsum.interpreter import run

LAYERS, HEADS, TOKENS, WIDTH = 4, 5, 12, 8
Array = NDArray[np.float64]


def layers(seed: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(seed)
    shape = (HEADS, TOKENS, WIDTH)
    return [{name: rng.standard_normal(shape) for name in "QKV"} for _ in range(LAYERS)]


def plain(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """Softmax attention of all heads: outputs and probabilities."""
    scores = np.einsum("hpe,hme->hpm", q, k)
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    probabilities = weights / weights.sum(axis=2, keepdims=True)
    return np.einsum("hpm,hmf->hpf", probabilities, v), probabilities


def state() -> dict[str, Array]:
    return {"TOKENS": np.ones(TOKENS), "QUERIES": np.ones(TOKENS), "HEADS": np.ones(HEADS),
            "TI": np.zeros(TOKENS), "HI": np.zeros(HEADS)}  # fmt: skip


def test_with_nothing_pruned_it_is_plain_attention_in_every_layer() -> None:
    cascade, carried = Cascade.load("attention-spatten"), state()
    for layer in layers(1):
        found = run(cascade, {**layer, **carried})
        outputs, probabilities = plain(layer["Q"], layer["K"], layer["V"])
        np.testing.assert_allclose(found["AV"], outputs, rtol=1e-10)
        np.testing.assert_allclose(
            found["TOKEN_IMPORTANCE"], carried["TI"] + probabilities.sum(axis=(0, 1)), rtol=1e-10
        )
        np.testing.assert_allclose(found["HEAD_IMPORTANCE"], carried["HI"] + abs(outputs).sum(axis=(1, 2)), rtol=1e-10)
        assert found["KEPT_TOKENS"].all() and found["KEPT_HEADS"].all()
        carried |= {"TI": found["TOKEN_IMPORTANCE"], "HI": found["HEAD_IMPORTANCE"]}


@pytest.mark.parametrize("seed", range(4))
def test_each_layer_drops_the_least_important_tokens_and_heads_for_good(seed: int) -> None:
    cascade, carried = Cascade.load("attention-spatten"), state()
    alive, heads = np.arange(TOKENS), np.arange(HEADS)
    token_importance, head_importance = np.zeros(TOKENS), np.zeros(HEADS)
    for number, layer in enumerate(layers(seed)):
        keep, keep_heads, values = TOKENS - 2 * (number + 1), HEADS - number, 3
        sizes = {"NT": keep, "NH": keep_heads, "NV": values}
        found = run(cascade, {**layer, **carried}, sizes)
        # The same on arrays from which the dropped tokens and heads are gone.
        q, k, v = (layer[name][np.ix_(heads, alive)] for name in "QKV")
        _, probabilities = plain(q, k, v)
        ranked = np.argsort(-probabilities, axis=2, kind="stable")[:, :, :values]
        taken = np.zeros_like(probabilities)
        np.put_along_axis(taken, ranked, 1.0, axis=2)
        outputs = np.einsum("hpm,hmf->hpf", probabilities * taken, v)
        np.testing.assert_allclose(found["AV"][np.ix_(heads, alive)], outputs, rtol=1e-10)
        gone, gone_heads = np.setdiff1d(np.arange(TOKENS), alive), np.setdiff1d(np.arange(HEADS), heads)
        assert not found["AV"][gone_heads].any()
        assert not found["AV"][:, gone].any()
        assert not found["A"][:, :, gone].any()
        assert (found["TAKEN"].sum(axis=2)[np.ix_(heads, alive)] == min(values, len(alive))).all()
        token_importance[alive] += probabilities.sum(axis=(0, 1))
        head_importance[heads] += abs(outputs).sum(axis=(1, 2))
        alive = np.sort(alive[np.argsort(-token_importance[alive], kind="stable")[:keep]])
        heads = np.sort(heads[np.argsort(-head_importance[heads], kind="stable")[:keep_heads]])
        assert np.flatnonzero(found["KEPT_TOKENS"]).tolist() == alive.tolist()
        assert np.flatnonzero(found["KEPT_HEADS"]).tolist() == heads.tolist()
        carried = {"TOKENS": found["KEPT_TOKENS"], "QUERIES": found["KEPT_TOKENS"], "HEADS": found["KEPT_HEADS"],
                   "TI": found["TOKEN_IMPORTANCE"], "HI": found["HEAD_IMPORTANCE"]}  # fmt: skip
