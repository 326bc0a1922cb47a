"""The interpreter against plain NumPy: every library attention is softmax attention, under every mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from einsum import Cascade, SpecError, list_library
from einsum.cascade_file import cascade_data
from einsum.interpreter import run

Array = NDArray[np.float64]
STABLE = ["attention-3pass", "attention-3pass-deferred", "attention-2pass", "attention-1pass"]
UNSTABLE = ["attention-unstable", "attention-unstable-deferred"]


def softmax_attention(q: Array, k: Array, v: Array, keep: NDArray[np.bool_] | None = None) -> Array:
    """softmax(Q K^T) V in float64, with scores outside `keep` (p, m) left out."""
    scores = np.matmul(q, k.swapaxes(-1, -2))
    if keep is not None:
        scores = np.where(keep, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(np.matmul(weights / weights.sum(axis=-1, keepdims=True), v))


def operands(seed: int, b: int, h: int, p: int, m: int, e: int, f: int, scale: float = 1.0) -> dict[str, Array]:
    random = np.random.default_rng(seed)
    shapes = {"Q": (b, h, p, e), "K": (b, h, m, e), "V": (b, h, m, f)}
    return {name: scale * random.standard_normal(shape) for name, shape in shapes.items()}


def test_the_library_attentions_are_the_expected_ones() -> None:
    inputs = {name: {tensor.name for tensor in Cascade.load(name).inputs} for name in list_library("cascade")}
    # tests/einsum/test_tile_visits.py and test_blocked_cascades.py
    others = {"attention-neighborhood", "attention-grouped-1pass", "linear-attention-causal"}
    assert {name for name, tensors in inputs.items() if tensors == {"Q", "K", "V"}} == {*STABLE, *UNSTABLE, *others}


@pytest.mark.parametrize("name", STABLE + UNSTABLE)
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(*[st.integers(1, n) for n in (2, 2, 9, 13, 5, 4)]),
    chunk=st.integers(1, 15),
)
def test_every_attention_is_softmax_attention(name: str, seed: int, sizes: tuple[int, ...], chunk: int) -> None:
    inputs = operands(seed, *sizes)
    result = run(Cascade.load(name), inputs, {"M0": chunk})["AV"]
    expected = softmax_attention(inputs["Q"], inputs["K"], inputs["V"])
    np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-12)


MASKS: dict[str, Any] = {
    "m <= p": lambda p, m: m <= p,
    "m <= p and p - m < 3": lambda p, m: (m <= p) & (p - m < 3),
    "abs(p - m) <= 2": lambda p, m: abs(p - m) <= 2,
    "m // Bk <= p // Bk": lambda p, m: m // 3 <= p // 3,
    "m // Bk == p // Bk or m < 2": lambda p, m: (m // 3 == p // 3) | (m < 2),
    "(p - m) % Bk == 0 and m <= p": lambda p, m: ((p - m) % 3 == 0) & (m <= p),
    "m >= p": lambda p, m: m >= p,
}


@pytest.mark.parametrize("name", STABLE + UNSTABLE)
@pytest.mark.parametrize("mask", MASKS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(1, 14), chunk=st.integers(1, 6))
def test_masked_points_do_not_count(name: str, mask: str, seed: int, length: int, chunk: int) -> None:
    inputs = operands(seed, 1, 2, length, length, 3, 2)
    keep = MASKS[mask](np.arange(length)[:, None], np.arange(length)[None, :])
    cascade = Cascade.load(name).with_condition(mask.replace("Bk", "3"))
    # a masked key may hold anything, even what is not a number, wherever no query sees it
    inputs["V"][:, :, ~keep.any(axis=0)] = np.nan
    result = run(cascade, inputs, {"M0": chunk})["AV"]
    expected = softmax_attention(inputs["Q"], inputs["K"], np.nan_to_num(inputs["V"]), keep)
    np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-12)


def test_a_value_behind_the_mask_never_leaks() -> None:
    inputs = operands(3, 1, 1, 6, 6, 2, 2)
    expected = run(Cascade.load("attention-1pass").with_condition("m <= p"), inputs, {"M0": 4})["AV"]
    inputs["K"][0, 0, 5] = inputs["V"][0, 0, 5] = np.inf
    for name in STABLE:
        result = run(Cascade.load(name).with_condition("m <= p"), inputs, {"M0": 4})["AV"]
        np.testing.assert_allclose(result[0, 0, :5], expected[0, 0, :5], rtol=1e-12)


@pytest.mark.parametrize("name", STABLE + UNSTABLE)
def test_large_scores_overflow_the_unstable_forms_only(name: str) -> None:
    inputs = operands(7, 1, 1, 8, 40, 4, 3, scale=100.0)  # scores of the order 1e4
    result = run(Cascade.load(name), inputs, {"M0": 16})["AV"]
    expected = softmax_attention(inputs["Q"], inputs["K"], inputs["V"])
    assert np.abs(np.matmul(inputs["Q"], inputs["K"].swapaxes(-1, -2))).max() > 1e4
    if name in UNSTABLE:
        assert np.isnan(result).any()
    else:
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["attention-1pass", "attention-2pass", "attention-3pass"])
def test_kept_sets_may_come_as_masks_or_as_lists(name: str) -> None:
    random = np.random.default_rng(5)
    inputs = operands(5, 1, 2, 4, 11, 3, 2)
    keep = random.random((2, 11)) < 0.4
    keep[:, 2] = True
    listed = np.full((2, 11), -1.0)
    for head in range(2):
        listed[head, : keep[head].sum()] = np.flatnonzero(keep[head])
    expected = np.stack(
        [softmax_attention(inputs["Q"][0, h], inputs["K"][0, h], inputs["V"][0, h], keep[h][None, :]) for h in range(2)]
    )
    data = cascade_data(Cascade.load(name))
    tensors = {"mask": ["h", "m"], "list": ["h", "r"]}
    for kind, values in (("mask", keep.astype(float)), ("list", listed)):
        clause = "m in KEEP[h]"
        changed = {**data, "inputs": {**data["inputs"], "KEEP": tensors[kind]}, "where": [clause]}
        if kind == "list":
            changed["ranks"] = {**data["ranks"], "r": "R"}
        result = run(Cascade.parse(changed), {**inputs, "KEEP": values}, {"M0": 4})["AV"]
        np.testing.assert_allclose(result[0], expected, rtol=1e-11)


SPARSE = """
cascade: attention-topk
ranks: {p: P, m: M, e: E, f: F, r: R}
inputs: {Q: [p, e], K: [m, e], V: [m, f]}
outputs: [AV, IDX, VAL]
einsums:
  - QK[m,p] = Q[p,e] * K[m,e]
  - IDX[p,r] = topk(m) QK[m,p] where m <= p
  - VAL[p,r] = topk_values(m) QK[m,p] where m <= p
  - GM[p] = max(m) QK[m,p] where m in IDX[p]
  - SN[m,p] = exp(QK[m,p] - GM[p]) where m in IDX[p]
  - SD[p] = sum(m) SN[m,p] where m in IDX[p]
  - SNV[p,f] = SN[m,p] * V[m,f] where m in IDX[p]
  - AV[p,f] = SNV[p,f] / SD[p]
