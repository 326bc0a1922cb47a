"""A value that is computed once has to be there when it is read again."""

from __future__ import annotations

from typing import Any

import pytest

from einsum.cascade import Cascade
from einsum.errors import SpecError
from tests.mappings.machine import machine, program

TWO = Cascade.parse("""
cascade: two
ranks: {m: M, n: N, k: K, f: F}
inputs: {A: [m, k], B: [k, n], C: [n, f]}
outputs: [Y]
einsums:
  - Z[m,n] = A[m,k] * B[k,n]
  - Y[m,f] = Z[m,n] * C[n,f]
""")
SIZES = {"M": 4, "N": 2, "K": 2, "F": 4}
BODY = {"sequence": [{"compute": "Z", "on": "grid"}, {"compute": "Y", "on": "grid"}]}
KEEP = {"keep": {"L1": ["Z"]}}


def lower(*nodes: dict[str, Any], **sizes: int) -> object:
    return program(TWO, machine(), [*nodes, BODY], {**SIZES, **sizes})


def test_a_tile_that_is_replaced_before_it_is_read_again_is_refused() -> None:
    with pytest.raises(SpecError, match=r"'Z' is computed in the first iteration of the loop over 'f' only.*L1.*Y"):
        lower({"for": {"f": 1}}, {"for": {"m": 1}}, KEEP)


@pytest.mark.parametrize(
    ("nodes", "sizes"),
    [
        (({"for": {"m": 1}}, KEEP, {"for": {"f": 1}}), {}),  # the tile stays while f goes on
        (({"for": {"m": 1}}, {"for": {"f": 1}}, KEEP), {}),
        ((KEEP, {"for": {"f": 1}}, {"for": {"m": 1}}), {}),  # all tiles are held
        (({"for": {"f": 1}}, {"for": {"m": 1}}, KEEP), {"M": 1}),  # there is one tile
        (({"for": {"f": 4}}, {"for": {"m": 1}}, KEEP), {}),  # f has one iteration
    ],
)
def test_a_tile_that_stays_is_accepted(nodes: tuple[dict[str, Any], ...], sizes: dict[str, int]) -> None:
    assert lower(*nodes, **sizes)


MIXED = Cascade.parse("""
cascade: mixed
ranks: {p: P, m: P, d: D}
inputs: {X: [p, d]}
outputs: [S]
einsums:
  - T[p,d] = exp(X[p,d])
  - S[m,p] = T[p,d] * T[m,d]
""")
RENAMED = Cascade.parse("""
cascade: renamed
ranks: {i: P, k: P, j: J, l: L}
inputs: {A: [i, j], C: [j, l]}
outputs: [Z]
einsums:
  - T[i,j] = exp(A[i,j])
  - Z[k,l] = T[k,j] * C[j,l]
""")


@pytest.mark.parametrize(
    ("cascade", "rank", "last", "read"), [(MIXED, "p", "S", r"T\[m,d\]"), (RENAMED, "i", "Z", r"T\[k,j\]")]
)
def test_a_piece_of_a_value_is_not_the_whole(cascade: Cascade, rank: str, last: str, read: str) -> None:
    """Row by row through T: its reader takes all rows, whatever its own ranks are called."""
    sizes = {"P": 4, "D": 3, "J": 3, "L": 2}
    body = {"sequence": [{"compute": "T", "on": "grid"}, {"compute": last, "on": "grid"}]}
    values = {name: sizes[name] for name in cascade.parameters}
    with pytest.raises(SpecError, match=rf"{last} reads {read}, but inside the loop over '{rank}' only a part of 'T'"):
        program(cascade, machine(), [{"for": {rank: 1}}, {"keep": {"L1": ["T"]}}, body], values)
    assert program(cascade, machine(), [{"for": {rank: 4}}, {"keep": {"L1": ["T"]}}, body], values)


@pytest.mark.parametrize("text", ["S[p,m] = T[m,p]", "S[p,m] = T[p,m] / U[p]"])
def test_values_at_other_points_are_not_at_hand(text: str) -> None:
    second = ["U[p] = sum(m) T[p,m]"] if "U" in text else []
    cascade = Cascade.parse({
        "cascade": "together", "ranks": {"p": "P", "m": "P"}, "inputs": {"X": ["p", "m"]}, "outputs": ["S"],
        "einsums": ["T[p,m] = exp(X[p,m])", *second, text],
    })  # fmt: skip
    names = [einsum.name for einsum in cascade.einsums]
    with pytest.raises(SpecError, match="is not complete at the point where"):
        program(cascade, machine(), [{"compute": names, "on": "row"}], {"P": 4})
