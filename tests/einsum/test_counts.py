"""Operations and compulsory words against points visited one by one."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsum import Cascade, SpecError
from einsum.cascade_file import cascade_data
from einsum.conditions import Comparison
from einsum.counts import (
    compulsory_traffic,
    compulsory_words,
    count_operations,
    count_points,
    total_operations,
)
from einsum.einsum import Einsum
from einsum.interpreter import run

SIZES = {"B": 2, "H": 3, "E": 2, "F": 4}


def kept_points(cascade: Cascade, einsum: Einsum, env: dict[str, Any]) -> list[dict[str, int]]:
    """The iteration points of an Einsum, by looking at every one (and at every completion inside a chunk)."""
    values, extents = cascade.environment(env), cascade.extents(env)
    touched = {cascade.base(rank) for rank in einsum.ranks}
    inner = [
        part
        for base in cascade.partitions
        if base in touched and cascade.family(base)[0] in einsum.ranks
        for part in cascade.family(base)
        if part not in einsum.ranks
    ]

    def holds(point: dict[str, int]) -> bool:
        scope = {**values, **point}
        for rank in cascade.partitions:
            if cascade.family(rank)[0] not in point:
                continue
            index = cascade.coordinate(rank)
            scope[rank] = sum(point[part] * factor.evaluate(values) for part, factor in index.terms.items())
            if scope[rank] >= extents[rank]:
                return False
        return all(c.expression.evaluate(scope) for c in einsum.conditions if isinstance(c, Comparison))

    found = []
    for place in itertools.product(*(range(extents[rank]) for rank in einsum.ranks)):
        point = dict(zip(einsum.ranks, place, strict=True))
        completions = itertools.product(*(range(extents[rank]) for rank in inner))
        if any(holds({**point, **dict(zip(inner, rest, strict=True))}) for rest in completions):
            found.append(point)
    return found


def touched_words(cascade: Cascade, env: dict[str, Any]) -> dict[str, int]:
    """The words of inputs and outputs that the kept points touch, as sets of coordinates."""
    values = cascade.environment(env)
    words: dict[str, set[tuple[int, ...]]] = {t.name: set() for t in (*cascade.inputs, *cascade.outputs)}
    for einsum in cascade.einsums:
        for point in kept_points(cascade, einsum, env):
            for access in (*einsum.inputs, einsum.output):
                if access.tensor in words:
                    at = tuple(
                        int(index.offset.evaluate(values))
                        + sum(point[rank] * int(factor.evaluate(values)) for rank, factor in index.terms.items())
                        for index in access.indices
                    )
                    words[access.tensor].add(at)
    return {name: len(found) for name, found in words.items()}


ATTENTION = ["attention-3pass", "attention-2pass", "attention-1pass"]
MASKS = [
    "m <= p",
    "m <= p and p - m < 3",
    "m // 2 <= p // 3",
    "m <= p and (p - m < 2 or m < 1)",
    "(p - m) % 2 == 0",
    "m < 4",
    "m < 4 and p >= 2 and h < 2",
    "m <= p + h",
    "m >= p",
]


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("mask", MASKS)
@settings(max_examples=3, deadline=None)
@given(p=st.integers(1, 6), m=st.integers(1, 7), chunk=st.integers(1, 4))
def test_masked_counts_are_those_of_the_points(name: str, mask: str, p: int, m: int, chunk: int) -> None:
    cascade = Cascade.load(name).with_condition(mask)
    env = {"B": 1, "H": 2 if "h" in mask else 1, "E": 1, "F": 1, "P": p, "M": m, "M0": chunk}
    expected = {einsum.name: len(kept_points(cascade, einsum, env)) for einsum in cascade.einsums}
    assert count_points(cascade, env) == expected
    assert compulsory_words(cascade, env) == touched_words(cascade, env)


def test_operations_by_kind_of_the_stable_softmax() -> None:
    env = {**SIZES, "P": 5, "M": 7}
    pairs = 2 * 3 * 5 * 7
    assert count_operations(Cascade.load("attention-3pass"), env) == {
        "QK": {"mac": pairs * 2},
        "GM": {"max": pairs},
        "SN": {"exp": pairs, "sub": pairs},
        "SD": {"add": pairs},
        "A": {"div": pairs},
        "AV": {"mac": pairs * 4},
    }
    totals = total_operations(count_operations(Cascade.load("attention-3pass"), env))
    assert totals["mac"] == pairs * 6


def test_a_ragged_chunk_costs_what_it_holds() -> None:
    env = {**SIZES, "P": 5, "M": 1009, "M0": 256}
    points = count_points(Cascade.load("attention-1pass"), env)
    rows = 2 * 3 * 5
    assert points["BQK"] == rows * 1009 * 2
    assert points["RM"] == rows * 4
    assert points["AV"] == rows * 4


def test_compulsory_words_and_bytes_of_attention_and_matmul() -> None:
    env = {**SIZES, "P": 5, "M": 7}
    words = compulsory_words(Cascade.load("attention-1pass"), env)
    assert words == {"Q": 6 * 5 * 2, "K": 6 * 7 * 2, "V": 6 * 7 * 4, "AV": 6 * 5 * 4}
    assert compulsory_traffic(Cascade.load("attention-1pass"), env)["K"] == 2 * words["K"]
    sizes = {"M": 3, "N": 4, "K": 5}
    assert compulsory_traffic(Cascade.load("matmul"), sizes, {"A": 1, "B": 2, "Z": 4}) == {"A": 15, "B": 40, "Z": 48}
    data = cascade_data(Cascade.load("matmul"))
    fixed = Cascade.parse({**data, "variables": {"wide": 32}, "bits": {"Z": "wide"}})
    assert compulsory_traffic(fixed, sizes, 1.0) == {"A": 15, "B": 20, "Z": 48}
    with pytest.raises(SpecError, match="no word size is given for 'B'"):
        compulsory_traffic(fixed, sizes, {"A": 1})


def test_a_mask_spares_the_words_that_nobody_reads() -> None:
    cascade = Cascade.load("attention-3pass").with_condition("m <= p")
    words = compulsory_words(cascade, {**SIZES, "P": 5, "M": 9})
    assert words["K"] == 6 * 5 * 2  # keys 5 to 8 are seen by no query
    assert words["Q"] == 6 * 5 * 2


CONV = """
cascade: conv
variables: {S: 2, D: 3}
ranks: {c: C, p: P, w: W, x: X, y: Y}
inputs: {I: [c, x], F: [c, w], G: [y]}
outputs: [O, T, N]
einsums:
  - O[p] = I[c,S*p+D*w] * F[c,w]
  - T[p] = G[p+2*w] * F[c,w] where p <= w
  - N[p] = G[p+1]
