"""Problems are read off Einsums and index maps: classes, statements, masks, roles, and what stays outside."""

from __future__ import annotations

import numpy as np
import pytest

from bounds.engine import lower_bound
from bounds.heads import heads_of
from bounds.reader import read_problem, score_ranks
from bounds.schedules import find_schedules
from bounds.verify import verify
from einsum import Cascade, SpecError

SIZES = {"B": 2, "H": 3, "P": 40, "M": 40, "E": 8, "F": 6}
ATTENTIONS = (
    "attention-1pass",
    "attention-2pass",
    "attention-3pass",
    "attention-3pass-deferred",
    "attention-unstable",
    "attention-unstable-deferred",
)


@pytest.mark.parametrize("name", ATTENTIONS)
@pytest.mark.parametrize("mask", [None, "causal", "window:7"])
def test_every_form_of_attention_is_the_same_problem(name: str, mask: str | None) -> None:
    problem = read_problem(Cascade.load(name), SIZES, mask)
    heads = heads_of(problem)
    assert not isinstance(heads, str)
    assert (heads.rows, heads.columns, heads.d, heads.dv, heads.copies, heads.statistics) in {
        (40, 40, 8, 6, 6, 2),
        (40, 40, 8, 6, 6, 0),
    }
    assert heads.pairs == {None: 1600, "causal": 820, "window:7": 7 * 40 - 21}[mask]
    words = {v.kind: 0.0 for v in problem.classes.values()}
    for value in problem.classes.values():
        words[value.kind] += value.elements
    assert words == {"input": 6 * 40 * (8 + 8 + 6), "intermediate": 6 * heads.pairs, "output": 6 * 40 * 6}


def test_conditions_of_a_cascade_are_its_mask() -> None:
    cascade = Cascade.load("attention-1pass").with_condition("m <= p")
    written, named = read_problem(cascade, SIZES), read_problem(Cascade.load("attention-1pass"), SIZES, "causal")
    memory = np.geomspace(10, 3000, 9)
    assert np.array_equal(lower_bound(written, memory).words, lower_bound(named, memory).words)
    with pytest.raises(SpecError, match="conditions of its own"):
        read_problem(cascade, SIZES, "causal")


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("m <= p and p - m < 3", lambda p, m: (m <= p) & (p - m < 3)),
        ("abs(p - m) <= 2", lambda p, m: abs(p - m) <= 2),
        ("m // 3 <= p // 3", lambda p, m: m // 3 <= p // 3),
        ("m // 3 == p // 3", lambda p, m: m // 3 == p // 3),
        ("(m + p) % 2 == 0", lambda p, m: (m + p) % 2 == 0),
        ("m >= 2 * p - 3", lambda p, m: m >= 2 * p - 3),
        ("m < p", lambda p, m: m < p),
    ],
)
def test_patterns_of_conditions(condition: str, kept) -> None:
    problem = read_problem(Cascade.load("attention-3pass").with_condition(condition), SIZES | {"P": 13, "M": 11})
    assert problem.coupling is not None
    pattern = problem.coupling.pattern
    grid = kept(np.arange(13)[:, None], np.arange(11)[None, :])
    grid = grid[grid.any(axis=1)][:, grid.any(axis=0)]
    assert [pattern.row(i) for i in range(pattern.rows)] == [np.flatnonzero(row).tolist() for row in grid]
    assert (pattern.pairs, pattern.fullest_row, pattern.fullest_column) == (
        grid.sum(),
        grid.sum(axis=1).max(),
        grid.sum(axis=0).max(),
    )


def test_a_file_lists_blocks(tmp_path) -> None:
    table = tmp_path / "mask.csv"
    table.write_text("1,0\n1,1\n")
    problem = read_problem(Cascade.load("attention-3pass"), SIZES, f"blocks:{table}")
    assert problem.coupling is not None
    assert problem.coupling.pattern.pairs == 3 * 20 * 20
    table.write_text("1,0\n1\n")
    with pytest.raises(SpecError, match="same number of entries"):
        read_problem(Cascade.load("attention-3pass"), SIZES, f"blocks:{table}")


