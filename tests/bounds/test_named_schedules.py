"""The named schedules: executed word by word, and the words of worked cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds.attention_schedules import Heads
from bounds.named_schedules import (
    SCHEDULES,
    flash_attention_1_words,
    flash_attention_2_words,
    flash_footprint,
    named_schedule,
)
from bounds.pattern import Intervals
from einsum.errors import SpecError
from tests.bounds import attention_runs, named_runs
from tests.bounds.attention_runs import Attention
from tests.bounds.cases import Case, random_case
from tests.bounds.test_attention_schedules import run_described

MEMORIES = np.array([8.0, 12, 18, 27, 40, 60, 90, 200, 1000])


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=60)
def test_flash_attention_moves_the_words_of_its_formula_at_any_block_size(seed: int, rows: int, columns: int) -> None:
    case = random_case(seed)
    heads = case.heads
    rows, columns = min(rows, heads.rows), min(columns, heads.columns)
    runs = {
        "2": (
            lambda run: named_runs.flash_attention_2(run, rows, columns),
            flash_attention_2_words(heads, rows, columns),
        ),
        "1": (
            lambda run: named_runs.flash_attention_1(run, rows, columns, printed=False),
            flash_attention_1_words(heads, rows, columns, printed=False),
        ),
        "1 as printed": (
            lambda run: named_runs.flash_attention_1(run, rows, columns, printed=True),
            flash_attention_1_words(heads, rows, columns, printed=True),
        ),
    }
    for name, (execute, words) in runs.items():
        run = Attention(*case.inputs(), case.keys, flash_footprint(heads, rows, columns))
        execute(run)
        assert run.machine.words == words, name
        assert np.allclose(run.result(), case.expected()), name


def execute(case: Case, name: str, blocks: str, capacity: float) -> Attention:
    run = Attention(*case.inputs(), case.keys, capacity)
    if name == "tiling":
        run_described(run, blocks)
    elif name == "flat":
        named_runs.flat(run, int(blocks.split()[0]))
    elif name == "unfused":
        scores, softmax, product = blocks.removeprefix("scores: ").split(", ", 2)
        family, _, tile = scores.rpartition(" ")
        sizes = [int(n) for n in tile.split("x")]
        {
            "Q resident": lambda: attention_runs.scores_q_resident(run, sizes[0]),
            "K resident": lambda: attention_runs.scores_k_resident(run, sizes[0]),
            "S tiles": lambda: attention_runs.scores_tiled(run, *sizes),
        }[family]()
        if softmax == "softmax: rows resident":
            named_runs.softmax_resident(run)
        else:
            named_runs.softmax_two_passes(run)
        attention_runs.outputs_tiled(run, *[int(n) for n in product.split()[1].split("x")], online=False)
    else:
        rows, columns = (int(n) for n in blocks.split("x"))
        if "1" in name:
            named_runs.flash_attention_1(run, rows, columns, printed=name.endswith("paper"))
        else:
            named_runs.flash_attention_2(run, rows, columns)
    return run


@pytest.mark.parametrize("name", SCHEDULES)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=15)
def test_a_named_schedule_that_fits_runs_in_the_memory_and_moves_its_words(name: str, seed: int) -> None:
    case = random_case(seed)
    traffic = named_schedule(name, case.heads, MEMORIES)
    for memory, words, fits, blocks in zip(MEMORIES, traffic.words, traffic.fits, traffic.blocks, strict=True):
        run = execute(case, name, blocks, memory if fits else np.inf)
        assert run.machine.words == words
        assert np.allclose(run.result(), case.expected())


@pytest.mark.parametrize(
    ("heads", "memory", "words", "fits"),
    [
        (Heads(Intervals.dense(4096, 4096), 64, 64), 98304, (9625600, 5062656, 34078720, 3670016), True),
        (Heads(Intervals.dense(8192, 8192), 128, 128), 16384, (816857088, 423755776, 538968064, 281018368), False),
        (Heads(Intervals.dense(512, 512), 64, 64), 81920, (300032, 131072, 589824, 131072), True),
        (Heads(Intervals.band(4096, 4096, None, 0), 128, 128), 114688, (17274880, 9241784, 19128320, 6820352), False),
        (Heads(Intervals.dense(1, 32768), 128, 128, group=8), 16384, (11568144, 10029568, 8390656, 8390656), True),
    ],
)
def test_worked_cases(heads: Heads, memory: int, words: tuple[int, ...], fits: bool) -> None:
    names = ("flash-attention-1-paper", "flash-attention-1", "flash-attention-2-paper", "flash-attention-2")
    found = {name: named_schedule(name, heads, np.array([float(memory)])) for name in names}
    assert tuple(int(found[name].words[0]) for name in names) == words
    assert [bool(found[name].fits[0]) for name in names] == [fits, True, fits, True]


@pytest.mark.parametrize("d", [16, 64, 128])
def test_the_paper_blocks_fit_from_8_d_squared_on(d: int) -> None:
    heads = Heads(Intervals.dense(10**5, 10**5), d, d)
    memory = np.arange(4 * d * d, 12 * d * d, 4 * d, dtype=float)
    fits = named_schedule("flash-attention-1-paper", heads, memory).fits
    assert np.array_equal(fits, memory >= 8 * d * d + 8 * d)


def test_an_unknown_schedule_is_named_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'flash-attention-2'"):
        named_schedule("flash-atention-2", Heads(Intervals.dense(4, 4), 2, 2), np.array([100.0]))
