"""What held tiles take, what happens when a level is too small, and what spilling costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from einsum.errors import SpecError
from simulator.simulate import simulate
from tests.mappings.machine import machine, plan, program, totals
from tests.mappings.nests import ATTENTION, EINSUMS, MATMUL

SIZES = {"M": 6, "N": 5, "K": 4}
PRODUCT = {"compute": "Z", "on": "grid", "spatial": {"m": "rows", "n": "columns"}}


def nest(held: Any, **loops: int) -> list[Any]:
    return [{"for": loops}, {"keep": {"L1": held}}, PRODUCT] if loops else [{"keep": {"L1": held}}, PRODUCT]


def fits(held: Any, capacity_bytes: int, **loops: int) -> bool:
    try:
        program(MATMUL, machine(capacity={"L1": f"{capacity_bytes} B"}), nest(held, **loops), SIZES)
    except SpecError as error:
        assert "overflows" in error.message
        return False
    return True


@pytest.mark.parametrize(
    ("held", "loops", "words"),
    [
        (["A"], {}, 6 * 4),
        ({"A": 2}, {}, 2 * 6 * 4),
        ({"A": "rolling"}, {}, 6 * 4),
        (["A", "B", "Z"], {}, 6 * 4 + 4 * 5 + 6 * 5),
        ({"A": 2, "B": 1}, {"m": 2, "k": 3}, 2 * 2 * 3 + 3 * 5),
        ({"A": 1}, {"m": 100}, 6 * 4),
        ({"A": 1}, {"m": 4}, 4 * 4),
        ({"both": {"tensors": ["A", "Z"], "buffers": 2}}, {"m": 2}, 2 * 2 * 5),
        ({"A": {"buffers": 2, "when": "M > 100"}, "B": 1}, {}, 4 * 5),
    ],
)
def test_a_hold_takes_its_largest_tile_times_its_buffers(held: Any, loops: dict[str, int], words: int) -> None:
    assert fits(held, 2 * words, **loops)
    assert not fits(held, 2 * words - 1, **loops)


def test_the_error_names_the_level_the_tensor_and_the_bytes() -> None:
    small = machine(capacity={"L1": "20 B"})
    with pytest.raises(SpecError) as caught:
        program(MATMUL, small, nest({"A": 2, "B": 1}), SIZES)
    assert str(caught.value) == (
        "nest[0].keep.L1.A: L1 overflows by 116 bytes: it holds 136 of 20, the largest part is 'A' with 96"
    )


def test_the_largest_design_point_is_the_one_that_is_told() -> None:
    with pytest.raises(SpecError, match=r"overflows by 20 bytes: it holds 80 of 60"):
        simulate(MATMUL, machine(capacity={"L1": "60 B"}), plan(nest(["A"])), None, SIZES | {"M": np.array([2, 10, 7])})


def test_a_stage_takes_capacity_and_moves_nothing() -> None:
    staged = [{"stage": {"L1": {"A": 2}}}, PRODUCT]
    with pytest.raises(SpecError, match=r"L1 overflows by 1 bytes"):
        program(MATMUL, machine(capacity={"L1": "95 B"}), staged, SIZES)
    found = totals(program(MATMUL, machine(capacity={"L1": "96 B"}), staged, SIZES))
    assert {level for level, _ in (*found["read"], *found["write"])} == {"DRAM"}


def test_phases_follow_one_another_so_each_must_fit_alone() -> None:
    leaves = [{"compute": name, "on": "row"} for name in EINSUMS]
    leaves[0], leaves[-1] = [{"keep": {"L1": ["K"]}}, leaves[0]], [{"keep": {"L1": ["V"]}}, leaves[-1]]
    apart = [{"keep": {"DRAM": ["QK", "GM", "SN", "SD", "A"]}}, {"sequence": leaves}]
    together = [{"for": {"p": 1}}, *apart]
    sizes = {"P": 3, "M": 5, "E": 4, "F": 6}
    program(ATTENTION, machine(capacity={"L1": "60 B"}), apart, sizes)
    with pytest.raises(SpecError, match=r"L1 overflows by 40 bytes: it holds 100 of 60"):
        program(ATTENTION, machine(capacity={"L1": "60 B"}), together, sizes)


@pytest.mark.parametrize("capacity_bytes", [12, 24, 36, 48, 100])
def test_what_does_not_fit_is_read_from_further_out(capacity_bytes: int) -> None:
    held = {"A": {"overflow": "spill"}}
    order = {**PRODUCT, "spatial": {"n": "columns"}, "temporal": ["m", "k"]}  # columns of 3: A is read twice
    spilling = [{"keep": {"L1": held}}, order]
    found = totals(program(MATMUL, machine(capacity={"L1": f"{capacity_bytes} B"}), spilling, SIZES))
    tile, kept = 24, min(1.0, capacity_bytes / 48)
    assert found["write"]["L1", "A"] == pytest.approx(kept * tile)
    assert found["read"]["L1", "A"] == pytest.approx(2 * tile)
    assert found["read"]["DRAM", "A"] == pytest.approx(kept * tile + (1 - kept) * 2 * tile)


def test_spilling_holds_share_what_is_missing() -> None:
    held = {"A": {"overflow": "spill"}, "B": {"overflow": "spill"}}
    found = totals(program(MATMUL, machine(capacity={"L1": "44 B"}), nest(held), SIZES))
    assert found["write"]["L1", "A"] == pytest.approx(24 / 2)
    assert found["write"]["L1", "B"] == pytest.approx(20 / 2)


def test_an_element_holds_no_more_than_its_registers() -> None:
    """8 words in each of 2 x 3 elements: of A, 4 x 6 words, each has 2 x 2."""
    leaf = {"compute": "Z", "on": "grid", "spatial": {"m": "rows", "k": "columns"}}
    program(MATMUL, machine(), [{"keep": {"grid": {"A": 2}}}, leaf], {"M": 4, "N": 2, "K": 6})
    with pytest.raises(SpecError, match=r"registers of grid overflow: an element would hold 24 of 16 bytes.*'A'"):
        program(MATMUL, machine(), [{"keep": {"grid": {"A": 3}}}, leaf], {"M": 4, "N": 2, "K": 6})
    with pytest.raises(SpecError, match=r"an element would hold 24 of 16 bytes"):
        everywhere = {**leaf, "spatial": {"k": "columns"}}  # every row keeps its own copy
        program(MATMUL, machine(), [{"keep": {"grid": {"A": 2}}}, everywhere], {"M": 3, "N": 2, "K": 6})
    program(MATMUL, machine(), [{"keep": {"grid": {"A": "rolling"}}}, leaf], {"M": 40, "N": 2, "K": 60})
