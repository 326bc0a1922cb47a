"""What is in the mapper's space: each part of it where it wins, and how far the best-effort part is from the best."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Iterator
from itertools import permutations, product
from typing import Any

import pytest

from architectures import Architecture
from einsum import Cascade
from mappings import Mapping as Plan
from mappings.search import Found, find
from simulator.simulate import simulate
from tests.mappings.test_search import MATMUL, evaluator

ACCESS = {"access_bits": 8, "read_energy": "1 pJ", "write_energy": "1 pJ"}


def machine(
    dims: dict[str, int], bandwidth: str = "1 GB/s", nearer: float = 1.0, **capacities: int
) -> Architecture:
    """DRAM over the given memories, outermost first, and one unit; on-chip accesses cost a tenth of DRAM's.

    `nearer`: by what factor an access to each memory costs less than to the one around it.
    """
    prices = [f"{0.1 / nearer**place} pJ" for place in range(len(capacities))]
    return Architecture.parse({
        "architecture": "parts", "clock": "1 GHz", "word_bits": 8,
        "memories": {
            "DRAM": {"bandwidth": bandwidth, **ACCESS},
            **{
                name: {"capacity": words, "access_bits": 8, "read_energy": price, "write_energy": price}
                for (name, words), price in zip(capacities.items(), prices, strict=True)
            },
        },
        "units": {"array": {"dims": dims, "ops": {"mac": {"cycles": 1, "energy": "0.1 pJ"}}}},
    })  # fmt: skip


def best(chosen: Architecture, objective: Any, **sizes: int) -> Found:
    return find(MATMUL, chosen, None, objective, sizes, evaluate=evaluator(MATMUL, chosen, None, sizes))


def nodes(nest: Any) -> Iterator[dict[str, Any]]:
    """All nodes of a nest."""
    for node in nest:
        if isinstance(node, list):
            yield from nodes(node)
        else:
            yield node
            for kind in ("sequence", "pipeline"):
                yield from nodes(node.get(kind, []))


def held(found: Found) -> dict[tuple[str, str], Any]:
    """(level, tensor) -> options of its hold."""
    return {
        (level, tensor): options
        for node in nodes(found.mapping.data["nest"])
        for level, entries in node.get("keep", {}).items()
        for tensor, options in entries.items()
    }


def test_ranks_are_laid_over_the_array_where_they_fill_it() -> None:
    """3 x 64: only with n on the columns and m or k on the rows are 64 columns full."""
    chosen = machine({"rows": 4, "columns": 64}, "1 TB/s", L1=100_000)
    found = best(chosen, "latency", M=4, N=64, K=32)
    (leaf,) = [node for node in nodes(found.mapping.data["nest"]) if "compute" in node]
    assert leaf["spatial"] == {"n": "columns", "m": "rows"} or leaf["spatial"] == {"n": "columns", "k": "rows"}
    assert found.cost is not None
    assert found.cost.latency_s == pytest.approx(32e-9, rel=0.2)  # M N K / 256 points in each cycle


def test_two_buffers_win_where_loads_and_work_take_as_long() -> None:
    """One buffer takes loads and products in turn; two overlap them."""
    chosen = machine({"lanes": 4}, "1 GB/s", L1=400)
    sizes = {"M": 64, "N": 4, "K": 64}
    found = best(chosen, "latency", **sizes)
    assert any(options.get("buffers") == 2 for options in held(found).values())
    text = str(found.mapping.data["nest"]).replace("'buffers': 2", "'buffers': 1")
    single = Plan.parse({"mapping": "single", "nest": literal_eval(text)})
    assert found.cost is not None
    assert simulate(MATMUL, chosen, single, None, sizes).latency_s[0] > 1.3 * found.cost.latency_s


def test_one_buffer_wins_where_a_second_one_would_halve_the_tiles() -> None:
    """Where the memory limits, room for larger tiles is worth more than overlap."""
    chosen = machine({"lanes": 1}, "1 TB/s", L1=300)
    found = best(chosen, "energy", M=40, N=40, K=40)
    assert all(options.get("buffers", 1) == 1 for options in held(found).values())


def test_a_tensor_without_reuse_passes_the_inner_level_by() -> None:
    """A matrix times a vector: the matrix has nothing to reuse, so it lies in one memory only; the vector is near."""
    chosen = machine({"lanes": 1}, "1 GB/s", nearer=4.0, L2=4000, L1=64)
    found = best(chosen, "energy", M=48, N=1, K=48)
    levels = {tensor: {level for level, name in held(found) if name == tensor} for tensor in "ABZ"}
    assert len(levels["A"]) == 1
    assert "L1" in levels["B"] | levels["Z"]


def test_chunks_that_do_not_divide_win() -> None:
    """A prime extent: its only divisors are 1 and 13, and both move more than chunks of 5 and 3."""
    chosen = machine({"lanes": 1}, L1=40)
    sizes = {"M": 13, "N": 13, "K": 13}
    found = best(chosen, "dram", **sizes)
    assert found.exact
    even = min(
        plan_bytes(chosen, order, dict(zip("mnk", chunks, strict=True)), depths, sizes)
        for order in permutations("mnk")
        for chunks in product((1, 13), repeat=3)
        for depths in product(range(4), repeat=3)
    )
    assert found.dram_bytes < even


def plan_bytes(chosen: Architecture, order: Any, chunks: Any, depths: Any, sizes: Any) -> float:
    """Traffic of one nest of a product; infinite where it does not fit."""
    from einsum.errors import SpecError

    nest: list[Any] = []
    for depth in range(4):
        kept = [tensor for tensor, at in zip("ABZ", depths, strict=True) if at == depth]
        nest += [{"keep": {"L1": kept}}] if kept else []
        nest += [{"for": {order[depth]: chunks[order[depth]]}}] if depth < 3 else []
    plan = Plan.parse({"mapping": "one", "nest": [*nest, {"compute": "Z", "on": "array"}]})
    try:
        return evaluator(MATMUL, chosen, None, sizes)(plan).dram_bytes
    except SpecError:
        return float("inf")


FLASH = {"B": 1, "H": 2, "P": 4096, "M": 4096, "E": 64, "F": 64, "W": 64, "buffer": 128 * 1024}


def test_flash_attention_2_moves_what_its_block_size_says() -> None:
    """Queries and outputs once, keys and values once for each block of queries (FlashAttention-2, section 3.1)."""
    cascade = Cascade.load("attention-1pass")
    found = find(cascade, "fusemax", None, "dram", FLASH, evaluate=evaluator(cascade, "fusemax", None, FLASH))
    block = next(node["for"]["p"] for node in nodes(found.mapping.data["nest"]) if "p" in node.get("for", {}))
    heads, length, width, word = 2, 4096, 64, 2
    blocks = -(-length // block)
    assert found.dram_bytes == heads * length * 2 * width * word * (1 + blocks)
    result = simulate(cascade, "fusemax", found.mapping, None, FLASH)
    moved = result.traffic_bytes["DRAM"]
    assert moved["Q"]["read"][0] == moved["AV"]["write"][0] == heads * length * width * word
    assert moved["K"]["read"][0] == moved["V"]["read"][0] == heads * length * width * word * blocks
    assert set(moved) == {"total", "Q", "K", "V", "AV"}  # scores and the running state never leave the chip
    assert 1 < blocks <= 16
