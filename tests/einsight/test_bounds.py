"""`einsight bounds`: the table, the JSON list, the report, and bad input."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.einsight.conftest import Run

ATTENTION = ("bounds", "--cascade", "attention-1pass", "--set", "N=512", "--set", "d=64")


def test_every_size_has_a_bound_a_schedule_and_a_gap(run: Run) -> None:
    rows = run(*ATTENTION, "--fast-memory", "4096,81920", "--schedules", "flash-attention-2", "--json").document
    assert [row["fast_memory_words"] for row in rows] == [4096, 81920]
    assert rows[1]["lower_bound_words"] == 4 * 512 * 64  # everything fits: each word moves once
    assert rows[1]["gap"] == 1
    for row in rows:
        assert row["lower_bound_words"] <= row["best_schedule_words"] <= row["schedules"]["flash-attention-2"]["words"]
        assert row["label"] and row["theorem"] and row["certificate"]


def test_the_table_fits_and_names_the_best_schedule(run: Run) -> None:
    text = run(*ATTENTION, "--mask", "causal", "--fast-memory", "16KiB:1MiB:log").out
    assert max(map(len, text.splitlines())) <= 100
    assert "compulsory" in text and "mask        causal" in text


def test_the_report_is_written_whole(run: Run, tmp_path: Path) -> None:
    run(*ATTENTION, "--out", str(tmp_path / "report"))
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"bounds.md", "bounds.html", "bounds.json"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fast-memory", "2"), "words"),
        (("--fast-memory", "1MiB:1KiB:log"), "ends below its start"),
        (("--label", "recompute-saf"), "did you mean 'recompute-safe'"),
        (("--schedules", "flash-attention-9"), "no schedule is called"),
        (("--mask", "causl"), "mask"),
        (("--word-bytes", "0"), "positive"),
        (("--measured", "nowhere.csv"), "cannot be read"),
        (("--architecture", "fusemx"), "did you mean 'fusemax'"),
        (("--set", "B=0"), "1"),
    ],
)
def test_bad_input_is_one_sentence(run: Run, options: tuple[str, ...], message: str) -> None:
    ran = run(*ATTENTION, *options)
    assert ran.code == 2
    assert message in ran.err
    assert not ran.out
    assert len(ran.err.strip().splitlines()) == 1
