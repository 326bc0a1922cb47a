"""Native sparse attention against its published algorithm, head by head, and the keys that it loads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from einsum import Cascade
from einsum.counts import compulsory_words
from einsum.interpreter import run
from einsum.iteration import Array

NATIVE = Cascade.load("attention-native-sparse")
SMALL = {"J": 2, "CB": 4, "CS": 2, "SB": 8, "NS": 4, "NW": 10}


def operands(seed: int, tokens: int) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    compressed, blocks = (tokens - 4) // 2 + 1, tokens // 8
    shapes: dict[str, tuple[int, ...]] = {
        "Q": (2, 2, 2, 6), "KX": (2, 2, compressed, 6), "VX": (2, 2, compressed, 5), "KS": (2, 2, blocks, 8, 6),
        "VS": (2, 2, blocks, 8, 5), "KW": (2, 2, tokens, 6), "VW": (2, 2, tokens, 5),
        "GX": (2, 2, 2), "GS": (2, 2, 2), "GW": (2, 2, 2),
    }  # fmt: skip
    return {name: random.standard_normal(shape) for name, shape in shapes.items()}


def softmax(scores: Array) -> Array:
    weights = np.exp(scores - scores.max())
    return np.asarray(weights / weights.sum())


def group(inputs: dict[str, Array], place: tuple[int, int]) -> tuple[Array, list[int]]:
    """Outputs of the query heads of one group, and the blocks they select, as the paper words it."""
    x = {name: value[place] for name, value in inputs.items()}
    importance = np.zeros(len(x["KS"]))
    compressed = [softmax(x["KX"] @ q) for q in x["Q"]]
    for weights in compressed:
        for block in range(len(importance)):
            # every compressed block (4 tokens, one every 2) counts once for each half of it that lies in the block
            for start, weight in zip(range(0, 2 * len(weights), 2), weights, strict=True):
                importance[block] += weight * sum(8 * block <= part < 8 * block + 8 for part in (start, start + 2))
    fixed = [0, len(importance) - 2, len(importance) - 1]
    best = [int(block) for block in np.argsort(-importance, kind="stable") if block not in fixed]
    selected = sorted([*fixed, *best][: SMALL["NS"]])
    keys, values = (x[name][selected].reshape(-1, x[name].shape[-1]) for name in ("KS", "VS"))
    latest = slice(-SMALL["NW"], None)
    heads = [
        x["GX"][j] * weights @ x["VX"]
        + x["GS"][j] * softmax(keys @ q) @ values
        + x["GW"][j] * softmax(x["KW"][latest] @ q) @ x["VW"][latest]
        for j, (q, weights) in enumerate(zip(x["Q"], compressed, strict=True))
    ]
    return np.array(heads), selected


@pytest.mark.parametrize("tokens", [40, 64, 83])
def test_native_sparse_attention_is_its_published_algorithm(tokens: int) -> None:
    inputs = operands(tokens, tokens)
    found = run(NATIVE, inputs, {**SMALL, "M": tokens})
    for place in np.ndindex(2, 2):
        expected, selected = group(inputs, (place[0], place[1]))
        assert list(np.flatnonzero(found["KEPT"][place])) == selected
        np.testing.assert_allclose(found["O"][place], expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("context", "published"), [(8192, 2048), (16384, 2560)])
def test_keys_loaded_in_a_decode_step(context: int, published: int) -> None:
    """Native Sparse Attention (arXiv 2502.11089): tokens of a step; the last compressed block is not complete."""
    words: dict[str, Any] = compulsory_words(NATIVE, {"B": 1, "H": 1, "E": 1, "F": 1, "M": context})
    assert words["KX"] + words["KS"] + words["KW"] == published - 1
    assert words["VX"] + words["VS"] + words["VW"] == published - 1