"""


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), length=st.integers(1, 9), kept=st.integers(1, 12))
def test_top_k_attention_keeps_the_largest_scores(seed: int, length: int, kept: int) -> None:
    inputs = {name: values[0, 0] for name, values in operands(seed, 1, 1, length, length, 2, 2).items()}
    result = run(Cascade.parse(SPARSE), inputs, {"R": kept})
    scores = np.where(np.tri(length, dtype=bool), inputs["Q"] @ inputs["K"].T, -np.inf)
    keep = np.zeros((length, length), dtype=bool)
    for row in range(length):
        best = np.argsort(-scores[row])[: min(kept, row + 1)]
        keep[row, best] = True
        np.testing.assert_array_equal(result["IDX"][row, : len(best)], best)
        assert (result["IDX"][row, len(best) :] == -1).all()
        np.testing.assert_allclose(result["VAL"][row, : len(best)], scores[row, best])
    np.testing.assert_allclose(result["AV"], softmax_attention(inputs["Q"], inputs["K"], inputs["V"], keep), rtol=1e-11)


def test_a_top_k_mask_marks_the_largest_and_breaks_ties_to_the_left() -> None:
    text = """
    cascade: keep
    variables: {N: 3}
    ranks: {p: P, m: M}
    inputs: {S: [p, m]}
    outputs: [KEEP]
    einsums: ["KEEP[p,m] = topk_mask(m, N) S[p,m]"]
    """
    result = run(Cascade.parse(text), {"S": [[1, 5, 5, 5, 5], [9, 1, 8, 2, 7]]})["KEEP"]
    np.testing.assert_array_equal(result, [[0, 1, 1, 1, 0], [1, 0, 1, 0, 1]])


def test_matmul_and_a_convolution_match_numpy() -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((5, 7)), random.standard_normal((7, 3))
    np.testing.assert_allclose(run(Cascade.load("matmul"), {"A": a, "B": b})["Z"], a @ b)
    text = """
    cascade: conv
    ranks: {p: P, w: W, x: 2*P + W - 2}
    inputs: {I: [x], F: [w]}
    outputs: [O]
    einsums: ["O[p] = I[2*p+w] * F[w]"]
    """
    signal, taps = random.standard_normal(17), random.standard_normal(3)
    result = run(Cascade.parse(text), {"I": signal, "F": taps}, {"P": 8})["O"]
    np.testing.assert_allclose(result, np.correlate(signal, taps, "valid")[::2])


def test_a_transformer_layer_matches_plain_numpy() -> None:
    random = np.random.default_rng(1)
    b, h, p, e, f, d, s = 2, 3, 5, 4, 2, 6, 7
    shapes = {
        "X": (b, p, d), "WQ": (d, h, e), "WK": (d, h, e), "WV": (d, h, f), "WZ": (h, f, d), "W1": (d, s), "W2": (s, d),
    }  # fmt: skip
    w = {name: random.standard_normal(shape) for name, shape in shapes.items()}
    result = run(Cascade.load("transformer-layer"), w)["FFN2"]
    q, k, v = (np.tensordot(w["X"], w[name], 1).transpose(0, 2, 1, 3) for name in ("WQ", "WK", "WV"))
    z = np.tensordot(softmax_attention(q, k, v).transpose(0, 2, 1, 3), w["WZ"], 2)
    hidden = z @ w["W1"]
    gelu = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
    np.testing.assert_allclose(result, gelu @ w["W2"], rtol=1e-10)


RECURRENCES = """
cascade: pedagogical
ranks: {i: N}
iterative: [i]
inputs: {A: [i], B: [i]}
outputs: [Z]
einsums:
  - RY[i+1] = RY[i] + A[i] * B[i]
  - RZ[i+1] = RZ[i] * RY[i+1] / RY[i] + RY[i+1] * A[i]
  - Z = RZ[N]
