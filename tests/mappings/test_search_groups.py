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


SIGMOID = Cascade.parse(
    """
    cascade: sigmoid-attention
    ranks: {b: B, h: H, p: P, m: M, e: E, f: F}
    inputs: {Q: [b, h, p, e], K: [b, h, m, e], V: [b, h, m, f]}
    outputs: [AV]
    einsums:
      - QK[b,h,m,p] = Q[b,h,p,e] * K[b,h,m,e]
      - A[b,h,m,p] = sigmoid(QK[b,h,m,p])
      - AV[b,h,p,f] = A[b,h,m,p] * V[b,h,m,f]
    """
)
EDGE = Architecture.parse(
    """
    architecture: edge
    clock: 800 MHz
    word_bits: 16
    memories:
      DRAM: {bandwidth: 50 GB/s, access_bits: 64, read_energy: 250 pJ, write_energy: 250 pJ}
      SRAM: {capacity: 512 KiB, access_bits: 128, read_energy: 25 pJ, write_energy: 25 pJ}
    units:
      array: {dims: {rows: 32, columns: 32}, ops: {mac: {energy: 1 pJ}}}
      vector: {dims: {lanes: 32}, ops: {sigmoid: {cycles: 2, energy: 8 pJ}}}
    """
)


def test_of_mappings_that_move_as_little_the_fastest_is_found() -> None:
    """The array computes all products; nothing is faster than all of its elements at work all the time."""
    sizes = {"B": 2, "H": 4, "P": 1024, "M": 1024, "E": 64, "F": 64}
    found = find_mapping(SIGMOID, EDGE, None, "dram", sizes)
    assert found.exact
    assert found.cost is not None
    assert found.cost.dram_bytes == found.dram_bytes == found.compulsory_bytes
    assert found.cost.latency_s == pytest.approx(2 * 4 * 1024 * 1024 * (64 + 64) / 32**2 / 800e6, rel=0.02)


@pytest.mark.parametrize(
    ("cascade", "architecture", "workload", "sizes"),
    [
        ("matmul", "fusemax", None, {"K": 64, "N": 64, "M": 64, "W": 61, "buffer": 8192}),
        ("attention-decode", "fusemax", "falcon-7b", {}),
        ("attention-decode", "tpu-v4i", "llama-2-70b", {}),
    ],
)
def test_latency_is_no_worse_than_that_of_the_least_traffic(
    cascade: str, architecture: str, workload: str | None, sizes: dict[str, int]
) -> None:
    fast = find_mapping(cascade, architecture, workload, "latency", sizes)
    frugal = find_mapping(cascade, architecture, workload, "dram", sizes)
    assert fast.cost is not None
    assert frugal.cost is not None
    assert fast.cost.latency_s <= frugal.cost.latency_s
    assert fast.cost.dram_bytes >= frugal.cost.dram_bytes
