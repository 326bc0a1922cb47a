"""Descriptions of compiled kernels against the cascades that they name: operations and bytes are the algorithm's."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest

from architectures import Architecture
from einsum.cascade import Cascade
from einsum.counts import compulsory_traffic, count_operations
from einsum.expressions import resolve
from kernels.case import Case
from kernels.derived import cascade_sizes, conditioned
from kernels.predict import DESCRIPTIONS, arguments_of, description
from mappings import Mapping
from mappings.gpu.kernel import GpuKernel, list_kernels
from mappings.schema import Branch, Compute, Node

SHAPE: dict[str, Any] = {"batch": 2, "heads": 6, "kv_heads": 3, "q_len": 200, "kv_len": 312, "head_dim": 64}
TILE: dict[str, Any] = {"block_m": 64, "block_n": 32, "warps": 4, "stages": 2}
ATTENTION = [
    Case("flash_attention", **{**SHAPE, "q_len": queries}, **TILE, causal=causal, window=window)
    for queries in (200, 312) for causal in (False, True) for window in (0, 70)
]  # fmt: skip
BACKWARD = [
    Case("flash_attention_backward", **{**SHAPE, "q_len": queries}, **TILE, causal=causal)
    for queries in (200, 312) for causal in (False, True)
]  # fmt: skip
CASES = [
    Case("copy", batch=3, heads=5, kv_heads=5, q_len=77, kv_len=77, head_dim=64, block_n=1024, warps=4),
    Case("matmul", **{**SHAPE, "kv_heads": 6}, **TILE, block_k=32),
    Case("matmul", **{**SHAPE, "kv_heads": 6}, **TILE, block_k=32, dtype="fp16"),
    Case("softmax", **SHAPE, **{**TILE, "block_n": 512}),
    Case("softmax", **SHAPE, **{**TILE, "block_n": 128}),
    Case("unfused", **SHAPE, **TILE),
    *ATTENTION,
    *BACKWARD,
    Case("flash_decode", **{**SHAPE, "q_len": 1, "kv_len": 512}, **{**TILE, "block_m": 16}, splits=4),
    Case("lean_decode", **{**SHAPE, "q_len": 1, "kv_len": 500}, **{**TILE, "block_m": 16}, splits=4),
    Case("linear_attention", **{**SHAPE, "kv_heads": 6, "q_len": 320, "kv_len": 320}, **TILE, causal=True),
    Case("block_sparse", **{**SHAPE, "q_len": 384, "kv_len": 384}, **TILE, pattern="local-2+global-1@64"),
]
SEES = "(m // 64 >= p // 64 - 1 and m // 64 <= p // 64 + 1) or m < 64 or p < 64"
"""What `local-2+global-1@64` keeps (kernels/patterns.py): blocks less than 2 apart, the first block of keys, and for
the first block of queries all."""


def known(kernel: GpuKernel, case: Case) -> dict[str, Any]:
    env: dict[str, Any] = {**Architecture.load("h100-sxm").evaluate({}).variables, **arguments_of(case)}
    return {**env, **resolve(kernel.variables, env)}


def computed_on(nodes: tuple[Node, ...], unit: str) -> set[str]:
    """Einsums that a nest binds to a unit."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, Branch):
            found |= {name for child in node.children for name in computed_on(child, unit)}
        elif isinstance(node, Compute) and node.on == unit:
            found |= {*node.compute}
    return found


def products(kernel: GpuKernel, cascade: Cascade, env: dict[str, Any]) -> set[str]:
    """Einsums whose sums of products run on the tensor cores: as the kernel's nest says; where it has none those that
    its products are named after; all where those have names of their own."""
    nest = next((name for name, when in kernel.nests.items() if when.evaluate(env)), None)
    if nest is None or Mapping.load(nest).header.cascade != kernel.cascade:
        names = {einsum.name for einsum in cascade.einsums}
        steps = [step for launch in kernel.launches for loop in launch.loops for step in loop.steps]
        named = {step.product for step in steps if step.product is not None}
        return named if named <= names else names
    return computed_on(Mapping.load(nest).nest, "tensor")


def bytes_of(cascade: Cascade, tensor: str, sizes: dict[str, Any], case: Case) -> float:
    """Bytes of a tensor, whose words may be of a size of their own."""
    bits = cascade.tensors[tensor].bits
    word = case.word_bytes if bits is None else bits.number({}) / 8
    return float(word * prod(cascade.shape(tensor, cascade.extents(sizes))))


@pytest.mark.parametrize("case", CASES, ids=[f"{case.kernel}-{place}" for place, case in enumerate(CASES)])
def test_operations_and_bytes_are_those_of_the_cascade(case: Case) -> None:
    kernel = description(case.kernel)
    env = known(kernel, case)
    cascade, sizes = conditioned(kernel, env, kernel.cascade), cascade_sizes(kernel, env)
    if case.pattern:
        cascade = cascade.with_condition(SEES)
    counted = count_operations(cascade, sizes)
    macs = sum(counted[name].get("mac", 0) for name in products(kernel, cascade, env))
    assert kernel.flops.number(env) == 2 * macs
    through = sum(2 * bytes_of(cascade, name, sizes, case) for name in kernel.passed)
    least = sum(compulsory_traffic(cascade, sizes, case.word_bytes).values()) + through
    assert kernel.bytes.number(env) == least


def test_every_description_is_counted() -> None:
    assert {case.kernel for case in CASES} == set(DESCRIPTIONS)
    assert set(list_kernels()) - {DESCRIPTIONS[case.kernel] for case in CASES} == {"flash-attention-1"}


def test_the_first_flash_attention_does_what_the_second_does() -> None:
    """FlashAttention's own loop order: the same operations and least bytes, in another order."""
    kernel, env = GpuKernel.load("flash-attention-1"), known(GpuKernel.load("flash-attention-1"), ATTENTION[0])
    cascade, sizes = conditioned(kernel, env, kernel.cascade), cascade_sizes(kernel, env)
    macs = sum(kinds.get("mac", 0) for kinds in count_operations(cascade, sizes).values())
    assert kernel.flops.number(env) == 2 * macs
    assert kernel.bytes.number(env) == sum(compulsory_traffic(cascade, sizes, 2.0).values())