def test_roles_of_ranks_do_not_depend_on_names() -> None:
    cascade = Cascade.parse(
        """
        cascade: renamed
        ranks: {x: X, q: R, a: A, u: U, s: S}
        inputs: {L: [x, q, u], N: [x, a, u], W: [x, a, s]}
        outputs: [Y]
        einsums:
          - T[x,q,a] = L[x,q,u] * N[x,a,u]
          - T1[x,q,a] = exp(T[x,q,a])
          - T2[x,q] = sum(a) T1[x,q,a]
          - Y[x,q,s] = sum(a) T1[x,q,a] / T2[x,q] * W[x,a,s]
        """
    )
    sizes = {"X": 2, "R": 30, "A": 20, "U": 4, "S": 5}
    assert score_ranks(cascade, sizes).positions == ("q", "a")
    assert score_ranks(cascade, sizes).widths == ("u", "s")
    heads = heads_of(read_problem(cascade, sizes))
    assert not isinstance(heads, str)
    assert (heads.rows, heads.columns, heads.d, heads.dv, heads.copies) == (30, 20, 4, 5, 2)


def test_backward_pass_has_one_class_of_scores_with_two_producers() -> None:
    problem = read_problem(Cascade.load("attention-backward"), SIZES)
    assert set(problem.classes["QK"].members) == {"QK", "A", "DA", "DS"}
    needs = {(s.name, a.tensor): a.needs for s in problem.statements for a in s.operands}
    assert needs["DV", "QK"] == ("QK",)
    assert needs["DQ", "QK"] == ("DA", "QK")
    assert set(score_ranks(Cascade.load("attention-backward"), SIZES).widths) == {"e", "f"}
    memory = np.array([64.0, 1000.0, 5000.0])
    for label in ("recompute-safe", "no-recompute"):
        for certificate in lower_bound(problem, memory, label).certificates:
            verify(certificate)


