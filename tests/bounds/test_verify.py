"""The verifier accepts what the engine certifies, refuses what was tampered with, and stands alone."""

from __future__ import annotations

import ast
import inspect
import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from bounds.attention_schedules import Heads
from bounds.engine import lower_bound
from bounds.pattern import Intervals
from bounds.reader import read_problem
from bounds.verify import verify
from einsum import Cascade
from tests.bounds.cases import attention_problem, random_case
from tests.bounds.test_soundness import product, product_problem

HEADS = Heads(Intervals.band(2048, 2048, None, 0), 64, 32)


def certificate(memory: float, label: str = "recompute-safe") -> dict:
    return lower_bound(attention_problem(HEADS), np.array([memory]), label).certificates[0]


@pytest.mark.parametrize("seed", range(8))
def test_certificates_survive_json_and_are_accepted(seed: int) -> None:
    memory = np.array([6.0, 15.0, 50.0, 200.0])
    for problem in (attention_problem(random_case(seed).heads), product_problem(np.random.default_rng(seed))):
        for label in ("recompute-safe", "no-recompute"):
            found = lower_bound(problem, memory, label)
            for words, record in zip(found.words, found.certificates, strict=True):
                assert verify(json.loads(json.dumps(record))) == pytest.approx(words)


@pytest.mark.parametrize("memory", [500.0, 3 * 64**2.0, 40000.0])
def test_a_larger_claim_is_refused(memory: float) -> None:
    record = deepcopy(certificate(memory))
    record["value"] *= 1.01
    with pytest.raises(ValueError, match="claims"):
        verify(record)


def tampered(change) -> dict:
    record = deepcopy(certificate(40000.0))
    assert record["theorem"] == "fused segments"
    change(record)
    return record


def inequalities(record: dict, program: str = "statement") -> list[dict]:
    return [
        one for mode in record["modes"] for one in mode["programs"].get(program, {"inequalities": []})["inequalities"]
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: inequalities(r)[0]["exponents"].update({"O": "1/3", "V": "1/3"}),
        lambda r: [one["exponents"].update({"K*": "1/2"}) for one in inequalities(r, "S")],
        lambda r: r["segment"].update(full=r["segment"]["full"] + 1),
        lambda r: inequalities(r)[0]["weights"].update(later=2.0),
        lambda r: [one["weights"].update(later=0.9 * one["weights"]["later"]) for one in inequalities(r, "S")],
        lambda r: r.update(memory_words=r["memory_words"] * 2),
        lambda r: [one.update(capped=["nothing"]) for one in inequalities(r)],
        lambda r: [one.update(capped=["p"]) for one in inequalities(r)],
        lambda r: inequalities(r)[0]["chain"].pop(),
        lambda r: inequalities(r)[0].update(chain=[inequalities(r)[0]["chain"][0]] * 3),
    ],
    ids=[
        "exponents",
        "inner exponents",
        "one more segment",
        "weights",
        "inner weights",
        "memory",
        "unknown cap",
        "a cap of loops in the chain",
        "a short chain",
        "a chain of one form",
    ],
)
def test_tampering_is_refused(change) -> None:
    with pytest.raises(ValueError, match="refused"):
        verify(tampered(change))


def test_a_joint_bound_outside_its_range_is_refused() -> None:
    record = deepcopy(certificate(500.0))
    assert record["theorem"] == "joint statements"
    record["fiber"] = 1.0
    with pytest.raises(ValueError, match="recomputing pays"):
        verify(record)
    record = deepcopy(certificate(500.0))
    record["spread"] *= 0.9
    with pytest.raises(ValueError, match="eigenvalue"):
        verify(record)


def test_affine_conditions_are_rechecked() -> None:
    record = lower_bound(product(100, 100, 100), np.array([50.0])).certificates[0]
    changed = json.loads(json.dumps(record))
    changed["modes"][0]["programs"]["statement"]["arrays"]["A"]["index"] = [[1, 1, 0]]
    with pytest.raises(ValueError, match="too small for form"):
        verify(changed)


def imports(source: str) -> set[str]:
    return {
        name
        for node in ast.walk(ast.parse(source))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }


def test_the_verifier_is_one_short_file_that_imports_nothing_of_the_house() -> None:
    source = Path(inspect.getsourcefile(verify) or "").read_text(encoding="utf-8")
    assert len(source.splitlines()) < 150
    assert imports(source) <= {"__future__", "collections", "collections.abc", "fractions", "math", "typing", "numpy"}


STAR = read_problem(Cascade.load("attention-backward"), {"B": 1, "H": 2, "P": 2048, "M": 2048, "E": 64, "F": 32})


def test_phases_are_rechecked() -> None:
    record = lower_bound(STAR, np.array([200.0])).certificates[0]["parts"][0]
    assert record["theorem"] == "joint phases"
    verify(record)
    for change, message in (
        ({"edges": [[a, b, weight, 0] for a, b, weight, _ in record["edges"]]}, "eigenvalue"),
        ({"rebuild": 1}, "nothing charges"),
        ({"free": 1}, "nothing charges"),
        ({"fiber": 10.0}, "recomputing pays"),
        ({"memory_words": 210.0}, "claims"),
    ):
        with pytest.raises(ValueError, match=message):
            verify(record | change)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.update(point=[v * 0.9 for v in r["point"]]),
        lambda r: r.update(point=[r["point"][0] * 1.2, *r["point"][1:]]),
        lambda r: r.update(widths=[2 * v for v in r["widths"]]),
        lambda r: r["segment"].update(full=r["segment"]["full"] + 1),
        lambda r: r.update(memory_words=r["memory_words"] * 2),
    ],
    ids=["a point that is short", "a point that is not the largest", "widths", "one more segment", "memory"],
)
def test_tampering_with_a_star_is_refused_or_proves_less(change) -> None:
    record = lower_bound(STAR, np.array([50000.0])).certificates[0]["parts"][0]
    assert record["theorem"] == "star segments"
    verify(record)
    change(record)
    with pytest.raises(ValueError, match="refused"):
        verify(record)
