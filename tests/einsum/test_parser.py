"""The notation of Einsums: what it means, that it prints as it reads, and where a mistake is pointed at."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsum.access import Index
from einsum.body import Literal, Map, Read, Symbol
from einsum.conditions import Comparison, Kept
from einsum.einsum import Einsum
from einsum.errors import SpecError
from einsum.expressions import Expression
from einsum.parser import parse_einsum, parse_where

RANKS = frozenset("bhpmefkijrw") | {"m1", "m0"}


def einsum(text: str) -> Einsum:
    return parse_einsum(text, RANKS, {"Z0", "Y"})


def test_a_product_is_summed_over_the_ranks_that_the_output_lacks() -> None:
    score = einsum("QK[b,h,m,p] = Q[b,h,p,e] * K[b,h,m,e]")
    assert (score.reduction, score.reduced) == ("sum", ("e",))
    assert score.ranks == ("b", "h", "m", "p", "e")
    assert [access.tensor for access in score.inputs] == ["Q", "K"]
    assert score.ops == {"mac": 1}


def test_named_reductions_and_maps_of_the_same_name_are_told_apart() -> None:
    assert einsum("GM[p] = max(m) QK[m,p]").reduction == "max"
    running = einsum("RM[i+1,p] = max(RM[i,p], LM[i,p])")
    assert running.reduction is None
    assert running.body == Map("max", (Read(running.inputs[0]), Read(running.inputs[1])))
    assert einsum("T[p] = max(p, k0)").body == Map("max", (Symbol("p"), Symbol("k0")))
    assert einsum("T[p] = max(m) (A[m,p] - B[m,p])").reduced == ("m",)
    assert einsum("T[p] = min(m, j) A[m,p] * B[j,p]").reduced == ("m", "j")


@pytest.mark.parametrize(
    ("text", "ops"),
    [
        ("S[p] = sum(m) A[m,p]", {"add": 1}),
        ("S[p] = A[m,p] * B[m] * C[m]", {"mul": 1, "mac": 1}),
        ("S[p] = sum(m) exp(A[m,p] - B[p])", {"exp": 1, "sub": 1, "add": 1}),
        ("S[m,p] = exp(A[m,p] - B[p]) / C[p]", {"exp": 1, "sub": 1, "div": 1}),
        ("S[p] = A[p] * (1 / sqrt(E))", {"mul": 1}),
        ("S[m,p] = A[m,p] + B[p] * (m - p)", {"mul": 1, "add": 1}),
        ("S[p] = max(A[p], B[p], 0)", {"max": 2}),
        ("S[p] = max(m) A[m,p] * B[m]", {"mul": 1, "max": 1}),
        ("S[p] = select(A[p] > 0, A[p], 0)", {"select": 1, "cmp": 1}),
        ("S[p] = A[p]", {}),
        ("K2[m] = topk_mask(m, 8) S[m]", {"topk": 1}),
    ],
)
def test_operations_per_point(text: str, ops: dict[str, int]) -> None:
    assert einsum(text).ops == ops


def test_indices_are_affine_in_ranks_with_variables_as_coefficients() -> None:
    access = einsum("T[m1,m0] = K[m1*M0+m0] * L[2*p+w-1, M1, 0] * N[S*(m1+2*p)]").inputs
    first = access[0].indices[0]
    assert {rank: str(factor) for rank, factor in first.terms.items()} == {"m1": "M0", "m0": "1"}
    conv, final, zero = access[1].indices
    assert conv.step is None
    assert {rank: str(factor) for rank, factor in conv.terms.items()} == {"p": "2", "w": "1"}
    assert str(conv.offset) == "-1"
    assert (final.ranks, str(final)) == ((), "M1")
    assert zero.offset.evaluate({}) == 0
    assert Index.of_rank("p").rank == "p"
    strided = access[2].indices[0]
    assert {rank: factor.evaluate({"S": 3}) for rank, factor in strided.terms.items()} == {"m1": 3, "p": 6}


def test_an_iterative_index_steps_ahead() -> None:
    running = einsum("RD[b,i+1,p] = SLD[b,i,p] + RD[b,i,p] * PRM[b,i,p]")
    assert [index.step for index in running.output.indices] == [("b", 0), ("i", 1), ("p", 0)]
    assert running.ranks == ("b", "i", "p")


def test_where_clauses_compare_ranks_or_look_up_kept_sets() -> None:
    clauses = "m <= p and p - m < Wd, m // Bk <= p // Bk and m in KEEP[p] and X[m,p]"
    found = einsum(f"A[m,p] = B[m,p] where {clauses}").conditions
    assert found[:3] == (
        Comparison(Expression.parse("m <= p")),
        Comparison(Expression.parse("p - m < Wd")),
        Comparison(Expression.parse("m // Bk <= p // Bk")),
    )
    kept, mask = found[3:]
    assert isinstance(kept, Kept)
    assert (kept.member, kept.access.tensor) == ("m", "KEEP")
    assert isinstance(mask, Kept)
    assert (mask.member, mask.access.ranks) == (None, ("m", "p"))
    either = parse_where("m < 4 or m > p - Wd", RANKS)
    assert [str(condition) for condition in either] == ["(m < 4 or m > p - Wd)"]


def test_a_top_k_has_a_new_rank_for_its_results() -> None:
    top = einsum("IDX[p,r] = topk(m) S[p,m]")
    assert (top.ranks, top.reduced) == (("p", "m"), ("m",))
    mask = einsum("KEEP[p,m] = topk_mask(m, k0) S[p,m]")
    assert (mask.ranks, mask.reduced, str(mask.keep)) == (("p", "m"), ("m",), "k0")


@pytest.mark.parametrize(
    "text",
    [
        "QK[b,h,m,p] = Q[b,h,p,e] * K[b,h,m,e]",
        "SN[m,p] = exp(QK[m,p] - GM[p])",
        "SLD[m1,p] = sum(m0) SLN[m1,m0,p]",
        "RM[m1+1,p] = max(RM[m1,p], LM[m1,p])",
        "AV[p,f] = RNV[M1,p,f] / RD[M1,p]",
        "A[p] = -(B[p] + 2) * C[p] - (D[p] - E[p]) / (F[p] * G[p])",
        "A[p] = B[p] - (C[p] - D[p]) - -1",
        "A[p] = (B[p] / C[p]) / (D[p] / E[p])",
        "O[p] = I[2*p+w] * W[w]",
        "BK[m1,m0] = K[m1*M0+m0]",
        "A[p] = select(B[p] > 0, inf, -inf)",
        "A[p] = (B[p] > 0) * C[p] ** 2",
        "KEEP[p,m] = topk_mask(m, K0 // 2) S[p,m] where m <= p and m in OLD[p]",
        "Z = A[k] * B[k]",
        "W[p] = Z0 * Y * B[p]",
    ],
)
def test_an_einsum_reads_back_as_it_prints(text: str) -> None:
    assert einsum(str(einsum(text))) == einsum(text)


def test_printing_keeps_the_meaning_of_minus_and_division() -> None:
    assert einsum("A[p] = B[p] - (C[p] - D[p])") != einsum("A[p] = B[p] - C[p] - D[p]")
    assert str(einsum("A[p]=B[p]-(C[p]-D[p])")) == "A[p] = B[p] - (C[p] - D[p])"
    assert einsum("A[p] = -1 ** 2").body != Literal(1)


_ATOMS = st.one_of(
    st.sampled_from(["A[p]", "B[m,p]", "C[2*p+m-1]", "E", "p", "inf"]),
    st.floats(1e-300, 1e300).map(str),
    st.integers(0, 10**9).map(str),
)
_OPERATORS = st.sampled_from([*"+-*/%<", "//", "**", ">="])
_BODIES = st.recursive(
    _ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, _OPERATORS, inner).map(lambda t: f"({t[0]}){t[1]}({t[2]})"),
        inner.map(lambda t: f"-({t})"),
        inner.map(lambda t: f"exp({t})"),
        st.tuples(inner, inner).map(lambda t: f"max({t[0]}, {t[1]})"),
    ),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(_BODIES)
def test_any_body_reads_back_as_it_prints(body: str) -> None:
    parsed = einsum(f"A[m,p] = {body}")
    assert einsum(str(parsed)) == parsed


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("A[p = B[p]", 5, "expected ']', found '='"),
        ("A[p] B[p]", 6, "expected '=', found 'B'"),
        ("A[p] = ", 8, "found the end"),
        ("A[p] = B[p] *", 14, "expected a tensor, a number or a function"),
        ("A[p] = exq(B[p])", 8, "unknown function 'exq' (did you mean 'exp'?)"),
        ("A[p] = summ(m) B[m,p]", 8, "unknown function 'summ' (did you mean 'sum'?)"),
        ("A[p] = sum(z) B[m,p]", 12, "unknown rank 'z'"),
        ("A[p] = exp(B[m,p])", 8, "'A' lacks m: say how to reduce, as in sum(m)"),
        ("A[p] = B[m,p] + C[p]", 8, "say how to reduce"),
        ("A[m,p] = sum(m) B[m,p]", 10, "'m' is reduced, yet it is an index of the output"),
        ("A[p] = sum(m) B[m,j,p]", 8, "'j' is neither an index of the output nor reduced"),
        ("A[p] = sum(j) B[p]", 8, "'j' is reduced, but nothing on the right depends on it"),
        ("A[p] = B[p*m]", 10, "the index 'p*m' is not affine in m, p"),
        ("A[p] = B[p//2]", 10, "not affine"),
        ("A[p] = exp(B[p], C[p])", 8, "exp takes one operand, found 2"),
        ("A[p] = select(B[p], 1)", 8, "select takes 3 operands, found 2"),
        ("A[p] = B[p] + sum(m) C[m]", 15, "the reduction 'sum' may only stand before"),
        ("A[p] = B[p] where m", 19, "expected a comparison such as 'm <= p'"),
        ("A[p] = B[p] where z in K[p]", 19, "expected a rank before 'in', found 'z'"),
        ("A[p] = B[p] wher p < 2", 13, "unexpected 'wher'"),
        ("A[p] = B[p] ; C", 13, "unexpected character ';'"),
        ("A[p] = topk(m) B[m,p]", 8, "a rank that counts the selected points"),
        ("A[p] = topk(m, j) B[m,j,p]", 8, "selects along one rank"),
        ("[p] = B[p]", 1, "expected a tensor, found '['"),
        ("A[p] = " + "(" * 80 + "B[p]" + ")" * 80, None, "nested more than"),
        ("A[p] = " + "-" * 80 + "B[p]", None, "nested more than"),
        ("A[p] = 2 MiB", 10, "unexpected 'MiB'"),
        ("A[p] = " + "B[p]+" * 300 + "B[p]", None, "more than 200 operators"),
        ("A[p] = B[(1 if 2 > 1 else 0)*p]", 10, "an index is made of sums, products and functions"),
    ],
)
def test_a_mistake_is_pointed_at(text: str, column: int | None, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        einsum(text)
    assert message in str(caught.value)
    assert column is None or caught.value.column == column


CLAUSES = st.lists(
    st.lists(st.sampled_from(["m <= p", "m > p - Wd", "m < 4", "not m == p"]), min_size=1, max_size=3),
    min_size=1,
    max_size=3,
)


@given(CLAUSES)
def test_printed_conditions_are_the_same_conditions(clauses: list[list[str]]) -> None:
    entries = [" or ".join(clause) for clause in clauses]
    parsed = tuple(condition for entry in entries for condition in parse_where(entry, RANKS))
    assert parse_where(" and ".join(map(str, parsed)), RANKS) == parsed
    assert parse_where(", ".join(entries), RANKS) == parsed


@pytest.mark.parametrize("text", ["m <= p and m > p - Wd or m < 4", "m < 4 or m > p and m <= p"])
def test_and_beside_or_needs_parentheses(text: str) -> None:
    with pytest.raises(SpecError, match="'and' stands beside 'or'; put parentheses"):
        parse_where(text, RANKS)