OTHERS = {
    "conv1d": {"K": 8, "P": 50, "C": 4, "W": 5},
    "conv2d": {"N": 2, "K": 8, "P": 12, "Q": 12, "C": 6, "R": 3, "S": 3},
    "batched-matmul": {"B": 4, "M": 30, "N": 20, "K": 25},
    "grouped-matmul": {"B": 4, "G": 2, "M": 30, "N": 20, "K": 25},
    "chained-matmul": {"I": 40, "J": 30, "K": 20, "L": 10},
    "linear-attention": SIZES,
    "attention-grouped": SIZES | {"G": 4},
    "matmul": {"M": 40, "N": 50, "K": 30},
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_cascades_have_bounds_below_their_best_schedules(name: str) -> None:
    problem = read_problem(Cascade.load(name), OTHERS[name])
    best = find_schedules(problem).best
    assert best is not None
    memory = np.geomspace(best.footprint[0], 20000, 25)
    found = lower_bound(problem, memory)
    assert np.all(found.words <= best.at(memory)[0] * (1 + 1e-9))
    assert (
        found.words[0]
        > found.words[-1]
        == sum(v.elements for v in problem.classes.values() if v.kind in ("input", "output"))
    )
    for certificate in found.certificates:
        verify(certificate)


def test_a_transformer_layer_has_bounds_below_its_schedules() -> None:
    problem = read_problem(Cascade.load("transformer-layer"), SIZES | {"D": 24, "S": 96})
    memory = np.array([100.0, 1000.0])
    safe, once = (lower_bound(problem, memory, label) for label in ("recompute-safe", "no-recompute"))
    assert np.all(once.words >= safe.words)
    assert "cut" in once.theorems[0]
    for certificate in (*safe.certificates, *once.certificates):
        verify(certificate)
    best = find_schedules(problem).best
    assert best is not None
    assert np.all(once.words <= best.at(memory)[0])


def test_run_time_sparsity_stays_outside_and_says_why() -> None:
    cascade = Cascade.parse(
        """
        cascade: pruned
        ranks: {p: P, m: M, e: E, f: F}
        inputs: {Q: [p, e], K: [m, e], V: [m, f], KEEP: [p, m]}
        outputs: [AV]
        einsums:
          - QK[p,m] = Q[p,e] * K[m,e] where KEEP[p,m]
          - AV[p,f] = QK[p,m] * V[m,f] where KEEP[p,m]
        """
    )
    problem = read_problem(cascade, {"P": 6, "M": 7, "E": 3, "F": 2})
    assert not problem.statements
    assert [remark.split(":")[0] for remark in problem.remarks] == ["QK", "AV"]
    assert lower_bound(problem, np.array([10.0])).words[0] <= 6 * 3 + 7 * 3 + 7 * 2 + 6 * 7 + 6 * 2


def test_word_sizes_of_tensors_weigh_their_words() -> None:
    text = """
        cascade: mixed
        ranks: {m: M, n: N, k: K}
        inputs: {A: [m, k], B: [k, n]}
        bits: {A: 8}
        outputs: [Z]
        einsums: ["Z[m,n] = A[m,k] * B[k,n]"]
    """
    problem = read_problem(Cascade.parse(text), {"M": 64, "N": 64, "K": 64}, word_bytes=2)
    assert problem.classes["A"].width == 0.5
    assert problem.classes["B"].width == 1.0
    found = lower_bound(problem, np.array([100.0]))
    assert (
        found.words[0]
        < lower_bound(read_problem(Cascade.load("matmul"), {"M": 64, "N": 64, "K": 64}), np.array([100.0])).words[0]
    )
    verify(found.certificates[0])


def test_row_statistics_are_no_statements_and_outputs_always_count() -> None:
    cascade = Cascade.parse(
        """
        cascade: softmax
        ranks: {p: P, m: M}
        inputs: {X: [p, m]}
        outputs: [Y, D]
        einsums:
          - G[p] = max(m) X[p,m]
          - S[p,m] = exp(X[p,m] - G[p])
          - D[p] = sum(m) S[p,m]
          - Y[p,m] = S[p,m] / D[p]
        """
    )
    problem = read_problem(cascade, {"P": 5, "M": 7})
    assert not problem.statements
    assert problem.classes["D"].elements == 5
    assert {(f.tensor, f.rank, f.passes) for f in problem.passes} == {("X", "m", 3)}
    found = lower_bound(problem, np.array([3.0, 7.0]), "no-recompute").words
    assert found == pytest.approx([2 * 5 * 7 + 2 * 5 * (7 - 3) + 5, 2 * 5 * 7 + 5], rel=1e-6)


def test_sums_of_chunks_are_not_taken_for_sums_of_whole_ranks() -> None:
    """KV[c] needs one chunk of keys, not all: it is never counted as rebuilt from whole fibers."""
    cascade = Cascade.parse(
        """
        cascade: chunks
        variables: {M0: 4}
        ranks: {p: P, m: M, e: E, f: F}
        partition: {m: {outer: m1, inner: m0, size: M0}}
        inputs: {Q: [p, e], K: [m, e], V: [m, f]}
        outputs: [O]
        einsums:
          - KV[m1,e,f] = K[m1*M0+m0,e] * V[m1*M0+m0,f]
          - O[p,m1,f] = Q[p,e] * KV[m1,e,f]
        """
    )
    problem = read_problem(cascade, {"P": 32, "M": 32, "E": 8, "F": 8})
    assert problem.classes["KV"].chunked
    for label in ("recompute-safe", "no-recompute"):
        found = lower_bound(problem, np.array([20.0, 100.0]), label)
        assert not any("joint" in theorem or "fused" in theorem or "cut" in theorem for theorem in found.theorems)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("transformer-layer", SIZES | {"D": 24, "S": 96}), ("attention-backward", SIZES), ("attention-3pass", SIZES)],
)
def test_a_mask_falls_on_the_scores_rows_being_those_that_a_maximum_scales(name: str, sizes: dict) -> None:
    problem = read_problem(Cascade.load(name), sizes, "causal")
    assert problem.coupling is not None
    assert (problem.coupling.row, problem.coupling.column) == ("p", "m")