"""


@settings(max_examples=20, deadline=None)
@given(p=st.integers(1, 6), w=st.integers(1, 4), s=st.integers(1, 4), d=st.integers(1, 4))
def test_affine_indices_touch_what_they_reach(p: int, w: int, s: int, d: int) -> None:
    env = {"C": 2, "P": p, "W": w, "S": s, "D": d, "X": s * (p - 1) + d * (w - 1) + 1, "Y": p + 2 * w + 1}
    cascade = Cascade.parse(CONV)
    assert compulsory_words(cascade, env) == touched_words(cascade, env)
    assert count_points(cascade, env) == {e.name: len(kept_points(cascade, e, env)) for e in cascade.einsums}


SHARED = """
cascade: shared
ranks: {p: P, m: M, r: P}
inputs: {A: [p], B: [p, m], D: [p, r]}
outputs: [X, Y, Z]
einsums:
  - X[p] = A[p] * B[p,m] where m <= p and p < 3
  - Y[m] = A[p] * B[p,m] where p >= m + 2
  - Z[p] = D[p,p] * A[p]
"""


@settings(max_examples=20, deadline=None)
@given(p=st.integers(1, 7), m=st.integers(1, 7))
def test_words_that_several_einsums_touch_count_once(p: int, m: int) -> None:
    env = {"P": p, "M": m}
    cascade = Cascade.parse(SHARED)
    assert compulsory_words(cascade, env) == touched_words(cascade, env)


TWICE = """
cascade: twice
variables: {S: 3, T: 2}
ranks: {m: M, p: P}
partition: {m: {outer: m1, inner: m0, size: S}, m1: {outer: m2, inner: mm, size: T}, p: {outer: p1, inner: p0, size: S}}
inputs: {A: [m, p]}
outputs: [C, X, G]
einsums:
  - C[m2,p1,p0] = sum(mm, m0) A[m2*T*S+mm*S+m0,p1*S+p0] where m <= p
  - X[m2,p1] = sum(p0) C[m2,p1,p0] where m <= p
  - L[m2,mm] = sum(m0, p1, p0) A[m2*T*S+mm*S+m0,p1*S+p0] where m2 <= p1
  - G[m2,p1] = sum(mm) L[m2,mm] * X[m2,p1] where m <= p + 2
