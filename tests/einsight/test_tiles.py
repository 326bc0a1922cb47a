"""`einsight tiles` as a user sees it."""

from __future__ import annotations

import pytest

from tests.einsight.conftest import Run


def test_a_causal_mask_leaves_half_of_the_tiles_to_all_and_everything_to_the_last(run: Run) -> None:
    sizes = ["--set", "P=512", "--set", "M=512", "--rows", "p=128", "--columns", "m=64", "--json"]
    document = run("tiles", "attention-3pass", "--where", "m <= p", *sizes).document
    assert document["visited"] == {"least": 2, "mean": 5.0, "most": 8}  # 2, 4, 6, 8
    assert document["whole"] == {"least": 0, "mean": 3.0, "most": 6}
    assert document["speedup_bound"] == 1.0
    assert document["mean_speedup"] == pytest.approx(8 / 5)


def test_bounds_of_a_neighborhood_are_shown(run: Run) -> None:
    mask = [f"--set={setting}" for setting in ("X=256", "Y=256", "WX=80", "WY=80", "SX=16", "SY=16")]
    tiles = ["--rows", "px=16,py=16", "--columns", "mx=16,my=8", "--share", "0.518"]
    shown = run("tiles", "attention-neighborhood", *mask, *tiles).out
    assert "at most 10.240x" in shown
    assert "at most 1.878x" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "p=12.5", "--columns", "m=1"], "--rows: expected a whole number, found p=12.5"),
        (["--rows", "p=12", "--columns", "z=1"], "has no rank 'z'"),
        (["--rows", "p=12", "--columns", "m=1", "--set", "Q=4"], "set: unknown variable 'Q'"),
        (["--rows", "p=12", "--columns", "m=1"], "no value is given for"),
        (["--rows", "p", "--columns", "m=1"], "--rows: expected NAME=VALUE, found 'p'"),
        (["--rows", "p=1", "--columns", "m=1", "--share", "2"], "share"),
    ],
)
def test_mistakes_are_one_sentence(run: Run, arguments: list[str], message: str) -> None:
    ran = run("tiles", "attention-3pass", *arguments)
    assert ran.code == 2
    assert message in ran.err
    assert ran.err.count("\n") == 1
    assert not ran.out