def test_words_that_closed_forms_do_not_move_keep_them_from_being_claimed() -> None:
    """A bias of every score, and row sums that are an output, are traffic that attention alone does not have."""
    text = """
        cascade: biased
        ranks: {p: P, m: M, e: E, f: F}
        inputs: {Q: [p, e], K: [m, e], V: [m, f], BIAS: [p, m]}
        outputs: [O, D]
        einsums:
          - S[p,m] = Q[p,e] * K[m,e]
          - X[p,m] = exp(S[p,m])
          - D[p] = sum(m) X[p,m]
          - O[p,f] = X[p,m] * V[m,f]
        """
    sizes = {"P": 30, "M": 20, "E": 4, "F": 5}
    logged = text.replace(", BIAS: [p, m]", "")
    biased = text.replace("[O, D]", "[O]").replace("exp(S[p,m])", "exp(S[p,m] + BIAS[p,m])")
    biased = biased.replace("          - D[p] = sum(m) X[p,m]\n", "")
    for changed in (logged, biased):
        found = find_schedules(read_problem(Cascade.parse(changed), sizes))
        assert found.best is None
        assert "closed form" in found.reason


LATENT = Cascade.parse("""
    cascade: latent
    ranks: {h: H, p: P, m: M, r: R, f: F}
    inputs: {QN: [h, p, f], QP: [h, p, r], C: [m, f], KR: [m, r]}
    outputs: [AV]
    einsums:
      - QC[h,m,p] = QN[h,p,f] * C[m,f]
      - QR[h,m,p] = QP[h,p,r] * KR[m,r]
      - QK[h,m,p] = QC[h,m,p] + QR[h,m,p]
      - GM[h,p] = max(m) QK[h,m,p]
      - SN[h,m,p] = exp(QK[h,m,p] - GM[h,p])
      - SD[h,p] = sum(m) SN[h,m,p]
      - AN[h,p,f] = SN[h,m,p] * C[m,f]
      - AV[h,p,f] = AN[h,p,f] / SD[h,p]
    """)


@pytest.mark.parametrize("mask", [None, "causal"])
def test_latent_attention_has_heads_whose_keys_hold_the_values(mask: str | None) -> None:
    problem = read_problem(LATENT, {"H": 8, "P": 300, "M": 300, "R": 8, "F": 32}, mask)
    heads = heads_of(problem)
    assert not isinstance(heads, str)
    assert (heads.rows, heads.columns, heads.d, heads.dv, heads.shared, heads.copies) == (2400, 300, 40, 32, 32, 1)
    found = find_schedules(problem)
    assert found.best is not None
    memory = np.geomspace(16, 4 * found.best.footprint[-1], 30)
    gap = found.best.at(memory)[0] / lower_bound(problem, memory).words
    assert np.all((gap >= 1) & (gap < 2.5))
    assert gap[-1] == 1


