"""GPU kernels as tile programs: published traffic, compulsory bytes, occupancy, and what cannot run."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from architectures import Architecture, EvaluatedArchitecture
from architectures.gpu import Gpu
from einsum.errors import SpecError
from einsum.expressions import resolve
from mappings.gpu.kernel import GpuKernel, list_kernels
from mappings.gpu.lowering import lower
from simulator.analytic import evaluate

SIZES = {
    "batch": 2, "heads": 4, "kv_heads": 4, "q_len": 1024, "kv_len": 1024, "head_dim": 64, "causal": False, "window": 0,
    "block_m": 64, "block_n": 64, "block_k": 64, "warps": 4, "stages": 2, "splits": 4, "variant": "", "word_bytes": 2,
    "overlap": 0, "specialized": 0, "visible_pairs": 1024.0**2, "kept_blocks": 4, "kept_first": 0, "kept_last": 256,
    "pattern_block": 64, "pattern": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def h100() -> EvaluatedArchitecture:
    return Architecture.load("h100-sxm").evaluate({})


def moved(kernel: str, machine: EvaluatedArchitecture, **changes: Any) -> tuple[float, float]:
    result = evaluate(lower(GpuKernel.load(kernel), machine, {**SIZES, **changes}))
    total = result.traffic_bytes["DRAM"]["total"]
    return float(total["read"][0]), float(total["write"][0])


@pytest.mark.parametrize("block_n, gigabytes", [(64, 6.577), (128, 3.355)])
def test_flash_attention_1_moves_the_published_bytes(block_n: int, gigabytes: float) -> None:
    """FlashAttention (arXiv 2205.14135), figure 2, middle: HBM accesses, which that paper counts without a cache."""
    machine = Architecture.load("a100-sxm-40gb").evaluate({"l2_capacity": 1})
    sizes = {"batch": 64, "heads": 16, "kv_heads": 16, "block_n": block_n, "stages": 1}
    assert sum(moved("flash-attention-1", machine, **sizes)) / 1e9 == pytest.approx(gigabytes, abs=6e-4)


@pytest.mark.parametrize("causal", [False, True])
def test_fused_attention_reads_its_inputs_once_where_they_fit_the_l2(h100: EvaluatedArchitecture, causal: bool) -> None:
    read, _ = moved("flash-attention", h100, causal=causal)
    assert read == 3 * 2 * 4 * 1024 * 64 * 2


@pytest.mark.parametrize("kernel", [name for name in list_kernels() if name != "flash-attention-1"])
def test_no_kernel_moves_less_than_it_must(kernel: str, h100: EvaluatedArchitecture) -> None:
    changes = {"q_len": 1} if kernel.endswith("decode") else {}
    sizes = {**SIZES, **changes}
    program = lower(GpuKernel.load(kernel), Architecture.load("h100-sxm").evaluate({"l2_capacity": 1}), sizes)
    total = evaluate(program).traffic_bytes["DRAM"]["total"]
    described = GpuKernel.load(kernel)
    env: dict[str, Any] = {**h100.variables, **sizes}
    env.update(resolve(described.variables, env))
    least = described.bytes.number(env)
    if kernel == "block-sparse":  # a pattern may leave keys out
        least = 0.0
    assert float(total["read"][0] + total["write"][0]) >= least - 2


@pytest.mark.parametrize("sharing", [1, 4, 66])
@pytest.mark.parametrize("megabytes", [8, 512])
def test_what_is_added_is_read_and_written_once_by_blocks_that_run_together(
    h100: EvaluatedArchitecture, sharing: int, megabytes: int
) -> None:
    """132 blocks, one wave, some of which add to the same rows: each line is fetched and written back once, but for
    what the L2 keeps; the L2 itself takes all that is added, at its own rate."""
    rows = megabytes * 10**6 // 256 * sharing // 132
    step = f"{{store: S, adds: true, rows: [0, {rows}], row_bytes: 256, same: ['x // {sharing}']}}"
    kernel = GpuKernel.parse(
        f"{{gpu_kernel: adds, bytes: 0, launches: [{{launch: a, grid: {{x: 132}}, warps: 8, registers: 32, loops: "
        f"[{{trips: {rows}, steps: [{{vector: work, issue: 256}}, {step}]}}]}}]}}"
    )
    program = lower(kernel, h100, SIZES)
    distinct = 132 // sharing * rows * 256
    total = evaluate(program).traffic_bytes["DRAM"]["total"]
    gpu = Gpu.of(h100)
    assert float(total["read"][0]) == pytest.approx(distinct)
    kept = min(distinct, gpu.l2_dirty_share * gpu.l2_capacity)
    assert 0 <= float(total["write"][0]) <= distinct
    assert float(total["write"][0]) == pytest.approx(distinct - kept, abs=0.4 * gpu.l2_capacity)
    (stream,) = program.phases[0].streams
    taken = sum(float(np.max(step.busy_s)) for step in stream.steps if step.resource == "L2")
    assert taken == pytest.approx(256 / gpu.l2_add_bandwidth)


def test_products_of_single_warps_run_at_their_rate_on_a_gpu_that_has_warp_groups(h100: EvaluatedArchitecture) -> None:
    """Measured: 614 TFLOPS by single warps, 892 by warp groups (tensor_tiles of the calibration)."""
    products: dict[int, float] = {}
    for groups in (0, 1):
        program = lower(GpuKernel.load("flash-attention"), h100, {**SIZES, "block_m": 128, "group_mma": groups})
        (stream,) = program.phases[0].streams
        products[groups] = sum(
            float((np.asarray(step.busy_s) * stream.counts).sum()) for step in stream.steps if step.resource == "tensor"
        )
        assert any(step.beside for step in stream.steps) == (not groups)
    assert products[0] / products[1] == pytest.approx(892 / 614, rel=0.02)


def test_pieces_of_rows_reach_a_part_of_the_bandwidth(h100: EvaluatedArchitecture) -> None:
    """Measured: 1.93, 2.75 and 2.96 TB/s with 64, 128 and 256 bytes of a row at a time."""
    gpu = Gpu.of(h100)
    assert [gpu.piece_share(size) for size in (0, 4096, 256)] == [1, 1, 1]
    assert gpu.piece_share(128) == pytest.approx(2.75 / 2.96, rel=0.01)
    assert gpu.piece_share(64) == pytest.approx(1.93 / 2.96, rel=0.01)
    assert gpu.piece_share(128) > gpu.piece_share(90) > gpu.piece_share(64) == 2 * gpu.piece_share(32)


def test_occupancy_follows_registers_shared_memory_and_warps(h100: EvaluatedArchitecture) -> None:
    gpu = Gpu.of(h100)
    assert gpu.occupancy(8, 128, 0) == 2
    assert gpu.occupancy(4, 32, 114688) == 2
    assert gpu.occupancy(16, 16, 0) == 4
    with pytest.raises(SpecError, match="shared memory"):
        gpu.occupancy(4, 32, 300_000)


LIMITS = {
    "h100-sxm": (64, 32, 228, 1),
    "h200-sxm": (64, 32, 228, 1),
    "a100-sxm-40gb": (64, 32, 164, 1),
    "a100-sxm-80gb": (64, 32, 164, 1),
    "v100-sxm": (64, 32, 96, 0),
    "rtx-4090": (48, 24, 100, 1),
    "a6000": (48, 16, 100, 1),
}
"""Warps, blocks, KiB of shared memory, KiB of it that each block takes for the system (CUDA programming guide)."""
REGISTERS, SHARED_KIB = (24, 40, 64, 96, 128, 168, 255), (0, 9, 24, 33, 48, 95)


@pytest.mark.parametrize("name", LIMITS)
def test_occupancy_is_that_of_the_vendors_calculator(name: str) -> None:
    """The rules of cuda_occupancy.h: registers by warp in units of 256, warps in fours, shared memory by block."""
    most_warps, most_blocks, shared_kib, reserved_kib = LIMITS[name]
    gpu = Gpu.of(Architecture.load(name).evaluate({}))
    for warps, registers, used_kib in product((1, 2, 4, 7, 8, 16), REGISTERS, SHARED_KIB):
        of_registers = 65536 // (-(-registers * 32 // 256) * 256) // 4 * 4 // warps
        of_shared = shared_kib // (used_kib + reserved_kib) if used_kib + reserved_kib else most_blocks
        blocks = min(most_blocks, most_warps // warps, of_registers, of_shared)
        if blocks:
            assert gpu.occupancy(warps, registers, used_kib * 1024) == blocks
        else:
            with pytest.raises(SpecError):
                gpu.occupancy(warps, registers, used_kib * 1024)
    assert gpu.occupancy(4, 32, (shared_kib - reserved_kib) * 1024) == 1  # all of it for one block


def test_a_machine_that_is_no_gpu_is_refused() -> None:
    with pytest.raises(SpecError, match="does not describe a GPU"):
        Gpu.of(Architecture.load("fusemax").evaluate({}))


def test_what_a_kernel_cannot_take_is_refused(h100: EvaluatedArchitecture) -> None:
    with pytest.raises(SpecError, match="one query for each head"):
        lower(GpuKernel.load("flash-decode"), h100, SIZES)
    with pytest.raises(SpecError, match="unknown GPU kernel 'flash-atention'"):
        GpuKernel.load("flash-atention")


@pytest.mark.parametrize(
    "head_dim, block_m, block_n, warps, stages, cycles",
    [
        (64, 64, 32, 4, 4, 1488), (64, 64, 64, 4, 2, 2238), (64, 64, 128, 4, 3, 2277), (64, 128, 64, 4, 3, 2245),
        (64, 128, 64, 8, 3, 2077), (64, 128, 128, 8, 2, 3076), (128, 32, 64, 4, 2, 3798), (128, 64, 64, 4, 2, 2274),
        (128, 64, 128, 4, 2, 3077), (128, 128, 64, 4, 3, 2645), (128, 128, 64, 8, 2, 2602), (128, 128, 64, 8, 3, 1962),
        (128, 128, 128, 8, 2, 4348), (256, 128, 64, 8, 2, 4021), (32, 64, 64, 4, 3, 1931),
    ],
)  # fmt: skip
def test_a_trip_of_fused_attention_takes_the_cycles_that_a_profiler_counted(
    head_dim: int, block_m: int, block_n: int, warps: int, stages: int, cycles: float
) -> None:
    """Cycles of a warp in one trip of the loop, by samples of each instruction (Nsight Compute, H100), where blocks
    fill the multiprocessors; 8 batches of 16 heads or more, 2048 keys or more."""
    fixed = dict.fromkeys(("clock_hz", "tensor_clock_hz", "peak_clock_hz"), 1.755e9)
    machine = Architecture.load("h100-sxm").evaluate({**fixed, "clock_droop": 0, "power_limit_w": 0})
    sizes = {**SIZES, "batch": 8, "heads": 32, "kv_heads": 32, "head_dim": head_dim}
    tile = {"block_m": block_m, "block_n": block_n, "warps": warps, "stages": stages}
    times = []
    for length in (4096, 8192):
        program = lower(GpuKernel.load("flash-attention"), machine, {**sizes, **tile, "q_len": 4096, "kv_len": length})
        (stream,) = program.phases[0].streams
        assert stream.slots is not None
        rounds = int(stream.instances) / (132 * int(stream.slots))
        times.append(float(evaluate(program).latency_s[0]) / rounds)
    found = (times[1] - times[0]) / (4096 / block_n) * 1.755e9
    assert found == pytest.approx(cycles, rel=0.12)


def test_a_thread_that_lacks_registers_loads_them_in_each_trip(h100: EvaluatedArchitecture) -> None:
    """128 x 64 by 4 warps at 128 columns lacks registers (read off the code: 24 spilled), by 8 warps it does not."""
    kernel = GpuKernel.load("flash-attention")
    for warps, lacks in ((4, True), (8, False)):
        env = {**h100.variables, **SIZES, "head_dim": 128, "block_m": 128, "warps": warps, "stages": 3}
        assert (resolve(kernel.variables, env)["lacking"] > 0) is lacks


@pytest.mark.parametrize(
    "tile, cycles",
    [
        # Four steps in depth; instructions of a warp group read 64 x 16 queries (16 cycles) and their columns of keys.
        ({"block_m": 64, "block_n": 16, "warps": 4}, 4 * 20),
        # Two groups compute the same rows, each in two instructions of half the columns.
        ({"block_m": 64, "block_n": 16, "warps": 8}, 2 * 2 * 4 * 18),
        ({"block_m": 64, "block_n": 64, "warps": 8}, 2 * 2 * 4 * 24),
    ],
)
def test_warp_groups_beyond_a_tiles_rows_compute_its_scores_again(
    tile: dict[str, int], cycles: float, h100: EvaluatedArchitecture
) -> None:
    """Cycles of an instruction as measured: 18, 20, 24 for 8, 16, 32 columns."""
    (phase,) = lower(GpuKernel.load("flash-attention"), h100, {**SIZES, **tile}).phases
    busy = next(step.busy_s for step in phase.streams[0].steps if step.name == "QK 2")
    assert float(np.max(busy)) * h100.variables["clock_hz"] == pytest.approx(cycles)


def test_single_warps_that_share_rows_load_all_queries(h100: EvaluatedArchitecture) -> None:
    """Loads of 512 bytes in the compiled loop of 32 rows, 16 columns, width 64: a warp has 8 of queries, 2 of keys."""
    tile = {"block_m": 32, "block_n": 16, "warps": 4}
    (phase,) = lower(GpuKernel.load("flash-attention"), h100, {**SIZES, **tile}).phases
    busy = next(step.busy_s for step in phase.streams[0].steps if step.name == "QK 2 operands")
    assert float(np.max(busy)) * h100.variables["clock_hz"] == pytest.approx(4 * (8 + 2) * 512 / 128)


def test_short_blocks_share_the_l2_in_the_first_wave_more_than_later() -> None:
    """Scores without a loop: a further wave, whose blocks are at different places, takes less than a wave alone."""
    machine = Architecture.load("h100-sxm").evaluate({"power_limit_w": 0})

    def seconds(heads: int) -> float:
        sizes = {**SIZES, "batch": 1, "heads": heads, "kv_heads": heads, "q_len": 2048, "kv_len": 2048, "head_dim": 64}
        call = {**sizes, "block_m": 128, "block_n": 128, "warps": 8, "stages": 2, "variant": "qk"}
        program = lower(GpuKernel.load("unfused"), machine, call)
        (stream,) = program.phases[0].streams
        assert int(stream.instances) == heads * 256 and stream.slots is not None and int(stream.slots) == 2
        return float(evaluate(program).latency_s[0]) - program.launch_s[0]

    alone, few, more, many = (seconds(heads) for heads in (1, 33, 66, 99))  # 32, 64 and 96 waves of 264 blocks
    assert many - more == pytest.approx(more - few, rel=0.02)
    assert (many - more) / 32 < 0.9 * alone


@pytest.mark.parametrize("read_mb, left", [(1000, 0.0), (1, 1.0)])
def test_what_a_launch_leaves_dirty_is_written_while_the_next_one_runs(
    h100: EvaluatedArchitecture, read_mb: int, left: float
) -> None:
    """200 MB are stored; what of them is still in the L2 goes as a second launch's lines come, or stays there."""

    def launch(name: str, kind: str, megabytes: int) -> str:
        rows = megabytes * 10**6 // 256 // 1320
        move = f"{{{kind}: {name}, rows: ['x * {rows}', '(x + 1) * {rows}'], row_bytes: 256}}"
        loop = f"{{trips: {rows}, steps: [{move}, {{vector: work, issue: 256}}]}}"
        return f"{{launch: {name}, grid: {{x: 1320}}, warps: 8, registers: 32, loops: [{loop}]}}"

    launches = f"{launch('S', 'store', 200)}, {launch('T', 'load', read_mb)}"
    kernel = GpuKernel.parse(f"{{gpu_kernel: two, bytes: 0, launches: [{launches}]}}")
    written = float(evaluate(lower(kernel, h100, SIZES)).traffic_bytes["DRAM"]["S"]["write"][0])
    gpu, stored = Gpu.of(h100), 200 * 10**6 // 256 // 1320 * 1320 * 256
    dirty = gpu.l2_dirty_share * gpu.l2_capacity
    assert written == pytest.approx(stored - left * dirty, abs=0.05 * dirty)