initial: {RY: 1, RZ: 0}
"""


def test_prefix_recurrences_run_in_order() -> None:
    random = np.random.default_rng(2)
    a, b = random.random(20) + 0.5, random.random(20) + 0.5
    result = run(Cascade.parse(RECURRENCES), {"A": a, "B": b})
    y, z = 1.0, 0.0
    for x, w in zip(a, b, strict=True):
        y, last = y + x * w, y
        z = z * y / last + y * x
    np.testing.assert_allclose(result["Z"], z)
    np.testing.assert_allclose(result["RY"][1:], 1 + np.cumsum(a * b))


LINEAR = """
cascade: linear-attention-chunked
description: Causal linear attention by chunks with a running state.
ranks: {m: M, e: E, f: F, q0: C}
partition: {m: {outer: m1, inner: m0, size: C}}
iterative: [m1]
inputs: {Q: [m, e], K: [m, e], V: [m, f], S0: [e, f]}
outputs: [O]
einsums:
  - KV[m1,e,f] = K[m1*C+m0,e] * V[m1*C+m0,f]
  - S[m1+1,e,f] = S[m1,e,f] + KV[m1,e,f]
  - T[m1,q0,m0] = Q[m1*C+q0,e] * K[m1*C+m0,e] where m0 <= q0 and m1*C + q0 < M
  - L[m1,q0,f] = T[m1,q0,m0] * V[m1*C+m0,f]
  - X[m1,q0,f] = Q[m1*C+q0,e] * S[m1,e,f] where m1*C + q0 < M
  - O[m1,q0,f] = L[m1,q0,f] + X[m1,q0,f]
