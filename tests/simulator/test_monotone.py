"""What physics demands: more of a resource never hurts, more work never helps, and a batch changes nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from einsum import Cascade
from einsum.counts import compulsory_traffic
from simulator.result import Result
from simulator.simulate import simulate

DESIGNS = ("unfused", "flat", "fusemax-cascade", "fusemax-architecture", "fusemax-binding")
SIZES = {"B": 2, "H": 3}
FLAT_CHOICES = {
    **dict.fromkeys(("Q_loc", "K_loc", "V_loc", "AV_loc"), st.sampled_from(["onchip", "offchip"])),
    **dict.fromkeys(("QK_stationary", "AV_stationary"), st.sampled_from(["output", "weight", "input"])),
    "granularity": st.sampled_from(["row", "head"]),
}
MORE = np.array([1.0, 1.3, 2.0, 16.0])


@st.composite
def designs(draw: Any) -> tuple[str, dict[str, Any]]:
    """A design with every tile size fixed by a setting, so that nothing but the varied number changes."""
    mapping = draw(st.sampled_from(DESIGNS))
    side = draw(st.sampled_from([16, 64, 256]))
    rows = draw(st.sampled_from([1, 2, 4]))
    fixed: dict[str, Any] = {"W": side, "P1": rows if mapping.startswith("fusemax") else rows * side}
    if mapping == "flat":
        fixed |= {name: draw(choice) for name, choice in FLAT_CHOICES.items()}
        scores = draw(st.sampled_from(["onchip", "offchip"]))  # both on the chip or neither, as FLAT has them
        fixed |= {"QK_loc": scores, "A_loc": scores}
    length = draw(st.sampled_from([37, 256, 1000, 4096]))
    return mapping, SIZES | fixed | {"P": length, "M": draw(st.sampled_from([256, 1000, 4096])), "L": length}


def run(design: tuple[str, dict[str, Any]], **varied: Any) -> Result:
    mapping, fixed = design
    return simulate(mapping=mapping, workload="t5-small", settings=fixed | varied)


def moved(result: Result) -> np.ndarray:
    total = result.traffic_bytes["DRAM"]["total"]
    return np.asarray(total["read"] + total["write"])


def never_rises(values: np.ndarray) -> bool:
    return bool((np.diff(values) <= 1e-12 * np.abs(values[:-1])).all())


@settings(max_examples=40)
@given(designs())
def test_more_bandwidth_costs_neither_time_nor_traffic(design: tuple[str, dict[str, Any]]) -> None:
    result = run(design, dram_bandwidth=2e9 * MORE)
    assert never_rises(result.latency_s)
    assert np.ptp(moved(result)) == 0


@settings(max_examples=40)
@given(designs())
def test_more_buffer_costs_neither_time_nor_traffic(design: tuple[str, dict[str, Any]]) -> None:
    # From the smallest buffer that all the designs fit; FLAT's blocks spill until they fit.
    result = run(design, buffer=2**25 * MORE, dram_bandwidth=2e9)
    assert never_rises(result.latency_s)
    assert never_rises(moved(result))


@settings(max_examples=40)
@given(designs(), st.lists(st.integers(1, 5000), min_size=2, max_size=8))
def test_more_keys_never_cost_less(design: tuple[str, dict[str, Any]], keys: list[int]) -> None:
    result = run(design, M=np.sort(np.array(keys, dtype=float)), dram_bandwidth=40e9)
    assert never_rises(-result.latency_s)
    assert never_rises(-moved(result))
    assert never_rises(-result.energy_j)


@pytest.mark.parametrize("bandwidth", [2e9, 400 * 2**30])
@pytest.mark.parametrize("mapping", DESIGNS)
def test_a_prime_length_never_costs_more_than_the_next_round_one(mapping: str, bandwidth: float) -> None:
    design = mapping, {"P1": 1024 if mapping in ("unfused", "flat") else 4}
    if mapping == "flat":
        design[1].update(
            {f"{name}_loc": "offchip" for name in ("Q", "K", "V", "AV")}
            | {"QK_loc": "onchip", "A_loc": "onchip", "QK_stationary": "output", "AV_stationary": "output"}
            | {"granularity": "head"}
        )
    result = run(design, L=np.array([1009.0, 1024.0]), dram_bandwidth=bandwidth)
    for value in (result.latency_s, moved(result), result.energy_j):
        assert value[0] <= value[1]


@settings(max_examples=40)
@given(designs())
def test_no_design_moves_less_than_any_schedule_must(design: tuple[str, dict[str, Any]]) -> None:
    mapping, sizes = design
    cascade = Cascade.load("attention-1pass" if mapping.startswith("fusemax") else "attention-3pass")
    env = SIZES | {name: sizes[name] for name in ("P", "M")} | {"E": 64, "F": 64}
    dram = run(design).traffic_bytes["DRAM"]
    for tensor, least in compulsory_traffic(cascade, env).items():
        assert dram[tensor]["write" if tensor == "AV" else "read"][0] >= least * (1 - 1e-12)


def test_ten_thousand_points_in_one_call_equal_each_on_its_own() -> None:
    points = 10_000
    random = np.random.default_rng(7)
    varied = {
        "L": random.integers(1, 100_000, points).astype(float),
        "W": random.choice([16.0, 32.0, 64.0, 128.0, 256.0, 512.0], points),
        "E": random.choice([32.0, 64.0, 96.0], points),
        "buffer": random.choice([2.0**24, 2.0**25, 2.0**26], points),
        "dram_bandwidth": random.uniform(1e9, 1e12, points),
        "exp_cycles": random.integers(1, 13, points).astype(float),
    }
    whole = simulate(mapping="fusemax-binding", workload="xlm", settings=varied)
    for place in random.integers(0, points, 25):
        alone = simulate(
            mapping="fusemax-binding",
            workload="xlm",
            settings={name: float(values[place]) for name, values in varied.items()},
        )
        expected, found = alone.to_dict(), whole.point(int(place)).to_dict()
        assert_same(found, expected)


def assert_same(found: Any, expected: Any) -> None:
    """Equal nests of plain data, numbers to the last bits."""
    if isinstance(expected, dict):
        for key, value in expected.items():
            assert_same(found[key], value)
    elif isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, float):
        assert_allclose(found, expected, rtol=1e-12, atol=0)
    else:
        assert found == expected
