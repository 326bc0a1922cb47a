"""Nests in thread blocks of a GPU: work and traffic against the cascade's counts and plain walks over the blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from architectures import Architecture
from einsum.cascade import Cascade
from einsum.counts import compulsory_traffic, count_operations
from einsum.errors import SpecError
from mappings import Mapping
from mappings.gpu.blocks import Blocks
from mappings.gpu.kernel import GridLaunch, GridLoop, GridStep
from mappings.gpu.nest_lowering import launches_of
from simulator.result import Result
from simulator.simulate import build_program, design, simulate

H100 = Architecture.load("h100-sxm").evaluate({})
ATTENTION: dict[str, Any] = {"B": 2, "H": 4, "P": 512, "M": 768, "E": 64, "F": 128}
LIBRARY: dict[str, dict[str, Any]] = {
    "flash-attention-2": ATTENTION,
    "flash-attention-2-grouped": {**ATTENTION, "G": 2},
    "unfused-blocks": {**ATTENTION, "G": 2, "row": 768},
    "matmul-blocks": {"M": 512, "N": 768, "K": 320},
    "batched-linear-blocks": {"B": 3, "M": 512, "N": 384, "K": 320},
    "linear-attention-blocks": {"B": 2, "H": 4, "P": 512, "E": 64, "F": 128},
    "flash-decode-blocks": {"B": 2, "H": 4, "G": 16, "M": 4096, "E": 64, "F": 128},
    "softmax-blocks": {"R": 96, "M": 1024},
    "softmax-online-blocks": {"R": 96, "M": 4096},
    "copy-blocks": {"M": 1 << 20},
}


def launched(mapping: str | Mapping, sizes: dict[str, Any], where: tuple[str, ...] = ()) -> tuple[Cascade, Any, Any]:
    """Cascade, launches and the values that their expressions name."""
    chosen = design(None, None, mapping, None, sizes)
    cascade = chosen.cascade.with_condition(*where) if where else chosen.cascade
    env = chosen.environment()
    launches, arrays = launches_of(cascade, chosen.architecture.evaluate(sizes), chosen.mapping.nest, env)
    return cascade, launches, {**H100.variables, **arrays}


def executed(launch: GridLaunch, env: dict[str, Any]) -> Iterator[tuple[GridStep, float]]:
    """Every step of a launch with how often it runs, over all blocks."""
    blocks = Blocks.of(launch, env)
    for loop in launch.loops:
        for step in loop.steps:
            yield step, blocks.mean(loop.trips) * blocks.count


def walks(loop: GridLoop) -> bool:
    """Whether a loop is one over keys."""
    return any(step.product == "BQK" for step in loop.steps)


def softmax_issue(loop: GridLoop, env: dict[str, Any]) -> float:
    """Instructions of the row maximum, the first Einsum behind the scores."""
    return sum(step.issue.number(env) for step in loop.steps if step.vector == "LM")


def number(value: Any) -> float:
    return float(np.asarray(value).reshape(-1)[0])


@pytest.mark.parametrize("name", LIBRARY)
def test_products_do_what_the_cascade_counts(name: str) -> None:
    """Sizes that tiles divide: nothing is padded, so the products' multiplications are those of the cascade."""
    cascade, launches, env = launched(name, LIBRARY[name])
    done: dict[str, float] = {}
    for launch in launches:
        for step, times in executed(launch, env):
            if step.product is not None:
                points = step.m.number(env) * step.n.number(env) * step.k.number(env) * step.repeat.number(env)
                done[step.product] = done.get(step.product, 0.0) + points * times
    counted = count_operations(cascade.without_conditions(), {**LIBRARY[name], "M0": env.get("M0", 64)})
    causal = name == "linear-attention-blocks"  # whole chunks of 64 scores, and those of a head in both of its blocks
    again = {"QK": 2 * 128 / 65, "QKV": 128 / 65} if causal else {}
    for product, points in done.items():
        assert points == pytest.approx(counted[product]["mac"] * again.get(product, 1.0), rel=1e-12)
    assert done or name.startswith(("softmax", "copy"))


