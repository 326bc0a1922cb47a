"""What a thread block's loops do to each other and to themselves, against counting trip by trip."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from architectures import Architecture, EvaluatedArchitecture
from architectures.gpu import Gpu
from mappings.gpu.kernel import GpuKernel
from mappings.gpu.loops import in_step
from mappings.gpu.lowering import lower
from simulator.class_cost import class_costs

PRODUCT: dict[str, Any] = {
    "batch": 1, "heads": 1, "kv_heads": 1, "q_len": 1024, "kv_len": 1024, "head_dim": 256, "causal": False, "window": 0,
    "block_m": 128, "block_n": 64, "block_k": 64, "warps": 4, "stages": 4, "splits": 1, "variant": "", "word_bytes": 2,
    "overlap": 0, "specialized": 0, "dtype": "fp16",
}  # fmt: skip


@pytest.fixture(scope="module")
def h100() -> EvaluatedArchitecture:
    return Architecture.load("h100-sxm").evaluate({})


@pytest.mark.parametrize("waves", [1, 3, 12])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_blocks_lose_step_with_every_trip_that_they_make(index: int, waves: int) -> None:
    """Loops of 2, 40 and 1 trips; each trip loses a thousandth of `fine` steps."""
    trips, fine, rate = (2, 40, 1), 200, 1 / 300
    kept, gone = [], 0.0
    for _ in range(waves):
        for loop, count in enumerate(trips):
            for _ in range(count * fine):
                gone += rate / fine
                if loop == index:
                    kept.append(np.exp(-gone))
    assert in_step(np.array(trips) * rate, index, waves) == pytest.approx(np.mean(kept), rel=1e-4)


@pytest.mark.parametrize("stages", [2, 4, 5])
def test_a_pipeline_copies_as_many_tiles_of_zeros_as_it_began_before_the_loop(
    h100: EvaluatedArchitecture, stages: int
) -> None:
    """A loop of 4 trips writes 4 + stages - 1 tiles into the shared memory: 128 bytes a cycle, operands A and B."""
    program = lower(GpuKernel.load("matmul"), h100, {**PRODUCT, "stages": stages})
    busy = [
        float(np.asarray(step.busy_s)[0, 0])
        for step in program.phases[0].streams[0].steps
        if step.resource == "shared" and step.name in ("load A shared", "load B shared")
    ]
    tile = (128 + 64) * 64 * 2 / 128 / Gpu.of(h100).clock_hz
    assert 4 * sum(busy) == pytest.approx((4 + stages - 1) * tile)


def test_words_that_begin_anywhere_are_asked_for_beside_their_transfer(h100: EvaluatedArchitecture) -> None:
    """Each of the 8,192 + 4,096 words of a trip is asked for by a thread of its own: three and a half instructions, and
    a pass of 4 bytes a thread through the load and store unit; all beside the transfer."""
    sizes = {**PRODUCT, "head_dim": 1000, "kv_len": 1000, "block_k": 64}
    program = lower(GpuKernel.load("matmul"), h100, sizes)
    cost = class_costs(program.phases[0].streams[0], program.resources)[0]
    clock = Gpu.of(h100).clock_hz
    forks = [fork for fork in cost.forks_s if "port" in fork]
    assert len(forks) == 2
    words = 12288
    assert sum(fork["vector"] for fork in forks) == pytest.approx(3.5 * words / 128 / clock)
    assert sum(fork["shared"] for fork in forks) == pytest.approx(4 * words / 128 / clock)


@pytest.mark.parametrize("tile, along_rows", [
    ((16, 32, 4), 1), ((16, 64, 4), 1), ((16, 128, 8), 1), ((32, 32, 4), 2), ((32, 64, 4), 1), ((32, 128, 4), 1),
    ((32, 32, 8), 2), ((32, 64, 8), 2), ((32, 128, 8), 1), ((32, 256, 8), 1),
])  # fmt: skip
def test_single_warps_stand_as_the_compiler_lets_them(
    h100: EvaluatedArchitecture, tile: tuple[int, int, int], along_rows: int
) -> None:
    """Warps along the rows in builds of Triton 3.6 for sm_90a (`warpsPerCTA`); each loads its part of both operands."""
    m, n, warps = tile
    program = lower(GpuKernel.load("matmul"), h100, {**PRODUCT, "block_m": m, "block_n": n, "warps": warps})
    steps = {step.name: step for step in program.phases[0].streams[0].steps}
    read = 64 * 2 * (m * warps / along_rows + n * along_rows)
    assert float(np.asarray(steps["C operands"].busy_s)[0, 0]) == pytest.approx(read / 128 / Gpu.of(h100).clock_hz)
