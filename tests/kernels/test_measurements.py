"""The committed measurements: complete, and within what the hardware can do."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from statistics import median

import pytest

import kernels
from einsum.specfile import load_yaml
from kernels.case import KERNELS, Case
from kernels.measure import provenance_path
from kernels.measurement import Measurement, MeasurementFile
from kernels.plan import MeasurementPlan

FOLDER = Path(kernels.__file__).parent / "measurements"
PLANS = {"h100-sxm": "gpu-validation", "h100-sxm-holdout": "holdout", "h200-sxm": "gpu-validation",
         "h200-sxm-holdout": "holdout", "h100-sxm-drawn": "drawn", "h100-sxm-backward": "backward",
         "h100-sxm-backward-random": "backward-random", "h200-sxm-backward": "backward"}  # fmt: skip
UNCOUNTED = {"h100-sxm-drawn", "h100-sxm-backward-random", "h200-sxm-backward"}
# Datasheets: memory bandwidth in bytes/s, dense fp16 in FLOP/s (H100 SXM: NVIDIA H100 datasheet; H200: NVIDIA H200
# datasheet), fp8 twice that.
BANDWIDTH = {"NVIDIA H100 80GB HBM3": 3.35e12, "NVIDIA H200": 4.8e12}
PEAK = {"fp16": 989.4e12, "bf16": 989.4e12, "fp8": 1978.9e12}


def rows_of(name: str) -> dict[Case, Measurement]:
    return MeasurementFile(FOLDER / f"{name}.csv").rows


def inputs_and_outputs(case: Case) -> tuple[int, int]:
    """Bytes that any implementation of the case reads and writes once."""
    lead, word = case.batch * case.heads, case.word_bytes
    scores = lead * case.q_len * case.kv_len * word
    queries = lead * case.q_len * case.head_dim * word
    keys = case.batch * case.kv_heads * case.kv_len * case.head_dim * word
    if case.kernel == "copy":
        return queries, queries
    if case.kernel == "softmax" or case.variant == "softmax":
        return scores, scores
    if case.kernel == "matmul":
        return queries + lead * case.kv_len * case.head_dim * word, lead * case.q_len * case.kv_len * max(word, 2)
    if case.kernel == "flash_attention_backward":
        return 3 * queries + 2 * keys, queries + 2 * keys
    return {"qk": (queries + keys, scores), "pv": (scores + keys, queries)}.get(
        case.variant, (queries + 2 * keys, queries)
    )


@pytest.mark.parametrize("name", PLANS)
def test_every_planned_row_is_there(name: str) -> None:
    rows = rows_of(name)
    plan = MeasurementPlan.load(PLANS[name])
    assert set(rows) == set(plan.cases)
    backward = {"flash_attention_backward"}  # in a file of its own
    assert {case.kernel for case in rows} == (backward if "backward" in name else set(KERNELS) - backward)
    assert provenance_path(FOLDER / f"{name}.csv").exists()


def test_there_are_enough_rows_and_reasons_for_those_without_a_time() -> None:
    assert len(rows_of("h100-sxm")) >= 300 and len(rows_of("h200-sxm")) >= 150
    for name in PLANS:
        for row in rows_of(name).values():
            assert (row.ms is not None) == (row.status == "ok")
            assert (row.reason != "") == (row.status != "ok")
    assert Counter(row.status for row in rows_of("h100-sxm").values())["shared_memory"] >= 1


@pytest.mark.parametrize("name", PLANS)
def test_no_row_beats_the_hardware(name: str) -> None:
    gpu = load_yaml(provenance_path(FOLDER / f"{name}.csv"))["gpu"]
    for case, row in rows_of(name).items():
        if row.ms is None or case.kernel == "block_sparse" or case.window:
            continue
        read, _ = inputs_and_outputs(case)  # what is written may stay in the L2
        assert read / BANDWIDTH[gpu["device"]] <= row.ms / 1e3
        if case.kernel == "matmul":
            operations = 2 * case.batch * case.q_len * case.kv_len * case.head_dim
            assert operations / PEAK[case.dtype] <= row.ms / 1e3
        assert row.ms_p10 is not None and row.ms_p90 is not None and row.ms_p10 <= row.ms <= row.ms_p90


@pytest.mark.parametrize("name", sorted(PLANS.keys() - UNCOUNTED))
def test_counters_see_each_input_read_and_each_output_written(name: str) -> None:
    counted = {case: row for case, row in rows_of(name).items() if row.dram_read_bytes is not None}
    assert len(counted) >= (10 if "backward" in name else 100)
    for case, row in counted.items():
        read, written = inputs_and_outputs(case)
        if case.kernel == "block_sparse" or case.window or read < 2**20:
            continue
        assert row.dram_read_bytes is not None and row.dram_write_bytes is not None and row.dram_drain_bytes is not None
        assert row.dram_read_bytes >= 0.99 * read
        if written > 2**25:
            assert row.dram_write_bytes + row.dram_drain_bytes >= 0.97 * written


def test_most_shapes_have_several_tiles() -> None:
    shapes: dict[object, int] = defaultdict(int)
    for case, row in rows_of("h100-sxm").items():
        if row.status == "ok":
            shapes[(case.kernel, case.dtype, case.batch, case.heads, case.kv_heads, case.q_len, case.kv_len,
                    case.head_dim, case.causal, case.window, case.variant, case.pattern)] += 1  # fmt: skip
    assert median(shapes.values()) >= 3


def test_a_second_run_agrees_with_the_first() -> None:
    first, second = rows_of("h100-sxm-repeat"), rows_of("h100-sxm")
    ratios = [a.ms / b.ms for case, a in first.items() if (b := second[case]).ms is not None and a.ms is not None]
    assert len(ratios) > 800
    assert median(abs(ratio - 1) for ratio in ratios) < 0.01


@pytest.mark.parametrize("name", ["h100", "h200"])
def test_calibration_facts_are_close_to_the_datasheet(name: str) -> None:
    document = load_yaml(FOLDER / f"calibration-{name}.yaml")
    gpu, facts = document["gpu"], document["facts"]
    peak = BANDWIDTH[gpu["device"]]
    assert 0.85 * peak < max(fact["bytes_per_s"] for fact in facts["memory"]) < peak
    clock = gpu["max_sm_clock_mhz"] * 1e6 * gpu["multiprocessors"]
    rates = {fact["kind"]: fact["operations_per_s"] / clock for fact in facts["arithmetic"]}
    # CUDA C++ Programming Guide, "Arithmetic Instructions": results per clock and multiprocessor, capability 9.0.
    assert 0.9 * 16 < rates["exponentials"] <= 16
    assert 0.9 * 128 < rates["multiply_adds"] <= 128
    assert 0.9 * 64 < rates["maxima"] <= 64.1
    tensor = max(fact["operations_per_s"] for fact in facts["tensor_tiles"] if fact["dtype"] == "fp16")
    # The datasheet's rate is at 1830 MHz (Hopper whitepaper); the clock measured here goes higher.
    assert 0.8 * PEAK["fp16"] < tensor < PEAK["fp16"] * gpu["max_sm_clock_mhz"] / 1830
    loads = {fact["bytes"]: fact for fact in facts["latency"]}
    assert loads[2**14]["warm_load_ns"] < loads[2**20]["warm_load_ns"] < loads[2**30]["cold_load_ns"]