"""


@settings(max_examples=20, deadline=None)
@given(m=st.integers(1, 14), p=st.integers(1, 8), s=st.integers(1, 4), t=st.integers(1, 3))
def test_chunks_of_chunks_and_tiles_of_both_ranks(m: int, p: int, s: int, t: int) -> None:
    env = {"M": m, "P": p, "S": s, "T": t}
    cascade = Cascade.parse(TWICE)
    assert count_points(cascade, env) == {e.name: len(kept_points(cascade, e, env)) for e in cascade.einsums}
    assert compulsory_words(cascade, env)["A"] == touched_words(cascade, env)["A"]


def test_65536_causal_and_windowed_are_exact() -> None:
    n = 65536
    env = {"B": 64, "H": 16, "E": 128, "F": 128, "P": n, "M": n}
    for mask, pairs in [("m <= p", n * (n + 1) // 2), ("m <= p and p - m < 4096", n * 4096 - 4096 * 4095 // 2)]:
        cascade = Cascade.load("attention-1pass").with_condition(mask)
        operations = count_operations(cascade, env)
        assert operations["BQK"]["mac"] == 64 * 16 * 128 * pairs  # exact: beyond 2**53
        assert isinstance(operations["BQK"]["mac"], int)
        assert compulsory_words(cascade, env)["K"] == 64 * 16 * n * 128


@pytest.mark.parametrize("mask", [None, "m <= p"])
def test_arrays_of_sizes_count_like_each_alone(mask: str | None) -> None:
    cascade = Cascade.load("attention-1pass")
    cascade = cascade.with_condition(mask) if mask else cascade
    lengths, chunks = np.array([[5], [9], [5]]), np.array([2, 4])
    env = {**SIZES, "P": lengths, "M": lengths, "M0": chunks, "unused": "text"}
    together = count_operations(cascade, env)
    words = compulsory_words(cascade, env)
    for row, column in itertools.product(range(3), range(2)):
        alone = {**SIZES, "P": int(lengths[row, 0]), "M": int(lengths[row, 0]), "M0": int(chunks[column])}
        single = count_operations(cascade, alone)
        for einsum, kinds in single.items():
            for kind, count in kinds.items():
                assert np.broadcast_to(together[einsum][kind], (3, 2))[row, column] == count
        for tensor, count in compulsory_words(cascade, alone).items():
            assert np.broadcast_to(words[tensor], (3, 2))[row, column] == count


def test_ten_thousand_design_points_are_counted_at_once() -> None:
    random = np.random.default_rng(0)
    env: dict[str, Any] = {**SIZES, "P": random.integers(1, 10**6, 10_000), "M": random.integers(1, 10**6, 10_000)}
    macs = count_operations(Cascade.load("attention-1pass"), env)["BQK"]["mac"]
    assert macs[17] == 2 * 3 * 2 * int(env["P"][17]) * int(env["M"][17])


TOPK = """
cascade: topk
ranks: {p: P, m: M, e: E, r: R}
inputs: {Q: [p, e], K: [m, e], V: [m, e]}
outputs: [IDX, AV]
einsums:
  - QK[m,p] = Q[p,e] * K[m,e] where m <= p
  - IDX[p,r] = topk(m) QK[m,p] where m <= p
  - AV[p,e] = QK[m,p] * V[m,e] where m in IDX[p] and m <= p
"""


def test_selected_points_are_counted_exactly() -> None:
    cascade = Cascade.parse(TOPK)
    env = {"P": 6, "M": 6, "E": 2, "R": 3}
    assert count_points(cascade, env) == {"QK": 21 * 2, "IDX": 21, "AV": (1 + 2 + 3 * 4) * 2}
    random = np.random.default_rng(1)
    inputs = {name: random.standard_normal((6, 2)) for name in "QKV"}
    assert (run(cascade, inputs, {"R": 3})["IDX"] >= 0).sum() * 2 == count_points(cascade, env)["AV"]


def test_masks_of_run_time_need_a_number() -> None:
    data = cascade_data(Cascade.load("attention-3pass"))
    changed = {**data, "inputs": {**data["inputs"], "KEEP": ["h", "m"]}, "where": ["m in KEEP[h]"]}
    cascade, env = Cascade.parse(changed), {**SIZES, "P": 5, "M": 8}
    with pytest.raises(SpecError, match=r"how many points 'm in KEEP\[h\]' keeps in 'QK' is known only at run time"):
        count_points(cascade, env)
    points = count_points(cascade, env, {"KEEP": 3})
    assert points["QK"] == 2 * 3 * 5 * 3 * 2
    words = compulsory_words(cascade, env, {"KEEP": 3})
    assert (words["K"], words["Q"], words["KEEP"]) == (2 * 3 * 3 * 2, 2 * 3 * 5 * 2, 3 * 8)


def test_what_cannot_be_counted_is_said() -> None:
    cascade = Cascade.load("attention-3pass").with_condition("(p - m) % 3 == 0")
    with pytest.raises(SpecError, match="too many to visit"):
        count_points(cascade, {**SIZES, "P": 2**20, "M": 2**20})
    assert count_points(cascade, {**SIZES, "P": 300, "M": 300})["GM"] == 6 * sum(
        math.ceil((300 - d) / 1) * (1 if d == 0 else 2) for d in range(0, 300, 3)
    )
