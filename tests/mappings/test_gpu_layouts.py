"""How the warps of a thread block lie, and what follows, against what the compiler of this project's kernels chose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from architectures import Architecture
from mappings.gpu.kernel import GridLaunch, GridStep
from mappings.gpu.nest_lowering import launches_of
from simulator.simulate import design

H100 = Architecture.load("h100-sxm").evaluate({})
FLASH: dict[str, Any] = {"B": 1, "H": 8, "P": 2048, "M": 2048, "E": 128, "F": 128, "stages": 2}
LINEAR: dict[str, Any] = {"B": 1, "H": 8, "P": 2048, "E": 128, "F": 128, "stages": 2}


def launched(mapping: str, sizes: dict[str, Any]) -> tuple[tuple[GridLaunch, ...], dict[str, Any]]:
    """The launches of a library mapping, and the values that their expressions name."""
    chosen = design(None, None, mapping, None, sizes)
    machine = chosen.architecture.evaluate(sizes)
    launches, arrays = launches_of(chosen.cascade, machine, chosen.mapping.nest, chosen.environment())
    return launches, {**H100.variables, **arrays}


def steps(launch: GridLaunch, kind: str) -> dict[str, GridStep]:
    return {getattr(step, kind): step for loop in launch.loops for step in loop.steps if getattr(step, kind)}


# Warps along rows and columns of each product, and columns of an instruction, as Triton 3.6 lays them out for sm_90a
# (warpsPerCTA and instrShape of the compiled kernels' products).
COMPILED = [
    ("flash-attention-2", {**FLASH, "block_m": 32, "M0": 64, "warps": 2}, {"BQK": (1, 2, 0), "SLNV": (1, 2, 0)}),
    ("flash-attention-2", {**FLASH, "block_m": 64, "M0": 128, "warps": 2}, {"BQK": (1, 2, 0), "SLNV": (1, 2, 0)}),
    ("flash-attention-2", {**FLASH, "block_m": 32, "M0": 32, "warps": 4}, {"BQK": (1, 4, 0), "SLNV": (1, 4, 0)}),
    ("flash-attention-2", {**FLASH, "block_m": 64, "M0": 64, "warps": 8}, {"BQK": (8, 1, 32), "SLNV": (4, 2, 64)}),
    ("flash-attention-2", {**FLASH, "block_m": 16, "M0": 128, "warps": 4}, {"BQK": (1, 4, 0), "SLNV": (1, 4, 0)}),
    (
        "linear-attention-blocks",
        {**LINEAR, "C": 64, "block_n": 64, "warps": 8},
        {"QS": (8, 1, 32), "QK": (8, 1, 32), "QKV": (4, 2, 32), "KV": (8, 1, 0)},
    ),
    (
        "linear-attention-blocks",
        {**LINEAR, "C": 32, "block_n": 32, "warps": 4},
        {"QS": (4, 1, 0), "QK": (4, 1, 0), "QKV": (4, 1, 0), "KV": (4, 1, 0)},
    ),
    (
        "linear-attention-blocks",
        {**LINEAR, "C": 32, "block_n": 64, "warps": 4},
        {"QS": (1, 4, 0), "QK": (1, 4, 0), "QKV": (1, 4, 0), "KV": (4, 1, 0)},
    ),
    (
        "linear-attention-blocks",
        {**LINEAR, "C": 128, "block_n": 32, "warps": 8},
        {"QS": (8, 1, 0), "QK": (8, 1, 0), "QKV": (8, 1, 0), "KV": (8, 1, 0)},
    ),
]


@pytest.mark.parametrize(("mapping", "sizes", "compiled"), COMPILED)
def test_warps_lie_as_the_compiler_lays_them(
    mapping: str, sizes: dict[str, Any], compiled: dict[str, tuple[int, int, int]]
) -> None:
    """Seen from the steps: how often a number is computed, how single warps share rows, columns of an instruction."""
    launches, env = launched(mapping, sizes)
    found = steps(launches[0], "product")
    for name, (rows, columns, instruction) in compiled.items():
        step = found[name]
        m, n = step.m.number(env), step.n.number(env)
        again = max(1, 16 * rows / m) * max(1, 8 * columns / n)
        assert step.repeat.number(env) == again
        assert step.columns.number(env) == instruction
        if m < 64:
            assert step.row_warps.number(env) == rows


def test_what_follows_from_repeated_scores_is_repeated() -> None:
    """Eight warps on 64 rows: each of two groups has all scores; the output's columns are shared."""
    found = {}
    for warps in (4, 8):
        launches, env = launched("flash-attention-2", {**FLASH, "block_m": 64, "M0": 64, "warps": warps})
        found[warps] = {
            name: step.issue.number(env) for name, step in steps(launches[0], "vector").items() if "LM" in name
        }
    assert found[8]["LM"] == pytest.approx(2 * found[4]["LM"], rel=1e-12)


