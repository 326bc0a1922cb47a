"""SpAtten on traces: DRAM bytes, the speedup of its steps, its power, and what its user is told."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einsum import SpecError
from simulator.result import Result
from simulator.trace_run import simulate_trace
from workloads import HeadTrace, Workload

TRACE = Path(__file__).parents[2] / "docs/examples/data/gpt2-small-wikitext2.csv"
LADDER: tuple[dict[str, int], ...] = (
    {"pruned": 0, "quantized": 0},
    {"quantized": 0, "topk_parallelism": 1},
    {"quantized": 0},
    {},
)
"""From the dense form in 32 bit to pruning with a narrow and a wide top-k engine, and to bit planes."""
PUBLISHED = (1.1, 3.0, 2.8)
"""Mean speedup of each step on eight GPT-2 tasks (SpAtten, HPCA 2021)."""


def released() -> HeadTrace:
    return HeadTrace.load(TRACE)


@cache
def scheduled(name: str) -> HeadTrace:
    return Workload.load(name).head_trace({})


def second() -> HeadTrace:
    """Twelve-bit keys, eight-bit values, gentler pruning: in the manner of the run of GPT-2 medium on WikiText-2."""
    steps, kept = np.arange(32), np.array([1024, 1024, 921, 819, 819, *[614] * 6, *[307] * 13])
    step, layer = (grid.reshape(-1) for grid in np.meshgrid(steps, np.arange(24), indexing="ij"))
    length = 993 + step
    keys = np.minimum(np.where(step == 0, 1024, kept[layer]), length)
    columns = {name: np.full(step.size, value) for name, value in {
        "head_id": 0, "embedding_length_D": 64, "quant_key_bit": 12, "quant_value_bit": 8, "quant_query_bit": 16,
        "auto_requant_thres": -1, "auto_requant_incre": -1, "if_requant": 0, "if_accumulate_importance": 1,
        "if_rescale_previous_importance": 0, "if_topk": 0, "topk": -1, "count": 16}.items()}  # fmt: skip
    values = np.where(keys == length, 307, np.floor(0.3 * keys))
    columns |= {"iteration_id": step, "layer_id": layer, "sentence_length_L": length, "key_fetch_num": keys,
                "value_fetch_num": values}  # fmt: skip
    return HeadTrace.of({name: np.asarray(cells, float) for name, cells in columns.items()})


def moved_bytes(result: Result) -> float:
    tensors = result.to_dict()["traffic_bytes"]["HBM"]
    return float(sum(tensors[name]["read"] for name in ("K", "K_lsb", "V")))


def run(trace: HeadTrace, settings: dict[str, Any] | None = None, **options: Any) -> Result:
    return simulate_trace(trace, architecture="spatten", settings=settings, **options)


def test_the_traced_run_moves_exactly_its_bytes() -> None:
    assert moved_bytes(run(released())) == 82_428_256
    assert moved_bytes(run(released(), {"pruned": 0, "quantized": 0})) == 2_379_350_016


@pytest.mark.parametrize("fidelity", ["analytic", "event"])
@pytest.mark.parametrize(
    "trace", [released, second, lambda: scheduled("gpt2-small")], ids=["released", "second", "rule"]
)
def test_every_step_of_the_ladder_is_near_the_published_mean(trace: Any, fidelity: str) -> None:
    cycles = [float(run(trace(), settings, fidelity=fidelity).to_dict()["cycles"]) for settings in LADDER]
    steps = [before / after for before, after in itertools.pairwise(cycles)]
    assert steps == pytest.approx(PUBLISHED, rel=0.35)
    assert np.argsort(steps).tolist() == np.argsort(PUBLISHED).tolist()


def test_pruning_with_a_narrow_top_k_engine_can_be_slower_than_the_dense_run() -> None:
    dense, narrow = (run(second(), settings).to_dict() for settings in LADDER[:2])
    assert narrow["cycles"] > dense["cycles"]
    assert narrow["bound_by"] == "value_selector"


def test_a_top_k_wider_than_sixteen_gains_little() -> None:
    cycles = run(released(), {"topk_parallelism": np.array([1, 2, 4, 8, 16, 32, 64])}).cycles
    gains = cycles[:-1] / cycles[1:]
    assert (np.diff(gains) < 0).all()
    assert gains[0] > 1.8
    assert gains[4] < 1.2
    assert gains[5] < 1.1


def test_power_of_dram_and_sram_is_near_the_published_split() -> None:
    result = run(released()).to_dict()
    power = {name: energy / result["latency_s"] for name, energy in result["energy_by_component_j"].items()}
    sram = sum(power[name] for name in ("key_sram", "value_sram", "fetch_fifos", "probability_fifo"))
    assert power["HBM"] == pytest.approx(5.71, rel=0.25)
    assert sram == pytest.approx(1.24, rel=0.25)
    # Energies of operations alone, without clock tree, pipeline registers and leakage, stay far below the 1.36 W.
    assert sum(power.values()) - power["HBM"] - sram < 0.5 * 1.36


def test_in_summarization_products_are_busy_and_keys_are_loaded_once_per_head() -> None:
    for workload in ("bert-base", "bert-large"):
        settings = {"L": 384}
        trace = Workload.load(workload).head_trace(settings)
        result = simulate_trace(architecture="spatten", workload=workload, settings=settings).to_dict()
        c = trace.columns
        assert result["traffic_bytes"]["HBM"]["K"]["read"] == float((c["count"] * c["key_fetch_num"] * 64).sum())
        assert result["utilization"]["query_key"] > 0.8  # published: 1.61 of 2 TFLOPS
        event = simulate_trace(trace, architecture="spatten", settings={}, fidelity="event").to_dict()
        assert event["cycles"] == pytest.approx(result["cycles"], rel=0.15)


def test_the_smaller_design_takes_about_eight_times_as_long() -> None:
    small = simulate_trace(released(), architecture="spatten-eighth").to_dict()
    assert 4 < small["cycles"] / run(released()).to_dict()["cycles"] <= 8.5


def test_the_event_evaluator_agrees_on_pipelined_layers() -> None:
    analytic, event = (run(released(), fidelity=fidelity).to_dict() for fidelity in ("analytic", "event"))
    assert event["cycles"] == pytest.approx(analytic["cycles"], rel=0.06)
    assert event["energy_j"] == pytest.approx(analytic["energy_j"])


def test_long_traces_are_read_and_report_their_progress(tmp_path: Path) -> None:
    source = scheduled("gpt2-medium")
    heads = source.columns["count"].astype(int)
    rows = np.repeat(np.arange(len(source)), heads)
    columns = {name: cells[rows] for name, cells in source.columns.items()}
    whole = HeadTrace.of({**columns, "count": np.ones(rows.size)})
    again = HeadTrace.of({name: np.concatenate([cells, cells[:1100]]) for name, cells in whole.columns.items()})
    again.save(tmp_path / "long.csv")
    assert len(again) > 11_000
    seen: list[tuple[int, int]] = []
    simulate_trace(
        tmp_path / "long.csv", architecture="spatten", progress=lambda done, wanted: seen.append((done, wanted))
    )
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_dense_runs_have_all_heads_of_a_run_that_pruned_some() -> None:
    dense = run(scheduled("gpt2-small"), LADDER[0], fidelity="event")
    lengths = np.arange(993, 1025)
    assert moved_bytes(dense) == float(lengths.sum()) * 12 * 12 * 64 * 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "fusemax"}, "the architecture 'fusemax' names no mapping for traces"),
        ({"mapping": "flat"}, "the mapping 'flat' is a loop nest; a trace needs a plan with such a phase"),
        ({"mapping": "gpu-only"}, "is a plan without phases over the rows of a trace; a trace needs a plan"),
        ({}, "a trace needs an architecture or a mapping to run on"),
        (
            {"architecture": "spatten", "settings": {"topk_paralelism": 2}},
            "unknown variable 'topk_paralelism' .did you",
        ),
        ({"architecture": "spatten", "settings": {"max_tokens": 512}}, "row 1: the context of 993 keys of 64 elements"),
        ({"architecture": "spatten", "settings": {"topk_parallelism": 0}}, "above 0"),
    ],
)
def test_bad_input_is_one_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        simulate_trace(TRACE, **options)


def test_without_a_trace_a_schedule_is_needed() -> None:
    with pytest.raises(SpecError, match="needs a trace, or a workload with a pruning schedule"):
        simulate_trace(architecture="spatten")
    with pytest.raises(SpecError, match="the workload 'xlm' has no 'pruning'"):
        simulate_trace(architecture="spatten", workload="xlm")
    with pytest.raises(SpecError, match="the trace of a schedule has one size; 'L' is an array"):
        simulate_trace(architecture="spatten", workload="gpt2-small", settings={"L": np.array([100, 200])})