initial: {S: "S0[e,f]"}
"""


def test_a_running_state_may_start_from_an_input() -> None:
    random = np.random.default_rng(4)
    m, e, f, c = 11, 3, 2, 4
    q, k, v = (random.standard_normal((m, n)) for n in (e, e, f))
    state = random.standard_normal((e, f))
    result = run(Cascade.parse(LINEAR), {"Q": q, "K": k, "V": v, "S0": state}, {"C": c})["O"]
    expected = q @ state + (np.tri(m) * (q @ k.T)) @ v
    np.testing.assert_allclose(result.reshape(-1, f)[:m], expected, rtol=1e-10)


def test_a_chunked_tensor_may_be_put_together_again_and_cut_twice() -> None:
    text = """
    cascade: twice
    variables: {S: 3, T: 2}
    ranks: {m: M}
    partition: {m: {outer: m1, inner: m0, size: S}, m1: {outer: m2, inner: mm, size: T}}
    inputs: {A: [m]}
    outputs: [W, C, MX]
    einsums:
      - W[m2*T*S+mm*S+m0] = 2 * A[m2*T*S+mm*S+m0]
      - C[m2] = sum(mm, m0) A[m2*T*S+mm*S+m0]
      - MX = max(m) W[m]
    """
    values = np.arange(1.0, 15.0)
    result = run(Cascade.parse(text), {"A": values})
    np.testing.assert_array_equal(result["W"], 2 * values)
    np.testing.assert_array_equal(result["C"], [values[:6].sum(), values[6:12].sum(), values[12:].sum()])
    assert result["MX"] == 28


def test_results_are_the_same_every_time() -> None:
    inputs = operands(11, 1, 2, 30, 50, 8, 8)
    first, second = (run(Cascade.load("attention-1pass"), inputs, {"M0": 16}) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


@pytest.mark.parametrize(
    ("change", "extents", "message"),
    [
        ({"Q": None}, {}, "the input 'Q[b,h,p,e]' is missing"),
        ({"W": np.ones(3)}, {}, "unknown input 'W'"),
        ({"K": np.ones((1, 1, 4, 3))}, {}, "the input K[b,h,m,e] has shape (1, 1, 4, 3), expected (1, 1, 4, 2)"),
        ({"K": np.ones((1, 4, 2))}, {}, "has 3 dimensions, expected 4"),
        ({}, {"M": 5}, "the input K[b,h,m,e] has shape (1, 1, 4, 2), expected (1, 1, 5, 2)"),
        ({}, {"M0": 0}, "M0"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change: dict[str, Any], extents: dict[str, int], message: str) -> None:
    inputs = {**operands(0, 1, 1, 3, 4, 2, 2), **change}
    with pytest.raises(SpecError) as caught:
        run(Cascade.load("attention-1pass"), {k: v for k, v in inputs.items() if v is not None}, extents)
    assert message in str(caught.value)


def test_an_index_that_leaves_its_tensor_at_a_kept_point_is_refused() -> None:
    text = """
    cascade: neighbours
    ranks: {p: P, w: W}
    inputs: {I: [p], F: [w]}
    outputs: [O]
    einsums: ["O[p] = I[p+w-1] * F[w] where p + w >= 1 and p + w - 1 < P"]
    """
    signal, taps = np.arange(1.0, 7.0), np.array([1.0, 10.0, 100.0])
    result = run(Cascade.parse(text), {"I": signal, "F": taps})["O"]
    np.testing.assert_allclose(result, np.correlate(signal, taps, "same"))
    with pytest.raises(SpecError, match=r"the index 'p\+w-1' of 'I\[p\+w-1\]' leaves the tensor"):
        run(Cascade.parse(text.replace("p + w >= 1 and ", "")), {"I": signal, "F": taps})
