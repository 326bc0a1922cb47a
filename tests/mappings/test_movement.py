"""Traffic, cycles and operations of random small nests equal those of an interpreter that walks them step by step."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings

from einsum.errors import SpecError
from tests.mappings import nests
from tests.mappings.machine import machine, program, totals, units
from tests.mappings.nests import Case
from tests.mappings.oracle import Lost, Oracle, Stuck

SMALL = machine()  # no power of two, so that laid-out ranks are ragged
EVEN = machine({"rows": 2, "columns": 4, "lanes": 4})


def agree(case: Case, architecture: Any = SMALL) -> None:
    """The lowered program moves and computes what the oracle counts, or both refuse the nest."""
    try:
        oracle = Oracle(case.cascade, case.nest, case.values, units(architecture))
    except Stuck:
        with pytest.raises(SpecError, match="complete over rank"):
            program(case.cascade, architecture, case.nest, case.values)
        return
    except Lost:
        with pytest.raises(SpecError, match="is replaced before"):
            program(case.cascade, architecture, case.nest, case.values)
        return
    found = totals(program(case.cascade, architecture, case.nest, case.values))
    tally = oracle.tally
    assert found["read"] == tally.read
    assert found["write"] == tally.write
    assert found["cycles"] == tally.cycles
    operations = {key: count for key, count in found["actions"].items() if key[0] in ("grid", "row")}
    assert Counter(operations) == tally.operations


@settings(max_examples=80)
@given(nests.products())
def test_matrix_products(case: Case) -> None:
    agree(case)


@settings(max_examples=60)
@given(nests.similarities())
def test_a_tensor_that_is_read_twice_moves_for_both(case: Case) -> None:
    agree(case)


@settings(max_examples=60)
@given(nests.convolutions())
def test_convolutions_move_the_overlap_of_their_tiles_again(case: Case) -> None:
    agree(case)


@settings(max_examples=40)
@given(nests.branched_attention())
def test_attention_in_phases_and_branches(case: Case) -> None:
    agree(case, EVEN)


@settings(max_examples=80)
@given(nests.fused_attention())
def test_attention_under_shared_loops(case: Case) -> None:
    agree(case)


@settings(max_examples=40)
@given(nests.one_pass_attention())
def test_one_pass_attention(case: Case) -> None:
    agree(case)