def test_conditions_of_other_forms_leave_out_what_hangs_on_them_and_no_more() -> None:
    """What is left gives the bound of the product alone: the other one is computed from points that are not counted."""
    text = {
        "cascade": "two",
        "ranks": {"p": "P", "m": "M", "e": "E", "f": "F"},
        "inputs": {"Q": ["p", "e"], "K": ["m", "e"], "R": ["p", "m"], "V": ["m", "f"]},
        "outputs": ["S", "O"],
        "einsums": [
            "S[p,m] = Q[p,e] * K[m,e]",
            "T[p,m] = exp(R[p,m]) where m >= M - 5",
            "O[p,f] = T[p,m] * V[m,f]",
        ],
    }
    sizes = {"P": 60, "M": 50, "E": 20, "F": 7}
    problem = read_problem(Cascade.parse(text), sizes)
    product = read_problem(Cascade.load("matmul"), {"M": 60, "N": 50, "K": 20})
    assert [s.name for s in problem.statements] == ["S"]
    assert any("O: it is computed from T" in remark for remark in problem.remarks)
    memory = np.array([20.0, 100.0])
    found, alone = lower_bound(problem, memory).words, lower_bound(product, memory).words
    assert np.all(found >= alone * (1 - 1e-9))
    assert np.all(found <= alone + 60 * 7 + 50 * 7 + 5 * 60)  # compulsory words of the other product at most


def test_several_axes_of_a_grid_are_left_out_and_one_axis_is_a_window() -> None:
    cascade = Cascade.load("attention-neighborhood")
    sizes = {"B": 1, "H": 1, "E": 8, "F": 8}
    plane = read_problem(cascade, {**sizes, "X": 6, "Y": 6, "WX": 3, "WY": 3})
    assert not plane.statements and any("cover one pair of ranks" in remark for remark in plane.remarks)
    line = read_problem(cascade, {**sizes, "X": 40, "WX": 5})
    assert line.coupling is not None
    assert line.coupling.pattern.pairs == 40 * 5  # the box is moved into the grid at its edges


@pytest.mark.parametrize("mask", [None, "causal", "window:9"])
def test_attention_of_several_word_sizes_has_row_tiles_at_their_own(mask: str | None) -> None:
    """Counted by walking the tiles: 8 bits for keys, 4 for values, 32 for outputs, words of 16."""
    cascade = Cascade.parse(
        {
            "cascade": "mixed",
            "ranks": {"p": "P", "m": "M", "e": "E", "f": "F"},
            "inputs": {"Q": ["p", "e"], "K": ["m", "e"], "V": ["m", "f"]},
            "outputs": ["AV"],
            "bits": {"K": 8, "V": 4, "AV": 32},
            "einsums": [
                "QK[p,m] = Q[p,e] * K[m,e]", "GM[p] = max(m) QK[p,m]", "SN[p,m] = exp(QK[p,m] - GM[p])",
                "SD[p] = sum(m) SN[p,m]", "A[p,m] = SN[p,m] / SD[p]", "AV[p,f] = A[p,m] * V[m,f]",
            ],
        }
    )  # fmt: skip
    queries, keys, d, dv = 40, 40, 8, 6
    problem = read_problem(cascade, {"P": queries, "M": keys, "E": d, "F": dv}, mask)
    found = find_schedules(problem).best
    assert found is not None
    memory = np.array([250.0, 400.0, 800.0, 2000.0])
    words, names = found.at(memory)
    assert np.all(words >= lower_bound(problem, memory).words)
    p, m = np.arange(queries)[:, None], np.arange(keys)[None, :]
    seen = (m <= p) & (m > p - 9) if mask == "window:9" else (m <= p) if mask else np.ones((queries, keys), bool)
    for most, moved, name in zip(memory, words, names, strict=True):
        if name.startswith("ring"):  # every key stays until no later query needs it; a score each, and three numbers
            assert int(name.split()[1]) * (d / 2 + dv / 4 + 2) + 3 * 2 <= most
            assert moved == queries * (d + dv * 2) + keys * (d / 2 + dv / 4)
            continue
        assert name.startswith("row tiles, Q and O resident")
        rows = int(name.split()[-1].split("x")[0])
        # queries, outputs, score, maximum and sum of a row; one number of a key or value, one of a product
        assert rows * (d + dv * 2 + 3 * 2) + 2 * 2 <= most
        needed = sum(seen[first : first + rows].any(axis=0).sum() for first in range(0, queries, rows))
        assert moved == queries * (d + dv * 2) + needed * (d / 2 + dv / 4)
