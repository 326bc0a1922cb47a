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
