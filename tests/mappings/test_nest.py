"""Binding a nest: which values its expressions may have, which alternatives it takes, and how mistakes are told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from einsum.errors import SpecError
from mappings.nest import Binder, Block, Leaf, Pause, StructureVaries
from mappings.schema import parse_nest
from simulator.simulate import simulate
from tests.mappings.machine import machine, plan
from tests.mappings.nests import MATMUL, ONE_PASS

PRODUCT = {"compute": "Z", "on": "grid"}
LEVELS = {"DRAM": True, "L1": True, "grid": False}


def body(nest: list[Any], points: int = 1, **env: Any) -> Any:
    """The body of the nest's only phase."""
    binder = Binder(MATMUL, {"M": 8, "N": 4, "K": 2} | env, points, LEVELS)
    (phase,) = binder.phases(parse_nest(nest, "nest"), "nest")
    return phase.body


@pytest.mark.parametrize(
    ("nest", "message"),
    [
        ([{"for": {"q": 1}}, PRODUCT], "nest[0].for.q: cascade 'matmul' has no rank 'q' (known: k, m, n)"),
        ([{"for": {"m": 0}}, PRODUCT], "nest[0].for.m: expected at least 1, found 0"),
        ([{"for": {"m": -3}}, PRODUCT], "nest[0].for.m: expected at least 1, found -3"),
        ([{"for": {"m": "M - 8"}}, PRODUCT], "nest[0].for.m: expected at least 1, 'M - 8' is 0"),
        ([{"for": {"m": 2.5}}, PRODUCT], "nest[0].for.m: expected a whole number, '2.5' is 2.5"),
        ([{"for": {"m": "'all'"}}, PRODUCT], "nest[0].for.m: expected a number, ''all'' is 'all'"),
        ([{"for": {"m": "MM"}}, PRODUCT], "nest[0].for.m: unknown name 'MM' (did you mean 'M'?) in 'MM'"),
        (
            [{"keep": {"girds": ["A"]}}, PRODUCT],
            "nest[0].keep.girds: the architecture has no memory or unit 'girds' (did you mean 'grid'?)",
        ),
        (
            [{"stage": {"L1": ["a"]}}, PRODUCT],
            "nest[0].stage.L1.a: cascade 'matmul' has no tensor 'a' (did you mean 'A'?)",
        ),
        ([{"keep": {"L1": {"A": 0}}}, PRODUCT], "nest[0].keep.L1.A.buffers: expected at least 1, found 0"),
        ([{"compute": "Y", "on": "grid"}], "nest[0].compute: cascade 'matmul' has no Einsum 'Y' (known: Z)"),
        ([{"pipeline": [PRODUCT, {"stall": 1}], "depth": 0}], "nest[0].depth: expected at least 1, found 0"),
        (
            [{"sequence": [PRODUCT, {"stall": "0 - N"}]}],
            "nest[0].sequence[1][0].stall: expected at least 0, '0 - N' is -4",
        ),
        (
            [{"select": [{"when": "M > 8", "do": [PRODUCT]}, {"when": "M < 8", "do": [PRODUCT]}]}],
            "nest[0].select: none of the alternatives applies: M > 8; M < 8",
        ),
        ([{"for": {"m": 2}}], "nest: the nest computes nothing: it has no 'compute'"),
    ],
)
def test_mistakes_are_told_with_their_place(nest: list[Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        body(nest)
    assert str(caught.value) == message


def test_one_wrong_design_point_is_enough() -> None:
    with pytest.raises(SpecError, match=r"nest\[0\]\.for\.m: expected at least 1, 'T' is 0"):
        body([{"for": {"m": "T"}}, PRODUCT], points=3, T=np.array([4, 0, 2]))


def test_loops_and_holds_enclose_what_follows_them() -> None:
    inside = [{"for": {"n": "N // 2", "k": 1}}, {"keep": {"L1": ["B"]}}, PRODUCT]
    leaf = body([{"for": {"m": 2}}, {"keep": {"L1": ["A"]}}, *inside])
    assert isinstance(leaf, Leaf)
    assert [(loop.name, loop.chunk.item()) for loop in leaf.loops] == [("m", 2), ("n", 2), ("k", 1)]
    assert [(hold.tensors, [loop.name for loop in hold.loops]) for hold in leaf.holds] == [
        (("A",), ["m"]),
        (("B",), ["m", "n", "k"]),
    ]


def test_branches_keep_their_children_in_order() -> None:
    block = body([{"for": {"m": 2}}, {"parallel": [{"stall": "2 * N"}, [{"for": {"n": 1}}, PRODUCT]]}])
    assert isinstance(block, Block)
    pause, leaf = block.parts
    assert isinstance(pause, Pause) and pause.cycles.item() == 8
    assert isinstance(leaf, Leaf) and [loop.name for loop in leaf.loops] == ["m", "n"]
    assert [loop.name for loop in block.loops] == ["m"]


def test_the_first_alternative_that_holds_is_taken_and_flows_on() -> None:
    choices = [{"when": f"M >= {least}", "do": [{"for": {"m": least}}]} for least in (16, 4, 2)]
    leaf = body([{"select": choices}, {"keep": {"L1": ["A"]}}, PRODUCT])
    assert [loop.chunk.item() for loop in leaf.loops] == [4]
    assert leaf.holds[0].loops == leaf.loops


def test_a_hold_whose_condition_fails_is_left_out() -> None:
    nest = [{"keep": {"L1": {"A": {"when": "M > 8"}, "B": {"when": "M == 8 and N < M"}}}}, PRODUCT]
    assert [hold.tensors for hold in body(nest).holds] == [("B",)]


def test_conditions_that_differ_between_points_are_evaluated_in_groups() -> None:
    large, small = {"when": "M > 4", "do": [{"keep": {"L1": ["A"]}}]}, {"when": "M <= 4", "do": [{"for": {"m": 1}}]}
    nest = [{"select": [large, small]}]
    with pytest.raises(StructureVaries):
        body([*nest, PRODUCT], points=2, M=np.array([2, 8]))
    sizes = {"M": np.array([2.0, 8.0, 3.0, 9.0]), "N": 4, "K": 2}
    both = simulate(MATMUL, machine(), plan([*nest, PRODUCT]), None, sizes)
    for point, size in enumerate(sizes["M"]):
        alone = simulate(MATMUL, machine(), plan([*nest, PRODUCT]), None, {**sizes, "M": size})
        assert both.latency_s[point] == alone.latency_s[0]
        held = alone.traffic_bytes.get("L1", {}).get("total", {"read": [0]})["read"][0]
        assert both.traffic_bytes["L1"]["total"]["read"][point] == held


def test_a_loop_over_the_outer_half_of_a_partition_counts_its_chunks() -> None:
    env = dict.fromkeys("BHPEF", 1) | {"M": 12, "M0": 3}
    binder = Binder(ONE_PASS, env, 1, LEVELS)
    nest = [{"for": {"m1": 2}}, {"for": {"m0": 1}}, {"compute": "BQK", "on": "grid"}]
    (phase,) = binder.phases(parse_nest(nest, "nest"), "nest")
    assert [(loop.name, loop.rank, loop.chunk.item()) for loop in phase.tile_loops] == [("m1", "m", 6), ("m0", "m", 1)]
