"""Decoding and SparF against plain NumPy: everything kept is dense attention, and keeping less costs accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from einsum import Cascade
from einsum.interpreter import run
from einsum.iteration import Array

SIZES = {"B": 2, "H": 3, "J": 2, "M": 64, "E": 16, "F": 12}


def operands(seed: int, **sizes: int) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    s = {**SIZES, **sizes}
    return {
        "Q": random.standard_normal((s["B"], s["H"], s["J"], s["E"])),
        "KC": random.standard_normal((s["B"], s["H"], s["M"], s["E"])),
        "VC": random.standard_normal((s["B"], s["H"], s["M"], s["F"])),
    }


def dense(inputs: dict[str, Array]) -> Array:
    scores = np.einsum("bhje,bhme->bhjm", inputs["Q"], inputs["KC"])
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.asarray(np.einsum("bhjm,bhmf->bhjf", weights, inputs["VC"]))


def sparf(inputs: dict[str, Array], **sizes: int) -> dict[str, Array]:
    means = inputs["VC"].mean(axis=2)
    return run(Cascade.load("attention-sparf"), {**inputs, "VB": means}, {"J": inputs["Q"].shape[2], **sizes})


def group(inputs: dict[str, Array], place: tuple[int, ...], r: int, k: int, latest: int) -> list[Array]:
    """SparF of the queries that share a head of keys, step by step; one query is the paper's algorithm."""
    queries, keys, values = (inputs[name][place] for name in ("Q", "KC", "VC"))
    channels = np.argsort(-np.abs(queries).sum(axis=0), kind="stable")[:r]
    shares = []
    for q in queries:
        scores = keys[:, channels] @ q[channels] / np.sqrt(np.abs(q[channels]).sum() / np.abs(q).sum())
        s = np.exp(scores - scores.max())
        shares.append(s / s.sum())
    order = [m for m in np.argsort(-sum(shares), kind="stable") if m < len(keys) - latest]
    tokens = [*range(len(keys) - latest, len(keys)), *order][:k]
    found = []
    for q, s in zip(queries, shares, strict=True):
        exact, alpha = np.exp(keys[tokens] @ q), s[tokens].sum()
        found.append(alpha * exact @ values[tokens] / exact.sum() + (1 - alpha) * values.mean(axis=0))
    return found


@pytest.mark.parametrize("heads", [1, 2])
def test_decoding_is_softmax_attention_with_shared_keys(heads: int) -> None:
    inputs = operands(0, J=heads)
    found = run(Cascade.load("attention-decode"), inputs, {"J": heads})["AV"]
    np.testing.assert_allclose(found, dense(inputs), rtol=1e-12, atol=1e-12)


def test_sparf_that_keeps_everything_is_dense_attention() -> None:
    inputs = operands(1)
    found = sparf(inputs, R=SIZES["E"], NK=SIZES["M"])
    np.testing.assert_allclose(found["ALPHA"], 1, rtol=1e-12)
    np.testing.assert_allclose(found["AV"], dense(inputs), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("heads", [1, 2, 5])
@pytest.mark.parametrize(("r", "k", "latest"), [(2, 8, 2), (4, 16, 4), (16, 5, 0), (3, 20, 20)])
def test_sparf_is_its_published_algorithm(r: int, k: int, latest: int, heads: int) -> None:
    inputs = operands(2, J=heads)
    found = sparf(inputs, R=r, NK=k, NW=latest)["AV"]
    for place in np.ndindex(2, 3):
        np.testing.assert_allclose(found[place], group(inputs, place, r, k, latest), rtol=1e-9, atol=1e-12)


def test_the_latest_tokens_are_always_kept() -> None:
    kept = sparf(operands(3), R=4, NK=10, NW=6)["KEPT"]
    assert (kept[..., -6:] == 1).all() and (kept.sum(axis=-1) == 10).all()


def test_the_error_falls_as_more_channels_and_tokens_are_read() -> None:
    def error(r: int, k: int) -> float:
        cases = [operands(seed) for seed in range(10)]
        return float(np.mean([np.abs(sparf(case, R=r, NK=k)["AV"] - dense(case)).mean() for case in cases]))

    by_tokens = [error(8, k) for k in (4, 8, 16, 32, 64)]
    by_channels = [error(r, 8) for r in (1, 2, 4, 8, 16)]
    assert by_tokens == sorted(by_tokens, reverse=True) and by_tokens[-1] < 0.1 * by_tokens[0]
    assert by_channels == sorted(by_channels, reverse=True) and by_channels[-1] < 0.7 * by_channels[0]


def test_the_default_reads_an_eighth() -> None:
    found = sparf(operands(4))
    assert (found["CHANNELS"].sum(axis=-1) == 2).all() and (found["KEPT"].sum(axis=-1) == 4).all()


def test_a_predicted_layer_runs_active_neurons_and_loads_those_that_no_recent_token_brought() -> None:
    random = np.random.default_rng(5)
    width, neurons, rank, window = 8, 40, 4, 3
    inputs = {
        "X": random.standard_normal(width),
        "PD": random.standard_normal((width, rank)),
        "PU": random.standard_normal((rank, neurons)),
        "RECENT": random.integers(0, 2, (window, neurons)),
        "WU": random.standard_normal((width, neurons)),
        "WD": random.standard_normal((neurons, width)),
    }
    found = run(Cascade.load("ffn-predicted"), inputs, {"R": rank, "W": window})
    active = inputs["X"] @ inputs["PD"] @ inputs["PU"] > 0
    hidden = np.maximum(inputs["X"] @ inputs["WU"], 0) * active
    np.testing.assert_allclose(found["Y"], hidden @ inputs["WD"], rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(found["LOADED"] == 1, active & ~inputs["RECENT"].any(axis=0))
    everything = run(Cascade.load("ffn-predicted"), inputs, {"R": rank, "W": window, "TH": -1e9})["Y"]
    np.testing.assert_allclose(everything, np.maximum(inputs["X"] @ inputs["WU"], 0) @ inputs["WD"], rtol=1e-12)
