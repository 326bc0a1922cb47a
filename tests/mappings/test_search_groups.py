"""Operands that do not have a rank of the product, as the keys of grouped heads: closed forms count what lowering does.

The heads of a group are a variable of the cascade with a default, which the workload replaces.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from architectures import Architecture
from einsum import Cascade
from einsum.errors import SpecError
from mappings import Mapping as Plan
from mappings.candidates import Candidates
from mappings.mapspace import Problem
from mappings.search import environment
from simulator.mapper import find_mapping
from tests.mappings.test_search import evaluator
from tests.mappings.test_search_execution import machine
from workloads import Workload

PRODUCT = Cascade.parse(
    """
    cascade: grouped-product
    variables: {J: 1}
    ranks: {h: H, j: J, m: M, e: E}
    inputs: {A: [h, j, e], B: [h, m, e]}
    outputs: [Z]
    einsums: ["Z[h,j,m] = A[h,j,e] * B[h,m,e]"]
    """
)
CHAIN = Cascade.parse(
    """
    cascade: grouped-chain
    variables: {J: 1}
    ranks: {h: H, j: J, m: M, e: E, f: F}
    inputs: {A: [h, j, e], B: [h, m, e], C: [h, m, f]}
    outputs: [Z]
    einsums: ["S[h,j,m] = A[h,j,e] * B[h,m,e]", "X[h,j,m] = exp(S[h,j,m])", "Z[h,j,f] = X[h,j,m] * C[h,m,f]"]
    """
)
EXTENTS = st.fixed_dictionaries({name: st.integers(1, 4) for name in "BHJMEF"})


@examples(max_examples=8, deadline=None)
@given(
    st.sampled_from([PRODUCT, CHAIN, Cascade.load("attention-decode")]), EXTENTS,
    st.lists(st.integers(6, 60), min_size=1, max_size=2), st.sampled_from([1, 2]),
)  # fmt: skip
def test_every_candidate_moves_what_was_counted(
    cascade: Cascade, extents: dict[str, int], levels: list[int], lanes: int
) -> None:
    """The group's size comes from the workload; every arrangement, and the least traffic, as lowering counts them."""
    workload = Workload.parse({"workload": "groups", "variables": extents})
    architecture = machine(levels, lanes)
    evaluated = architecture.evaluate({})
    env = environment(cascade, evaluated, workload, {})
    assert env["J"] == extents["J"]
    candidates = Candidates(Problem(cascade, evaluated, env), "chained", {})
    least = candidates.least_traffic(0.0)
    evaluate = evaluator(cascade, architecture, workload)
    for made in [*candidates.arranged(), *([] if least is None else [least])]:
        plan = Plan.parse({"mapping": "sample", "nest": made.write()})
        assert evaluate(plan).dram_bytes == pytest.approx(made.moved_bytes, abs=1e-6), made.description


@examples(max_examples=8, deadline=None)
@given(st.sampled_from([PRODUCT, CHAIN]), EXTENTS, st.integers(6, 60))
def test_a_group_from_the_workload_is_that_of_a_setting(cascade: Cascade, extents: dict[str, int], words: int) -> None:
    """One mapping, wherever the sizes come from; no more than one group's heads alone, each with its own operands."""

    def found(workload: Workload | None, settings: dict[str, Any]) -> tuple[float, bool] | None:
        try:
            one = find_mapping(cascade, machine([words]), workload, "dram", settings)
        except SpecError as error:
            assert "no mapping of cascade" in str(error)
            return None
        assert one.cost is not None
        assert one.cost.dram_bytes == pytest.approx(one.dram_bytes, abs=1e-6)
        return one.dram_bytes, one.exact

    sizes = {name: size for name, size in extents.items() if name in {*cascade.parameters, *cascade.variables}}
    whole = found(Workload.parse({"workload": "groups", "variables": sizes}), {})
    assert whole == found(None, sizes)
    single = found(None, {**sizes, "J": 1})
    assert (whole is None) == (single is None)
    if whole is not None and single is not None:
        assert whole[1]
        assert single[0] <= whole[0] <= sizes["J"] * single[0]


def test_keys_and_values_of_a_group_come_once() -> None:
    """Falcon-7B: 71 heads of queries read one head of keys and values; queries, keys, values and results come once."""
    found = find_mapping("attention-decode", Architecture.load("fusemax"), "falcon-7b", "dram")
    assert found.cost is not None
    once = 2 * (71 * 64 + 2 * 2048 * 64 + 71 * 64)
    assert found.cost.dram_bytes == found.dram_bytes == found.compulsory_bytes == once
    assert found.exact
