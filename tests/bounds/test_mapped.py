"""The mapper's schedules: run with values they move their words in the fast memory, and none is below a bound."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest

from bounds import analyse, mapped
from bounds.engine import lower_bound
from bounds.reader import read_problem
from einsum import Cascade
from einsum.errors import SpecError
from einsum.interpreter import run
from tests.mappings.executor import Executor
from tests.mappings.test_search import ATTENTION, MATMUL, SOFTMAX

MEMORY = np.array([12.0, 18.0, 30.0, 60.0, 250.0])


def found_with(cascade: Cascade, sizes: dict[str, int], memory: np.ndarray):
    """The staircase, and each mapping that was found with its buffer's capacity in words."""
    kept = []

    def find(plain, machine, *rest, **more):
        found = true_find(plain, machine, *rest, **more)
        kept.append((float(machine.evaluate({}).memories["fast"].capacity_bytes) / 2, found))
        return found

    true_find = mapped.find
    with patch.object(mapped, "find", find):
        return mapped.mapper_schedules(cascade, sizes, memory, 2), kept


@pytest.mark.parametrize("cascade", [MATMUL, ATTENTION, SOFTMAX], ids=lambda cascade: cascade.name)
@pytest.mark.parametrize("seed", range(4))
def test_words_are_those_of_a_run_with_values(cascade: Cascade, seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = {name: int(random.integers(2, 6)) for name in cascade.parameters}
    extents = cascade.extents(sizes)
    inputs = {t.name: random.normal(size=cascade.shape(t.name, extents)) for t in cascade.inputs}
    expected = run(cascade, inputs, sizes)
    stairs, kept = found_with(cascade, sizes, MEMORY)
    assert kept
    for capacity, found in kept:
        nest = list(found.mapping.data["nest"])
        done = Executor(cascade, nest, sizes, inputs, {"fast": int(capacity)})
        for tensor in cascade.outputs:
            values = [done.slow[tensor.name, at] for at in np.ndindex(expected[tensor.name].shape)]
            assert np.allclose(values, expected[tensor.name].ravel())
        used = capacity + len(cascade.einsums) + 1  # the words that are kept free for one point's values
        assert stairs.at(np.array([used]))[0][0] <= done.moved
    words = stairs.at(MEMORY)[0]
    fits = ~np.isnan(words)
    bound = lower_bound(read_problem(cascade, sizes), MEMORY).words
    assert np.all(bound[fits] <= words[fits] * (1 + 1e-9))


def test_what_the_mapper_cannot_do_is_one_sentence() -> None:
    with pytest.raises(SpecError, match="the mapper finds no schedule"):
        mapped.mapper_schedules(MATMUL, {"M": 4, "N": 4, "K": 4}, np.array([3.0]), 2)


@pytest.mark.parametrize("mask", ["causal", "window:4"])
def test_a_mask_is_mapped(mask: str) -> None:
    sizes = {"P": 24, "M": 24, "E": 4, "F": 4}
    dense = analyse(ATTENTION, sizes, [80], schedules=["mapper"]).rows[0]
    (row,) = analyse(ATTENTION, sizes, [80], mask=mask, schedules=["mapper"]).rows
    assert row.lower_bound_words <= row.schedules["mapper"].words < 0.8 * dense.schedules["mapper"].words


def test_a_schedule_that_does_not_apply_is_refused_before_the_mapper_runs() -> None:
    biased = Cascade.parse("""
    cascade: biased
    ranks: {h: H, p: P, m: M, e: E, f: F}
    inputs: {Q: [h, p, e], K: [h, m, e], V: [h, m, f], S: [h]}
    outputs: [AV]
    einsums:
      - QK[h,m,p] = Q[h,p,e] * K[h,m,e]
      - B[h,m,p] = QK[h,m,p] + S[h] * (m - p)
      - A[h,m,p] = sigmoid(B[h,m,p])
      - AV[h,p,f] = A[h,m,p] * V[h,m,f]
    """)
    with (
        patch.object(mapped, "find", side_effect=AssertionError("the mapper ran")),
        pytest.raises(SpecError, match="flash-attention-2 is for attention"),
    ):
        analyse(biased, dict.fromkeys("HPMEF", 8), [200], schedules=["mapper", "flash-attention-2"])