@pytest.mark.parametrize("name", LIBRARY)
def test_inputs_are_read_once_and_outputs_written_once_where_the_l2_holds_them(name: str) -> None:
    result = simulate(mapping=name, settings={**LIBRARY[name], "l2_dirty_share": 0})
    chosen = design(None, None, name, None, LIBRARY[name])
    least = compulsory_traffic(chosen.cascade.without_conditions(), chosen.environment(), 2.0)
    moved = result.traffic_bytes["DRAM"]
    for tensor in chosen.cascade.inputs:
        assert number(moved[tensor.name]["read"]) == pytest.approx(least[tensor.name], rel=1e-12)
    for tensor in chosen.cascade.outputs:
        assert number(moved[tensor.name]["write"]) == pytest.approx(least[tensor.name], rel=1e-12)


@pytest.mark.parametrize(
    ("nest", "kernel", "sizes", "arguments"),
    [
        ("flash-attention-2", "flash-attention-gpu", {"B": 4, "H": 16, "P": 4096, "M": 4096, "E": 128, "F": 128}, {}),
        ("flash-attention-2", "flash-attention-gpu", {"B": 8, "H": 32, "P": 1000, "M": 3000, "E": 64, "F": 64}, {}),
        ("matmul-blocks", "matmul-gpu", {"M": 8192, "N": 4096, "K": 2048}, {}),
        ("matmul-blocks", "matmul-gpu", {"M": 3000, "N": 5008, "K": 784}, {}),
    ],
)
def test_the_derived_form_is_near_the_compiled_one(
    nest: str, kernel: str, sizes: dict[str, Any], arguments: dict[str, Any]
) -> None:
    """Instructions counted from Einsums against those read off compiled code: nothing is fitted to the other."""
    derived = simulate(mapping=nest, settings=sizes)
    compiled = simulate(mapping=kernel, settings={**sizes, **arguments})
    assert number(derived.latency_s) == pytest.approx(number(compiled.latency_s), rel=0.15)
    total = [result.traffic_bytes["DRAM"]["total"]["read"] for result in (derived, compiled)]
    assert number(total[0]) == pytest.approx(number(total[1]), rel=0.02)


@settings(max_examples=25, deadline=None)
@given(
    queries=st.integers(1, 300), keys=st.integers(1, 300), window=st.integers(1, 200), block=st.sampled_from([16, 64]),
    chunk=st.sampled_from([16, 32]), backward=st.booleans(), banded=st.booleans(),
)  # fmt: skip
def test_blocks_walk_over_the_tiles_that_a_mask_leaves(
    queries: int, keys: int, window: int, block: int, chunk: int, backward: bool, banded: bool
) -> None:
    """Tiles with a kept point are visited, and those with a point left out are masked; counted point by point."""
    keys = max(keys, queries)
    where = ["m <= p + M - P"] + ([f"m > p + M - P - {window}"] if banded else [])
    data = dict(Mapping.load("flash-attention-2").data)
    if not backward:
        data["nest"] = [{**data["nest"][0], "backward": []}, *data["nest"][1:]]
    sizes = {"B": 1, "H": 1, "P": queries, "M": keys, "E": 16, "F": 16, "block_m": block, "M0": chunk, "warps": 4}
    _, (launch,), env = launched(Mapping.parse(data), sizes, tuple(where))
    p, m = np.ogrid[:queries, :keys]
    kept = m <= p + keys - queries
    kept = kept & (m > p + keys - queries - window) if banded else kept
    _, (unmasked,), _ = launched(Mapping.parse(data), sizes)
    plain = min(softmax_issue(loop, env) for loop in unmasked.loops if walks(loop))
    blocks = Blocks.of(launch, env)
    visited, whole, rows = (np.zeros(blocks.count) for _ in range(3))
    for loop in filter(walks, launch.loops):
        trips = blocks.array(loop.trips)
        visited += trips
        whole += trips * (softmax_issue(loop, env) == plain)
        rows += sum(blocks.array(step.rows[1]) - blocks.array(step.rows[0]) for step in loop.steps if step.load == "K")
    order = range(blocks.count)[::-1] if backward else range(blocks.count)
    for place, tile in enumerate(order):
        part = kept[tile * block : (tile + 1) * block]
        tiles = [part[:, first : first + chunk] for first in range(0, keys, chunk)]
        assert visited[place] == sum(tile.any() for tile in tiles)
        assert whole[place] == sum(tile.all() for tile in tiles)
        assert rows[place] == sum(tile.shape[1] for tile in tiles if tile.any())


