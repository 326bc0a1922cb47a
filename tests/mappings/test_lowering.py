"""What lowering makes of a mapping: phases, steps and their dependences; and what it refuses, in which words."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from architectures import Architecture
from einsum import Cascade
from einsum.errors import SpecError
from mappings import Mapping, Step, TileProgram
from simulator.simulate import build_program, design
from tests.mappings.machine import machine, program, totals
from tests.mappings.nests import ATTENTION, EINSUMS, MATMUL, ONE_PASS

SIZES = {"P": 4, "M": 6, "E": 3, "F": 2}
PRODUCT = {"compute": "Z", "on": "grid"}
INTERMEDIATE = ["QK", "GM", "SN", "SD", "A"]
LEAVES = [{"compute": name, "on": "row"} for name in EINSUMS]


def refusal(nest: list[Any], cascade: Cascade = ATTENTION, architecture: Architecture | None = None) -> str:
    sizes = SIZES if cascade is ATTENTION else {"M": 7, "N": 5, "K": 3}
    with pytest.raises(SpecError) as caught:
        program(cascade, architecture or machine(), nest, sizes)
    return str(caught.value)


def steps(lowered: TileProgram, phase: int = 0) -> dict[str, Step]:
    (stream,) = lowered.phases[phase].streams
    return {step.name: step for step in stream.steps}


def waits(step: Step) -> set[tuple[str, float]]:
    return {(dependence.step, float(np.max(dependence.distance))) for dependence in step.after}


def fused(*leaves: Any, kind: str = "pipeline", **options: Any) -> list[Any]:
    """One query at a time through all Einsums."""
    return [{"for": {"p": 1}}, {"keep": {"L2": INTERMEDIATE}}, {kind: list(leaves), **options}]


# Legality.


@pytest.mark.parametrize(
    ("nest", "message"),
    [
        ([{**PRODUCT, "on": "gird"}], "the architecture 'small' has no unit 'gird' (did you mean 'grid'?)"),
        ([{**PRODUCT, "spatial": {"q": "rows"}}], "nest[0].spatial.q: Z has no rank 'q' (known: k, m, n)"),
        (
            [{**PRODUCT, "spatial": {"m": "row"}}],
            "nest[0].spatial.m: the unit 'grid' has no dimension 'row' (did you mean 'rows'?)",
        ),
        (
            [{**PRODUCT, "spatial": {"m": "rows", "n": "rows"}}],
            "nest[0].spatial.m: two ranks are laid on the dimension 'rows'",
        ),
        (
            [{**PRODUCT, "spatial": {"m": "rows"}, "temporal": ["n"]}],
            "nest[0].temporal: the mapping of Z does not cover rank 'k'",
        ),
        (
            [{**PRODUCT, "spatial": {"m": "rows"}, "temporal": ["m", "n", "k"]}],
            "nest[0].temporal: Z has no rank 'm' left to iterate (known: k, n)",
        ),
        ([{"sequence": [PRODUCT, PRODUCT]}], "nest: the mapping computes Z more than once"),
    ],
)
def test_a_product_that_cannot_be_mapped(nest: list[Any], message: str) -> None:
    assert refusal(nest, MATMUL).endswith(message)


def test_a_rank_that_the_loops_have_cut_to_single_coordinates_is_covered() -> None:
    nest = [{"for": {"k": 1}}, {**PRODUCT, "temporal": ["m", "n"]}]
    lowered = program(MATMUL, machine(), nest, {"M": 2, "N": 3, "K": 4})
    assert lowered.phases[0].streams[0].counts.sum() == 4


def test_every_einsum_is_computed() -> None:
    assert refusal([{"keep": {"L2": INTERMEDIATE}}, {"sequence": LEAVES[:-1]}]) == (
        "nest: the mapping never computes AV of cascade 'attention'"
    )


@pytest.mark.parametrize(
    "first", [LEAVES[0], [{"keep": {"L2": ["QK"]}}, LEAVES[0]]], ids=["nowhere", "around its producer only"]
)
def test_an_intermediate_needs_a_home_around_producer_and_consumer(first: Any) -> None:
    assert refusal([{"keep": {"L2": INTERMEDIATE[1:]}}, {"sequence": [first, *LEAVES[1:]]}]) == (
        "nest[1].sequence[1][0]: tensor 'QK' goes from QK to GM, but no memory that encloses both holds it; keep it "
        "there, or in DRAM"
    )


def test_a_value_that_a_loop_still_reduces_is_not_consumed_inside_it() -> None:
    assert refusal([{"keep": {"L2": INTERMEDIATE}}, {"for": {"m": 2}}, {"sequence": LEAVES}]) == (
        "nest[2].sequence[2][0]: SN needs 'GM' complete over rank 'm', but runs inside the loop over 'm' that computes "
        "it; close that loop first"
    )


def test_a_loop_of_one_iteration_completes_what_it_reduces() -> None:
    """As many keys as one chunk takes: the maximum is complete when the exponentials begin."""
    nest = [{"keep": {"L2": INTERMEDIATE}}, {"for": {"m": SIZES["M"]}}, {"sequence": LEAVES}]
    plain = [{"keep": {"L2": INTERMEDIATE}}, {"for": {"p": SIZES["P"]}}, {"sequence": LEAVES}]
    found = (totals(program(ATTENTION, machine(), made, SIZES)) for made in (nest, plain))
    first, second = found
    assert first == second
    assert refusal([*nest[:2], {"for": {"m": 5}}, nest[2]]).startswith("nest[3].sequence[2][0]: SN needs 'GM' complete")


def test_the_order_of_phases_follows_the_data() -> None:
    swapped = [LEAVES[1], LEAVES[0], *LEAVES[2:]]
    assert refusal([{"keep": {"L2": INTERMEDIATE}}, {"sequence": swapped}]) == (
        "nest: GM is computed in a phase before QK, which it reads"
    )
    assert refusal(fused(*swapped, kind="sequence")) == (
        "nest: the order of steps contradicts their data: GM -> QK -> GM"
    )


def test_a_consumer_is_not_ahead_of_its_producer() -> None:
    assert refusal(fused({**LEAVES[0], "lag": 1}, *LEAVES[1:])) == (
        "nest[2].pipeline[1][0]: GM (lag 0) reads 'QK' before QK (lag 1) computes it"
    )


def test_einsums_computed_together_have_the_same_ranks() -> None:
    assert refusal(fused({"compute": ["QK", "GM"], "on": "row"}, *LEAVES[2:])) == (
        "nest[2].pipeline[0][0].compute: QK iterates m, p, e and GM p, m; only Einsums over the same ranks can be "
        "computed together"
    )


def test_a_unit_runs_only_its_operations() -> None:
    plain = Architecture.parse(
        "{architecture: plain, clock: 1 GHz, word_bits: 16, memories: {DRAM: {}}, units: {row: {ops: {mac: {}}}}}"
    )
    message = refusal([{"keep": {"DRAM": INTERMEDIATE}}, {"sequence": LEAVES}], ATTENTION, plain)
    assert message == "nest[1].sequence[1][0]: GM: the unit 'row' cannot run 'max' (it runs mac)"


def test_errors_name_the_mapping_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"mapping": "mine", "nest": [{"for": {"q": 1}}, PRODUCT]}), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        build_program(design(MATMUL, machine(), Mapping.load(path), None, {"M": 1, "N": 1, "K": 1}))
    assert str(caught.value) == f"{path}: nest[0].for.q: cascade 'matmul' has no rank 'q' (known: k, m, n)"


# Structure.


def test_a_sequence_without_a_loop_around_it_makes_phases() -> None:
    around = program(ATTENTION, machine(), [{"keep": {"L2": INTERMEDIATE}}, {"sequence": LEAVES}], SIZES)
    assert [phase.name for phase in around.phases] == list(EINSUMS)
    nested = [{"keep": {"L2": INTERMEDIATE}}, {"sequence": [{"sequence": LEAVES[:3]}, {"pipeline": LEAVES[3:]}]}]
    phases = program(ATTENTION, machine(), nested, SIZES).phases
    assert [phase.name for phase in phases] == ["QK", "GM", "SN", "SD, A, AV"]


def test_the_tiles_of_a_sequence_follow_one_another() -> None:
    found = steps(program(ATTENTION, machine(), fused(*LEAVES, kind="sequence"), SIZES))
    assert waits(found["QK"]) == {("AV", 1)}
    for before, name in pairwise(EINSUMS):
        assert waits(found[name]) == {(before, 0)}


def test_a_pipeline_keeps_so_many_tiles_in_flight() -> None:
    found = steps(program(ATTENTION, machine(), fused(*LEAVES, depth=3), SIZES))
    assert waits(found["QK"]) == {("AV", 3)}
    free = steps(program(ATTENTION, machine(), fused(*LEAVES), SIZES))
    assert waits(free["QK"]) == set()


def test_parallel_parts_join_at_the_end() -> None:
    nest = fused({"parallel": [{"stall": 5}, LEAVES[0]]}, *LEAVES[1:], kind="sequence")
    found = steps(program(ATTENTION, machine(), nest, SIZES))
    (stall,) = (name for name in found if name.startswith("stall"))
    assert waits(found["QK"]) == waits(found[stall]) == {("AV", 1)}
    assert waits(found["GM"]) == {("QK", 0), (stall, 0)}
    assert float(np.max(found[stall].latency_s)) == 5e-9


def test_a_lag_reaches_back_over_tiles() -> None:
    nest = fused(LEAVES[0], *({**leaf, "lag": 2} for leaf in LEAVES[1:]))
    found = steps(program(ATTENTION, machine(), nest, SIZES))
    assert waits(found["GM"]) == {("QK", 2)}
    assert waits(found["SN"]) == {("QK", 2), ("GM", 0)}


@pytest.mark.parametrize(("buffers", "distance"), [(1, 1), (2, 4), (3, 7), ("rolling", 4)])
def test_a_load_waits_for_the_buffer_that_it_fills(buffers: Any, distance: int) -> None:
    nest = [{"for": {"m": 1}}, {"keep": {"L1": {"A": buffers}}}, {"for": {"n": 2}}, PRODUCT]
    found = steps(program(MATMUL, machine(), nest, {"M": 4, "N": 6, "K": 2}))  # three tiles for each load
    assert waits(found["load A into L1"]) == {("Z", distance)}
    assert ("load A into L1", 0) in waits(found["Z"])


def test_a_running_state_waits_one_iteration_of_its_loop() -> None:
    held = [name for name in ONE_PASS.tensors if ONE_PASS.tensors[name].kind == "intermediate"]
    leaves = [{"compute": einsum.name, "on": "row", "spatial": {"p": "lanes"}} for einsum in ONE_PASS.einsums]
    nest = [{"keep": {"L2": held}}, {"for": {"m1": 1}}, {"for": {"p": 4}}, {"pipeline": leaves}]
    lowered = program(ONE_PASS, machine(), nest, {"B": 1, "H": 1, "P": 12, "M": 8, "E": 2, "F": 2, "M0": 2})
    found = steps(lowered)
    assert ("RM", 3) in waits(found["RM"])  # three blocks of queries for each chunk of keys
    assert ("RD", 3) in waits(found["SPD"])
    assert ("RNV", 3) in waits(found["SPNV"])
    assert ("RM", 3) in waits(found["PRM"]) and ("RM", 0) in waits(found["PRM"])


@pytest.mark.parametrize(("issue", "cycles"), [("serial", 4 + 6), ("chained", 6)])
def test_operations_of_a_point_issue_in_turn_or_as_a_chain(issue: str, cycles: int) -> None:
    leaves = [*LEAVES[:2], {**LEAVES[2], "issue": issue}, *LEAVES[3:]]  # sub takes 4 cycles there and exp 6
    lowered = program(ATTENTION, machine(), [{"keep": {"L2": INTERMEDIATE}}, {"sequence": leaves}], SIZES)
    points = SIZES["P"] * SIZES["M"]
    assert float(np.max(steps(lowered, 2)["SN"].busy_s)) == pytest.approx(points * cycles * 1e-9)


def test_spread_work_is_even_and_adds_up() -> None:
    held = [name for name in ONE_PASS.tensors if ONE_PASS.tensors[name].kind == "intermediate"]
    leaves = [{"compute": einsum.name, "on": "row", "spatial": {"p": "lanes"}} for einsum in ONE_PASS.einsums]
    sizes = {"B": 1, "H": 1, "P": 4, "M": 8, "E": 2, "F": 2, "M0": 2}

    def division(**options: Any) -> tuple[np.ndarray, np.ndarray]:
        nest = [{"keep": {"L2": held}}, {"for": {"m1": 1}}, {"pipeline": [*leaves[:-1], {**leaves[-1], **options}]}]
        lowered = program(ONE_PASS, machine(), nest, sizes)
        (stream,) = lowered.phases[0].streams
        return np.broadcast_to(steps(lowered)["AV"].busy_s, stream.counts.shape), stream.counts

    (at_end, counts), (spread, others) = division(), division(spread="m1")
    assert (at_end * counts).sum() == pytest.approx((spread * others).sum())
    assert np.count_nonzero(at_end) == 1
    assert np.ptp(spread) == 0


# Register files.


def test_register_accesses_of_a_product() -> None:
    """4 x 3 elements, each with one accumulator; k runs in time and moves both operands."""
    lowered = program(
        MATMUL, machine({"rows": 4, "columns": 3}), [{**PRODUCT, "spatial": {"m": "rows", "n": "columns"}}],
        {"M": 4, "N": 3, "K": 5},
    )  # fmt: skip
    actions = steps(lowered)["Z"].actions
    points, results = 4 * 3 * 5, 4 * 3
    assert float(np.max(actions["grid", "mac"])) == points
    assert float(np.max(actions["grid.registers", "read"])) == 2 * points + (points - results)
    assert float(np.max(actions["grid.registers", "write"])) == points + 2 * points


def test_an_operand_that_stays_in_its_register_is_written_once() -> None:
    """Weight stationary: B stays in the elements while m runs in time."""
    lowered = program(
        MATMUL, machine({"rows": 5, "columns": 3}), [{**PRODUCT, "spatial": {"k": "rows", "n": "columns"}}],
        {"M": 4, "N": 3, "K": 5},
    )  # fmt: skip
    points = 4 * 3 * 5
    assert float(np.max(steps(lowered)["Z"].actions["grid.registers", "write"])) == points + points + 5 * 3
