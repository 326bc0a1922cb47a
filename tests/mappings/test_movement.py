"""Traffic, cycles and operations of random small nests equal those of an interpreter that walks them step by step."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from math import prod
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from einsum.errors import SpecError
from simulator.simulate import simulate
from tests.mappings import nests
from tests.mappings.machine import machine, plan, program, totals, units
from tests.mappings.nests import Case
from tests.mappings.oracle import Lost, Oracle, Stuck

MASK = st.sampled_from(sorted(nests.MASKS))
SMALL = machine()  # no power of two, so that laid-out ranks are ragged
EVEN = machine({"rows": 2, "columns": 4, "lanes": 4})


def agree(case: Case, architecture: Any = SMALL, mask: str | None = None) -> None:
    """The lowered program moves and computes what the oracle counts, or both refuse the nest."""
    keeps = None
    if mask is not None:
        keeps, kept = lambda at: nests.MASKS[mask](at["p"], at["m"]), nests.kept(mask, case)
        case = replace(case, cascade=case.cascade.with_condition(mask))
    try:
        oracle = Oracle(case.cascade, case.nest, case.values, units(architecture), keeps)
    except (Stuck, Lost):  # a nest may be wrong in both ways: either is a reason
        with pytest.raises(SpecError, match=r"complete over rank|is replaced before"):
            program(case.cascade, architecture, case.nest, case.values)
        return
    if keeps is not None and not kept.any():
        with pytest.raises(SpecError, match="keeps no point"):
            program(case.cascade, architecture, case.nest, case.values)
        return
    try:
        found = totals(program(case.cascade, architecture, case.nest, case.values))
    except SpecError as error:  # which tiles are complete is judged as if there were no mask
        assert keeps is not None and re.search(r"complete over rank|is replaced before", str(error))
        return
    tally = oracle.tally
    assert found["read"] == tally.read
    assert found["write"] == tally.write
    assert found["cycles"] == tally.cycles
    if mask is not None and case.cascade.partitions:
        return  # the kept part of a chunk's points is also that of Einsums over chunks
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


@settings(max_examples=150)
@given(nests.masked_products(), MASK)
def test_products_under_masks(case: Case, mask: str) -> None:
    agree(case, mask=mask)


@settings(max_examples=40)
@given(nests.fused_attention(), MASK)
def test_attention_under_masks(case: Case, mask: str) -> None:
    agree(case, mask=mask)


@settings(max_examples=20)
@given(nests.one_pass_attention(), MASK)
def test_one_pass_attention_under_masks(case: Case, mask: str) -> None:
    agree(case, mask=mask)


@settings(max_examples=80)
@given(st.one_of(nests.masked_products(), nests.branched_attention(), nests.fused_attention()), MASK)
def test_no_nest_under_a_mask_moves_less_than_what_the_mask_needs(case: Case, mask: str) -> None:
    """Inputs are read, and results written, at least once where a kept point touches them; the events say the same."""
    kept = nests.kept(mask, case)
    assume(kept.any())
    seen = {("p",): kept.any(axis=1).sum(), ("m",): kept.any(axis=0).sum(), ("m", "p"): kept.sum(), (): 1}
    plan_of = plan(case.nest)
    masked = case.cascade.with_condition(mask)
    try:
        result = simulate(masked, SMALL, plan_of, None, case.values)
    except SpecError as error:
        assert re.search(r"complete over rank|is replaced before|no memory that encloses", str(error))
        return
    moved = result.traffic_bytes["DRAM"]
    for name, tensor in masked.tensors.items():
        if tensor.kind != "intermediate":
            words = int(seen[tuple(sorted({"p", "m"} & set(tensor.ranks)))])
            words *= prod(case.values[rank.upper()] for rank in tensor.ranks if rank not in ("p", "m"))
            way = "read" if tensor.kind == "input" else "write"
            assert moved[name][way][0] >= 2 * words * (1 - 1e-9)
    events = simulate(masked, SMALL, plan_of, None, case.values, fidelity="event").traffic_bytes["DRAM"]
    for name, ways in moved.items():
        for way, count in ways.items():
            assert events[name][way][0] == pytest.approx(count[0])