@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(1, 500), n=st.integers(1, 500), k=st.integers(1, 200), block_m=st.sampled_from([16, 64, 128]),
    block_n=st.sampled_from([16, 64]), block_k=st.sampled_from([16, 64]),
)  # fmt: skip
def test_ragged_blocks_ask_the_l2_for_what_a_plain_walk_counts(
    m: int, n: int, k: int, block_m: int, block_n: int, block_k: int
) -> None:
    sizes = {"M": m, "N": n, "K": k, "block_m": block_m, "block_n": block_n, "block_k": block_k, "warps": 4}
    moved = simulate(mapping="matmul-blocks", settings=sizes).traffic_bytes["L2"]
    rows, columns = -(-m // block_m), -(-n // block_n)
    assert number(moved["A"]["read"]) == pytest.approx(2 * m * k * columns)
    assert number(moved["B"]["read"]) == pytest.approx(2 * n * k * rows)
    assert number(moved["Z"]["write"]) == pytest.approx(2 * m * n)


CONVOLUTION = """
mapping: convolution
cascade: conv1d
architecture: h100-sxm
nest:
  - {grid: {k: 16, p: 32}, warps: 4}
  - keep: {shared: [I, G], registers: [O]}
  - {compute: O, on: tensor}
"""


def test_halos_of_neighbouring_blocks_are_fetched_once() -> None:
    """An affine index: the blocks' inputs overlap, and the L2 has what a neighbour has read."""
    sizes = {"K": 32, "P": 1000, "C": 8, "W": 9}
    moved = simulate(mapping=Mapping.parse(CONVOLUTION), settings=sizes).traffic_bytes
    assert number(moved["DRAM"]["I"]["read"]) == 2 * 8 * (1000 + 9 - 1)
    ends = [min(start + 32, 1000) - start for start in range(0, 1000, 32)]
    assert number(moved["L2"]["I"]["read"]) == pytest.approx(2 * 2 * 8 * sum(width + 9 - 1 for width in ends))
    assert number(moved["DRAM"]["G"]["read"]) == 2 * 32 * 8 * 9


def test_each_block_computes_what_it_cannot_get_from_another() -> None:
    """The scores of a chunk do not depend on the value columns that the grid cuts: every block has them to itself."""
    sizes = {"B": 1, "H": 1, "P": 256, "E": 64, "F": 256}
    _, (launch,), env = launched("linear-attention-blocks", sizes)
    scores = sum(times for step, times in executed(launch, env) if step.product == "QK")
    assert scores == 256 // 64 * 256 // 64


def test_what_a_block_takes_decides_how_many_fit() -> None:
    def taken(**changes: int) -> tuple[float, float]:
        _, (launch,), env = launched("flash-attention-2", {**ATTENTION, **changes})
        return launch.registers.number(env), launch.shared.number(env)

    registers, shared = taken(block_m=128, M0=64, warps=8, stages=3)
    assert shared == 2 * (128 * 64 + 3 * 64 * (64 + 128))  # queries, three tiles of keys and values
    values = (128 * 128 + 128 * 64) / 256 + 3 * 2  # output and scores; maxima before and behind, and sums, of two rows
    copies = 64 * (64 + 128) * 2 / 16 / 256
    assert registers == pytest.approx(28 + 1.3 * values + copies, rel=1e-12)
    assert taken(block_m=128, M0=64, warps=8, stages=2)[1] == shared - 2 * 64 * (64 + 128)
    assert taken(block_m=128, M0=64, warps=4, stages=3)[0] > registers


def test_a_pipeline_and_warps_that_load_are_knobs_of_the_nest() -> None:
    """FlashAttention-3: the products of one tile beside the softmax of another; warps of their own for the loads."""
    sizes = {"B": 4, "H": 16, "P": 8192, "M": 8192, "E": 128, "F": 128, "M0": 128, "warps": 8, "stages": 2}
    cool = {**sizes, "power_limit_w": 0}
    plain, pipelined, both = (
        number(simulate(mapping="flash-attention-2", settings={**cool, **knobs}).latency_s)
        for knobs in ({}, {"pipelined": 1}, {"pipelined": 1, "specialized": 1})
    )
    assert both < pipelined < plain


@pytest.mark.parametrize("where", [(), ("m <= p",)])
def test_the_event_evaluator_plays_the_same_blocks(where: tuple[str, ...]) -> None:
    sizes = {"B": 4, "H": 16, "P": 1024, "M": 1024, "E": 64, "F": 64}

    def run(fidelity: Any) -> Result:
        return simulate(mapping="flash-attention-2", settings=sizes, where=where, fidelity=fidelity)

    analytic, event = run("analytic"), run("event")
    assert number(event.latency_s) == pytest.approx(number(analytic.latency_s), rel=0.2)
    for level in ("DRAM", "L2"):
        read = [number(result.traffic_bytes[level]["total"]["read"]) for result in (analytic, event)]
        assert read[0] == pytest.approx(read[1])


def test_points_of_a_call_are_those_of_single_runs_and_other_gpus_run_the_same_nest() -> None:
    tiles = np.array([32, 64, 128])
    together = simulate(mapping="flash-attention-2", settings={**ATTENTION, "M0": tiles, "stages": 2})
    for place, tile in enumerate(tiles.tolist()):
        alone = simulate(mapping="flash-attention-2", settings={**ATTENTION, "M0": tile, "stages": 2})
        assert together.latency_s[place] == number(alone.latency_s)
    older = simulate(mapping="flash-attention-2", architecture="a100-sxm-80gb", settings={**ATTENTION, "M0": 32})
    assert number(older.latency_s) > number(together.latency_s[0])


def test_values_between_launches_stay_in_the_l2_where_they_fit() -> None:
    small = simulate(mapping="unfused-blocks", settings={**ATTENTION, "G": 1, "B": 1, "H": 1}).traffic_bytes["DRAM"]
    large = simulate(mapping="unfused-blocks", settings={**ATTENTION, "G": 8, "B": 8, "H": 8}).traffic_bytes["DRAM"]
    assert number(small["QK"]["read"]) == 0
    assert number(large["QK"]["read"]) == 2 * 8 * 8 * 8 * 512 * 768


FLASH = Mapping.load("flash-attention-2").data
GRID, COLUMNS, HELD, LOOP, TILES, PIPELINE = FLASH["nest"]
STEPS: list[dict[str, Any]] = PIPELINE["pipeline"]


def tree(
    grid: Any = GRID, held: Any = HELD, tiles: dict[str, Any] | None = None, last: Any = PIPELINE, before: Any = ()
) -> list[Any]:
    """The nest of `flash-attention-2` with some of its parts replaced."""
    keep = {"keep": {**TILES["keep"], **(tiles or {})}}
    return [*before, *([grid] if grid else []), COLUMNS, held, LOOP, keep, last]


def computed(place: int, **changes: Any) -> dict[str, Any]:
    """Its Einsums in sequence, one of them computed in another way."""
    return {"sequence": [*STEPS[:place], {**STEPS[place], **changes}, *STEPS[place + 1 :]]}


UNHELD = {name: count for name, count in TILES["keep"]["registers"].items() if name != "BQK"}
WRONG: list[tuple[list[Any], dict[str, Any], str]] = [
    (tree({"grid": GRID["grid"]}), {}, "how many 'warps'"),
    (tree({**GRID, "slots": 2}), {}, "leave 'slots' out"),
    (tree({**GRID, "backward": ["q"]}), {}, "no rank 'q'"),
    (tree(tiles={"shared": {"K": 2}}), {}, "no memory of the thread block holds"),
    (tree(tiles={"shared": {"V": 2}, "L2": ["K"]}), {}, "which all blocks share"),
    (tree(tiles={"registers": UNHELD}, before=[{"keep": {"DRAM": ["BQK"]}}]), {}, "made and read in one launch"),
    (tree(last=computed(0, spatial={"p": "lanes"})), {}, "leave 'spatial'"),
    (tree(last={"parallel": STEPS}), {}, "in a sequence or as a pipeline"),
    (tree(last={"sequence": [{"stall": 5}, *STEPS]}), {}, "no stall"),
    (tree(last=computed(0, on="vectors")), {}, "not on 'vectors' .did you mean 'vector'"),
    (tree(last=computed(1, on="tensor")), {}, "the tensor cores compute products"),
    (tree(), {"stages": 12}, "shared memory"),
    (tree(), {"warps": 64, "block_m": 64}, "does not fit"),
]


@pytest.mark.parametrize(("nest", "changes", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_what_a_thread_block_cannot_do_is_one_sentence(nest: Any, changes: dict[str, Any], message: str) -> None:
    mapping = Mapping.parse({**FLASH, "nest": nest}, "mine.yaml")
    with pytest.raises(SpecError, match=message) as caught:
        simulate(mapping=mapping, settings={**ATTENTION, **changes})
    assert "\n" not in str(caught.value) and str(caught.value).startswith("mine.yaml")


def test_registers_that_overflow_are_refused_unless_they_may_spill() -> None:
    sizes = {**ATTENTION, "block_m": 256, "M0": 128, "warps": 4, "stages": 1, "F": 256}
    held = {"keep": {"shared": ["Q"], "registers": ["RNV", "RM", "RD"]}}
    with pytest.raises(SpecError, match=r"a thread would hold [\d,]+ registers of 255, the largest part is 'RNV'"):
        simulate(mapping=Mapping.parse({**FLASH, "nest": tree(held=held)}), settings=sizes)


def test_a_grid_may_not_cut_a_sum() -> None:
    data = Mapping.load("matmul-blocks").data
    nest = [{"grid": {"m": 64, "n": 64, "k": 128}, "warps": 4}, *data["nest"][2:]]
    with pytest.raises(SpecError, match="the grid's loop over 'k' cuts what Z reduces"):
        simulate(mapping=Mapping.parse({**data, "nest": nest}), settings={"M": 256, "N": 256, "K": 512})


def test_blocks_are_for_gpus() -> None:
    machine = Architecture.load("fusemax")
    with pytest.raises(SpecError, match="is no GPU"):
        build_program(design(None, machine, Mapping.parse({
            "mapping": "mine", "cascade": "matmul",
            "nest": [{"grid": {"m": 64}, "warps": 4}, {"compute": "Z", "on": "array_2d"}],
        }), None, {"M": 64, "N": 64, "K": 64}))  # fmt: skip


def test_an_operation_without_instructions_is_named() -> None:
    table = dict(Architecture.load("h100-sxm").evaluate({}).instructions)
    assert "exp" in table
    described = Architecture.parse({"like": "h100-sxm", "architecture": "mine", "variables": {"fragment_threads": 4}})
    cascade = Cascade.parse({
        "cascade": "ranked", "ranks": {"r": "R", "m": "M"}, "inputs": {"X": ["r", "m"]}, "outputs": ["Z"],
        "einsums": ["Z[r,m] = topk_mask(m, 4) X[r,m]"],
    })  # fmt: skip
    mapping = Mapping.parse({
        "mapping": "mine", "nest": [{"grid": {"r": 1}, "warps": 4}, {"keep": {"registers": ["X", "Z"]}},
                                    {"compute": "Z", "on": "vector"}],
    })  # fmt: skip
    with pytest.raises(SpecError, match="no instructions for 'topk'"):
        simulate(cascade, described, mapping, None, {"R": 8, "M": 64})
