"""A plan expands to the products and lists that it names, in order and without repeats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from einsum.errors import EinsightError
from kernels.plan import LIBRARY, MeasurementPlan

ENTRY: dict[str, Any] = {
    "kernel": "flash_attention",
    "head_dim": [64, 128],
    "each": {
        "shape": [{"heads": 4, "q_len": 512}, {"heads": 8, "q_len": [1024, 2048]}],
        "tile": [{"block_m": 64, "block_n": 64}, {"block_m": 128, "block_n": 32}],
    },
}


def parse(*rows: Any, **more: Any) -> MeasurementPlan:
    return MeasurementPlan.parse({"plan": "test", "rows": list(rows), **more})


def test_lists_multiply() -> None:
    cases = parse(ENTRY).cases
    assert len(cases) == 2 * 3 * 2
    assert [(c.head_dim, c.q_len, c.block_m) for c in cases[:4]] == [
        (64, 512, 64), (64, 512, 128), (64, 1024, 64), (64, 1024, 128)]  # fmt: skip
    assert {c.kv_heads for c in cases} == {4, 8}


def test_where_keeps_and_counters_choose() -> None:
    plan = parse({**ENTRY, "where": "head_dim * heads < 1024", "counters": "block_m == 128 and q_len > 600"})
    assert {(c.head_dim, c.heads) for c in plan.cases} == {(64, 4), (64, 8), (128, 4)}
    assert {(c.head_dim, c.q_len, c.block_m) for c in plan.counted} == {(64, 1024, 128), (64, 2048, 128)}


def test_repeated_rows_are_measured_once() -> None:
    plan = parse({**ENTRY, "counters": False}, {**ENTRY, "head_dim": 64}, ENTRY)
    assert len(plan.cases) == 12
    assert plan.counted == frozenset(plan.cases)


@pytest.mark.parametrize(
    "plan, message",
    [
        ({"rows": []}, "plan: expected the plan's name"),
        ({"plan": "p", "rows": []}, "rows: expected a list of rows"),
        ({"plan": "p", "row": []}, "unknown key 'row' (did you mean 'rows'?)"),
        ({"plan": "p", "rows": [3]}, "rows[0]: expected a mapping, found 3"),
        ({"plan": "p", "rows": [{"kernel": "copy", "block_p": 1}]}, "rows[0]: unknown key 'block_p'"),
        ({"plan": "p", "rows": [{"kernel": "copy", "q_len": "x"}]}, "rows[0].q_len: expected a whole number"),
        ({"plan": "p", "rows": [{"kernel": "copy", "where": "rank == 1"}]}, "rows[0].where: unknown field 'rank'"),
        ({"plan": "p", "rows": [{"kernel": "copy", "each": {"s": 1}}]}, "rows[0].each.s: expected a list of mappings"),
        ({"plan": "p", "rows": [{"kernel": "copy", "q_len": list(range(1, 400)), "heads": list(range(1, 400))}]},
         "rows[0]: the entry expands to more than"),
        ({"plan": "p", "timing": {"target_ms": 0}, "rows": [{"kernel": "copy"}]}, "timing.target_ms: expected a"),
        ({"plan": "p", "timing": {"min_repetitions": 60}, "rows": [{"kernel": "copy"}]}, "timing: min_repetitions"),
    ],
)  # fmt: skip
def test_mistakes_are_named(plan: dict[str, Any], message: str) -> None:
    with pytest.raises(EinsightError) as caught:
        MeasurementPlan.parse(plan)
    assert str(caught.value).startswith(message)


def test_a_file_is_named_with_its_mistake(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("plan: p\nrows: [{kernel: coppy}]\n")
    with pytest.raises(EinsightError) as caught:
        MeasurementPlan.load(path)
    assert str(caught.value) == f"{path}: rows[0].kernel: unknown kernel 'coppy' (did you mean 'copy'?)"


def test_an_unknown_plan_names_the_nearest() -> None:
    with pytest.raises(EinsightError, match=r"unknown measurement plan 'quik'.*did you mean 'quick'"):
        MeasurementPlan.load("quik")


@pytest.mark.parametrize("path", sorted(LIBRARY.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_library_only_plans_what_kernels_can_do(path: Path, device: str) -> None:
    from kernels.families import family

    plan = MeasurementPlan.load(path.stem)
    assert plan.name == path.stem
    assert {family(case.kernel).unsupported(case) for case in plan.cases} == {None}
