"""The FuseMax study: the published BERT table, and closed forms of the designs for other models and machines."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from simulator.result import Result
from simulator.simulate import simulate

TABLE = Path(__file__).parent.parent / "data" / "fusemax-bert.csv"
DESIGNS = ("unfused", "flat", "fusemax-cascade", "fusemax-architecture", "fusemax-binding")
Columns = dict[str, np.ndarray]


@cache
def published(mapping: str) -> Columns:
    """The published rows of one design, a column each."""
    lines = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = [row for row in csv.DictReader(lines) if row.pop("mapping") == mapping]
    assert len(rows) == 6
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]}


@cache
def simulated(mapping: str, end_to_end: bool = False) -> Result:
    """All six lengths at once."""
    lengths = {"L": published(mapping)["L"]}
    return simulate(mapping=mapping, workload="bert-base", settings=lengths, end_to_end=end_to_end)


def dram_bytes(result: Result) -> np.ndarray:
    total = result.traffic_bytes["DRAM"]["total"]
    return np.asarray(total["read"] + total["write"])


@pytest.mark.parametrize("mapping", DESIGNS)
def test_attention_on_bert(mapping: str) -> None:
    result, paper = simulated(mapping), published(mapping)
    assert_allclose(result.latency_s, paper["latency_s"], rtol=1e-3)
    assert_allclose(dram_bytes(result), paper["bytes"], rtol=1e-3)
    assert_allclose(result.utilization["array_1d"], paper["util_1d"], rtol=1e-3)
    assert_allclose(result.utilization["array_2d"], paper["util_2d"], rtol=1e-3)
    assert_allclose(result.energy_without_registers_j(), paper["energy_j"], rtol=1e-2)


@pytest.mark.parametrize("mapping", ["fusemax-architecture", "fusemax-binding"])
@pytest.mark.parametrize("einsum", ["BQK", "LM", "SLN", "SLD", "SLNV"])
def test_what_each_einsum_uses_of_the_2d_array(mapping: str, einsum: str) -> None:
    used = simulated(mapping).utilization_by_einsum["array_2d"][einsum]
    assert_allclose(used, published(mapping)[f"util2d_{einsum}"], rtol=1e-3)


@pytest.mark.parametrize("mapping", DESIGNS)
def test_attention_and_linear_layers_end_to_end(mapping: str) -> None:
    whole, attention, paper = simulated(mapping, end_to_end=True), simulated(mapping), published(mapping)
    assert_allclose(whole.latency_s, paper["end_to_end_latency_s"], rtol=5e-3)
    assert_allclose(dram_bytes(whole), paper["end_to_end_bytes"], rtol=5e-3)
    # The published end-to-end energies repeat the oddities of attention; the sum of the corrected parts does not.
    assert_allclose(whole.energy_without_registers_j(), paper["energy_j"] + paper["linear_energy_j"], rtol=5e-3)
    assert_allclose(whole.latency_s - attention.latency_s, paper["linear_latency_s"], rtol=5e-3)
    assert_allclose(dram_bytes(whole) - dram_bytes(attention), paper["linear_bytes"], rtol=5e-3)
    linear_j = whole.energy_without_registers_j() - attention.energy_without_registers_j()
    assert_allclose(linear_j, paper["linear_energy_j"], rtol=5e-3)


def test_the_registers_of_all_elements_are_their_own_component() -> None:
    components = simulated("fusemax-binding").energy_by_component_j
    assert {"array_1d.registers", "array_2d.registers"} <= set(components)
    assert all((components[name] > 0).all() for name in components)
    assert_allclose(simulated("fusemax-binding").energy_j, sum(components.values()))


# Closed forms of the designs, written from the paper's description. Values are arrays over points.


def queries_held(v: Mapping[str, Any], words: Any, per_query: Any) -> np.ndarray:
    """P1: the largest number of rows of tiles that divides all of them and fits beside two tiles of K and V."""
    rows = -(-v["P"] // v["W"])
    limit = (words - 2 * v["W"] * (v["E"] + v["F"])) // (v["W"] * per_query)
    pairs = zip(rows.astype(int), limit.astype(int), strict=True)
    return np.array([max(d for d in range(1, row + 1) if row % d == 0 and d <= most) for row, most in pairs])


def traffic(v: Mapping[str, Any], held: np.ndarray) -> np.ndarray:
    """Q and AV pass once, K and V once for each block of queries (once in all if they are a single tile)."""
    chunks = -(-v["M"] // v["W"])
    blocks = np.where(chunks == 1, 1, -(-v["P"] // (held * v["W"])))
    return 2 * v["B"] * v["H"] * (v["P"] + blocks * v["M"]) * (v["E"] + v["F"])


def tiles(v: Mapping[str, Any]) -> np.ndarray:
    return v["B"] * v["H"] * -(-v["P"] // v["W"]) * -(-v["M"] // v["W"])


def state_cycles(v: Mapping[str, Any]) -> np.ndarray:
    """What the 1D array does for each tile beside the scores: RM, PRM, SPD, RD, SPNV, RNV and its part of AV."""
    chunks = -(-v["M"] // v["W"])
    correction = v["max"] + v["sub"] + v["exp"] + v["mul"] + v["add"]
    return correction + v["F"] * (v["mul"] + v["add"]) + v["F"] * v["div"] / chunks


def binding(v: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """+Binding: the arrays work beside each other, each on its share of a tile."""
    on_2d = (v["E"] + v["F"]) * v["mac"] + v["max"] + v["sub"] + v["exp"] + v["add"]
    moved = traffic(v, queries_held(v, v["buffer"] // 2, v["E"] + v["F"] + 2))
    return tiles(v) * np.maximum(on_2d, state_cycles(v)), moved


def architecture(v: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """+Architecture: the steps of a tile one after another."""
    chunks = -(-v["M"] // v["W"])
    scores = np.maximum(v["E"] * v["mac"] + v["max"], v["add"] + v["F"] * v["div"] / chunks)
    exponentials = v["sub"] + v["exp"] + np.maximum(v["add"], v["mul"])
    values = np.maximum(v["F"] * v["mac"], v["F"] * (v["mul"] + v["add"]))
    cycles = scores + v["W"] + v["max"] + exponentials + values
    return tiles(v) * cycles, traffic(v, queries_held(v, v["buffer"] // 2, v["E"] + v["F"] + 2))


def cascade(v: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """+Cascade: products on the 2D array, everything else on the 1D array, key after key."""
    rows = v["B"] * v["H"] * -(-v["P"] // v["W"])
    on_1d = tiles(v) * state_cycles(v) + rows * v["M"] * (v["max"] + v["sub"] + v["exp"] + v["add"])
    on_2d = tiles(v) * (v["E"] + v["F"]) * v["mac"]
    per_query = v["E"] + v["F"] + 2 + 2 * v["W"]
    return np.maximum(on_1d, on_2d), traffic(v, queries_held(v, 2**23, per_query))


def unfused_seconds(v: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Three phases, each the larger of its compute and its memory time; queries in blocks that fill half the buffer."""
    rows, limit = -(-v["P"] // v["W"]), v["buffer"] // 4 // (v["W"] * np.maximum(v["E"], v["F"]))
    pairs = zip(rows.astype(int), limit.astype(int), strict=True)
    held = np.array([max(d for d in range(1, row + 1) if row % d == 0 and d <= most) for row, most in pairs])
    chunks = -(-v["M"] // v["W"])
    blocks = np.where(chunks == 1, 1, -(-v["P"] // (held * v["W"])))
    heads, scores = v["B"] * v["H"], v["P"] * v["M"]
    softmax = v["P"] * chunks * (v["max"] + np.maximum(v["sub"], v["exp"]) + v["add"] + v["div"])
    phases = (
        (rows * chunks * v["E"] * v["mac"], (v["P"] + blocks * v["M"]) * v["E"] + scores),
        (softmax, 2 * scores),
        (rows * chunks * v["F"] * v["mac"], (v["P"] + blocks * v["M"]) * v["F"] + scores),
    )
    times = [np.maximum(heads * c / 940e6, 2 * heads * words / v["dram_bandwidth"]) for c, words in phases]
    return sum(times), 2 * heads * sum(words for _, words in phases)


CLOSED_FORMS = {"fusemax-binding": binding, "fusemax-architecture": architecture, "fusemax-cascade": cascade}
MODELS = {"transformer-xl": 16, "t5-small": 8, "xlm": 16}


@pytest.mark.parametrize("mapping", [*CLOSED_FORMS, "unfused"])
@pytest.mark.parametrize("workload", MODELS)
def test_closed_forms_on_other_models_and_machines(mapping: str, workload: str) -> None:
    points = 200
    random = np.random.default_rng(list(workload.encode()))

    def drawn(*values: Any) -> np.ndarray:
        return random.choice(np.array(values, dtype=float), points)

    settings = {
        "P": drawn(1, 100, 256, 1000, 1024, 1009, 4096, 65536),
        "M": drawn(1, 100, 256, 1000, 1024, 1009, 4096, 65536),
        "W": drawn(16, 32, 64, 128, 256, 512),
        "E": drawn(32, 64, 100, 128),
        "F": drawn(32, 64, 100, 128),
        "mac_cycles": drawn(1, 2),
        "add_cycles": drawn(1, 3),
        "max_cycles": drawn(1, 2),
        "div_cycles": drawn(1, 4),
        "exp_cycles": drawn(1, 6, 12),
        "dram_bandwidth": drawn(2e9, 40e9, 400 * 2**30),
        "buffer": drawn(16 * 2**20) if mapping != "fusemax-cascade" else drawn(32 * 2**20),
    }
    values = {name.removesuffix("_cycles"): array for name, array in settings.items()}
    values |= {"B": 64, "H": MODELS[workload], "mul": values["mac"], "sub": values["add"]}
    if mapping == "unfused":
        seconds, moved = unfused_seconds(values)
    else:
        cycles, moved = CLOSED_FORMS[mapping](values)
        seconds = np.maximum(cycles / 940e6, moved / values["dram_bandwidth"])
    result = simulate(mapping=mapping, workload=workload, settings=settings)
    assert_allclose(dram_bytes(result), moved, rtol=1e-12)
    assert_allclose(result.latency_s, seconds, rtol=1e-12)
    assert len({*result.bound_by}) > 1
