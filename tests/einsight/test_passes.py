"""`einsight passes`: the counts, the chains that force them, and what is kept between passes."""

from __future__ import annotations

import pytest

from tests.einsight.conftest import Run

COUNTS = {
    "attention-3pass": 3,
    "attention-3pass-deferred": 2,
    "attention-unstable": 2,
    "attention-unstable-deferred": 1,
    "attention-2pass": 2,
    "attention-1pass": 1,
}
"""Passes over the keys, from the FuseMax paper (MICRO 2024, arXiv 2406.10491), section III and table I."""


@pytest.mark.parametrize(("cascade", "passes"), COUNTS.items())
def test_passes_over_the_keys(run: Run, cascade: str, passes: int) -> None:
    ran = run("passes", cascade, "--rank", "M", "--json")
    assert ran.document["ranks"]["m"]["passes"] == passes
    text = run("passes", cascade, "--rank", "m").out
    assert f"passes   {passes}\n" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_chain_that_forces_a_pass_is_shown(run: Run) -> None:
    rank = run("passes", "attention-3pass", "--rank", "m", "--json").document["ranks"]["m"]
    assert {name: einsum["pass"] for name, einsum in rank["einsums"].items()} == {
        "QK": 1, "GM": 1, "SN": 2, "SD": 2, "A": 3, "AV": 3,
    }  # fmt: skip
    assert rank["einsums"]["A"]["chain"] == ["QK", "GM", "SN", "SD", "A"]


def test_what_is_kept_is_counted_where_the_sizes_are_known(run: Run) -> None:
    unknown = run("passes", "attention-3pass", "--rank", "m", "--json").document["ranks"]["m"]["live"]
    assert [(fiber["tensor"], fiber["words"]) for fiber in unknown] == [("QK", "M"), ("SN", "M")]
    known = run("passes", "attention-3pass", "--rank", "m", "--set", "M=1Ki", "--json").document["ranks"]["m"]["live"]
    assert [fiber["words"] for fiber in known] == [1024, 1024]


def test_without_a_rank_every_rank_is_counted(run: Run) -> None:
    ranks = run("passes", "attention-1pass", "--json").document["ranks"]
    assert list(ranks) == ["b", "h", "p", "m", "e", "f"]
    assert {rank["passes"] for rank in ranks.values()} == {1}
    assert "attention-3pass" in run("passes", "attention-3pass").out


def test_an_unknown_size_is_refused(run: Run) -> None:
    ran = run("passes", "attention-3pass", "--set", "m=3")
    assert ran.code == 2
    assert "unknown variable 'm'" in ran.err