def test_rows_are_moved_in_the_pieces_that_loops_cut() -> None:
    (launch,), env = launched(
        "batched-linear-blocks", {"B": 1, "M": 512, "N": 1024, "K": 320, "block_n": 128, "block_k": 32}
    )
    loads, stores = steps(launch, "load"), steps(launch, "store")
    assert {name: step.piece.number(env) for name, step in loads.items()} == {"A": 64, "B": 64}
    assert stores["Z"].piece.number(env) == 256
    whole = launched("batched-linear-blocks", {"B": 1, "M": 512, "N": 128, "K": 32, "block_n": 128, "block_k": 32})
    assert (
        steps(whole[0][0], "load")["A"].piece.number(whole[1])
        == steps(whole[0][0], "store")["Z"].piece.number(whole[1])
        == 0
    )


@pytest.mark.parametrize(("depth", "columns"), [(320, 1024), (328, 1024), (320, 1032)])
def test_rows_of_other_lengths_are_moved_number_by_number(depth: int, columns: int) -> None:
    """The compiler knows of multiples of 16 numbers; copies of two bytes cannot run ahead."""
    (launch,), env = launched("batched-linear-blocks", {"B": 1, "M": 512, "N": columns, "K": depth, "block_n": 128})
    (plain,), _ = launched("batched-linear-blocks", {"B": 1, "M": 512, "N": 1024, "K": 320, "block_n": 128})
    ahead = {step.asynchronous.number(env) for step in steps(launch, "load").values()}
    assert ahead == {float(depth % 16 == 0)}
    assert launch.stages.number(env) == (plain.stages.number(env) if depth % 16 == 0 else 1)
    control = [
        sum(step.issue.number(env) for loop in each.loops for step in loop.steps if step.vector)
        for each in (launch, plain)
    ]
    assert (control[0] > 1.3 * control[1]) == (depth % 16 != 0 or columns % 16 != 0)


def test_a_sum_of_256_columns_waits_for_every_instruction() -> None:
    waits = {}
    for block_n in (128, 256):
        (launch,), env = launched("batched-linear-blocks", {"B": 1, "M": 512, "N": 1024, "K": 512, "block_n": block_n})
        step = steps(launch, "product")["Z"]
        waits[block_n] = step.waits.number(env), step.aside.number(env)
    assert waits == {128: (0, 1), 256: (1, 0)}


def test_single_warps_need_a_buffer_less() -> None:
    """They have the tile in use in registers: decode's blocks of 16 rows, and attention's of 64."""
    for rows, buffers in ((16, 2), (64, 3)):
        sizes = {**FLASH, "block_m": rows, "M0": 64, "warps": 4, "stages": 3}
        (launch,), env = launched("flash-attention-2", sizes)
        taken = launch.shared.number(env) - 2 * rows * 128 - (2 * rows * 64 if rows < 64 else 0)
        assert taken == buffers * 2 * 2 * 64 * 128


@pytest.mark.parametrize("warps", [1, 2, 4, 8])
def test_layouts_use_every_warp(warps: int) -> None:
    """Numbers of a product's result, as often as they are computed, are shared out evenly over what warps can hold."""
    for block in ((16, 32), (32, 128), (64, 64), (128, 32), (256, 128)):
        sizes = {"B": 1, "M": 512, "N": 512, "K": 256, "block_m": block[0], "block_n": block[1], "warps": warps}
        (launch,), env = launched("batched-linear-blocks", sizes)
        step = steps(launch, "product")["Z"]
        done = np.prod([getattr(step, name).number(env) for name in ("m", "n", "repeat")])
        assert done % (warps * 16 * 8) == 0
        assert done == max(block[0] * block[1], warps * 16 * 8)
