"""Each closed form of an attention schedule is what its execution, word by word, moves and needs."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds.attention_schedules import (
    Heads,
    best_schedules,
    plain_tilings,
    ring_length,
    second_phase,
    whole_row_schedules,
)
from bounds.pattern import Intervals
from bounds.staircase import Staircase
from tests.bounds import attention_runs as runs
from tests.bounds.attention_runs import Attention
from tests.bounds.cases import Case, latent_case, random_case

FAMILIES = {
    "row tiles, Q and O resident": lambda run, a, b: runs.row_tiles(run, a, b, True, True),
    "row tiles, Q resident": lambda run, a, b: runs.row_tiles(run, a, b, True, False),
    "row tiles, O resident": lambda run, a, b: runs.row_tiles(run, a, b, False, True),
    "row tiles, nothing resident": lambda run, a, b: runs.row_tiles(run, a, b, False, False),
    "column tiles, K and V resident": lambda run, a, b: runs.column_tiles(run, a, b, True, True),
    "column tiles, K resident": lambda run, a, b: runs.column_tiles(run, a, b, True, False),
    "column tiles, V resident": lambda run, a, b: runs.column_tiles(run, a, b, False, True),
    "column tiles, nothing resident": lambda run, a, b: runs.column_tiles(run, a, b, False, False),
    "value chunks": runs.value_chunks,
    "kept columns": runs.kept_columns,
    "whole columns": runs.whole_columns,
    "kept keys": runs.kept_keys,
    "Q resident": lambda run, a, b: runs.scores_q_resident(run, a),
    "K resident": lambda run, a, b: runs.scores_k_resident(run, a),
    "S tiles": runs.scores_tiled,
    "O tiles": runs.outputs_tiled,
    "ring": lambda run, a, b: runs.ring(run),
}
"""Execution of each family, by the name that its closed form is described with, and its two tile sizes."""


def execute(case: Case, name: str, capacity: float) -> Attention:
    """Run what a description says, in at most `capacity` words; its last word holds the tile sizes."""
    heads = case.heads
    run = Attention(*case.inputs(), case.keys, capacity, plain=heads.statistics == 0, shared=heads.shared)
    run_described(run, name)
    return run


def run_described(run: Attention, name: str) -> None:
    for phase in _phases(name):
        family, _, tile = phase.rpartition(" ")
        sizes = [int(n) for n in tile.split("x")]
        FAMILIES[family](run, *(sizes if len(sizes) > 2 else (sizes[0], sizes[-1])))


def _phases(name: str) -> list[str]:
    if not name.startswith("two-phase: "):
        return [name]
    first, second = name.removeprefix("two-phase: ").split(", O tiles ")
    return [first, f"O tiles {second}"]


def listed(stairs: Staircase) -> list[tuple[str, float, float]]:
    return [
        (stairs.describe(int(o)), w, f) for o, w, f in zip(stairs.origin, stairs.words, stairs.footprint, strict=True)
    ]


def keep_all(footprint, words, describe) -> Staircase:
    """A staircase of all schedules, beaten ones too."""
    flat = [np.ravel(np.asarray(values, float)) for values in np.broadcast_arrays(footprint, words)]
    return Staircase(*flat, np.arange(flat[0].size), describe)


def every_schedule(heads: Heads) -> list[tuple[str, float, float]]:
    """All families at all tile sizes: name, words, footprint."""
    with patch.object(Staircase, "of", keep_all), patch.object(Staircase, "sequence", lambda name, a, b: a):
        return listed(best_schedules(heads))


@pytest.mark.parametrize("make", [random_case, latent_case])
@given(st.integers(0, 10**6))
@settings(max_examples=40)
def test_every_tile_size_of_every_family_moves_the_words_that_it_claims(make, seed: int) -> None:
    case = make(seed, most=7)
    for name, words, footprint in every_schedule(case.heads):
        run = execute(case, name, footprint)
        assert run.machine.words == words, name
        if ("o", 0, 0) in run.machine.slow:  # the first of two phases makes scores only
            assert np.allclose(run.result(), case.expected())


@pytest.mark.parametrize("make", [random_case, latent_case])
@given(st.integers(0, 10**6))
@settings(max_examples=30)
def test_each_best_schedule_computes_attention_in_its_footprint(make, seed: int) -> None:
    case = make(seed, most=7)
    for name, words, footprint in listed(best_schedules(case.heads)):
        run = execute(case, name, footprint)
        assert run.machine.words == words, name
        assert np.allclose(run.result(), case.expected())


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_two_products_without_a_softmax_run_in_less_space(seed: int) -> None:
    case = random_case(seed, most=7)
    case = Case(replace(case.heads, statistics=0), seed)
    for name, words, footprint in listed(best_schedules(case.heads)):
        run = execute(case, name, footprint)
        assert run.machine.words == words, name
        assert np.allclose(run.result(), case.expected(plain=True))


@given(st.integers(0, 10**6))
@settings(max_examples=20)
def test_the_second_phase_reads_scores_at_every_tile_size(seed: int) -> None:
    case = random_case(seed, most=6)
    with patch.object(Staircase, "of", keep_all):
        phases = listed(second_phase(case.heads))
    for name, words, footprint in phases:
        run = execute(case, "Q resident 1", np.inf)
        before = run.machine.words
        family, _, tile = name.rpartition(" ")
        run.machine.peak, run.machine.capacity = 0, footprint
        FAMILIES[family](run, *[int(n) for n in tile.split("x")])
        assert run.machine.words - before == words, name
        assert np.allclose(run.result(), case.expected())


def test_the_ring_keeps_a_causal_window_and_moves_only_what_must_move() -> None:
    window = Heads(Intervals.band(40, 40, 6, 0), 4, 4)
    assert ring_length(window.pattern) == 7
    words, names = best_schedules(window).at(np.array([7.0 * 9 + 3]))
    assert words[0] == 4 * 40 * 4
    assert names[0] == "ring 7"


@pytest.mark.parametrize(
    ("heads", "memory", "words"),
    [
        (Heads(Intervals.dense(4096, 4096), 64, 64), 98304, 3670016),
        (Heads(Intervals.dense(8192, 8192), 128, 128), 16384, 274726912),
        (Heads(Intervals.dense(512, 512), 64, 64), 81920, 131072),
        (Heads(Intervals.band(4096, 4096, None, 0), 128, 128), 114688, 6820352),
        (Heads(Intervals.dense(1, 32768), 128, 128, group=8), 16384, 8390656),
    ],
)
def test_best_tilings_of_worked_cases(heads: Heads, memory: int, words: int) -> None:
    at = np.array([float(memory)])
    assert plain_tilings(heads).at(at)[0][0] == words
    assert best_schedules(heads).at(at)[0][0] <= words


@given(st.integers(0, 10**6))
@settings(max_examples=25)
def test_a_softmax_in_several_passes_has_a_rows_statistics_before_its_outputs(seed: int) -> None:
    case = random_case(seed)
    case = Case(replace(case.heads, statistics=2), seed)
    for name, words, footprint in listed(whole_row_schedules(case.heads)):
        if name.startswith("scores: "):
            continue  # unfused, executed with the named schedules
        with patch.object(Attention, "softmax_step", autospec=True, side_effect=Attention.softmax_step) as steps:
            run = execute(case, name, footprint)
        assert run.machine.words == words
        assert [call.args[1] for call in steps.call_args_list].count(0) == 1
        assert len(steps.call_args_list) == run.rows
