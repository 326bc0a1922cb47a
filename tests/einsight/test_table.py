"""The table printer: aligned, complete, and at most 100 columns wide."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from einsight.table import Column, render_fields, render_table

WORDS = st.lists(st.text("abc.+/", min_size=1, max_size=14), max_size=12).map(" ".join)


def test_numbers_stand_at_the_right() -> None:
    text = render_table(["name", Column("bytes", right=True)], [["a", "1"], ["long name", "1,000"]])
    assert text.splitlines() == ["name       bytes", "─────────  ─────", "a              1", "long name  1,000"]


def test_long_titles_give_way_before_cells_do() -> None:
    columns = [Column("a very long title", right=True), Column("another long title", right=True)]
    text = render_table(columns, [["1.5 ms", "20 GiB"]], width=20)
    assert max(map(len, text.splitlines())) <= 20
    assert text.splitlines()[-1].split() == ["1.5", "ms", "20", "GiB"]
    assert " ".join(text.splitlines()[:-2]).split().count("long") == 2


@given(st.lists(st.tuples(WORDS, WORDS, st.integers(0, 10**9).map(str)), max_size=6))
@settings(max_examples=60)
def test_no_word_is_cut_and_no_line_is_too_long(rows: list[tuple[str, str, str]]) -> None:
    text = render_table(["first", "second", Column("number", right=True)], rows)
    assert max(map(len, text.splitlines())) <= 100
    assert sorted(text.split()[3 + 3 :]) == sorted(" ".join(" ".join(row) for row in rows).split())


def test_a_table_that_is_too_wide_is_cut_between_groups_and_keeps_its_keys() -> None:
    columns = ["design", *(Column(f"n{i}", right=True, joined=bool(i % 3)) for i in range(9))]
    rows = [[name, *(f"{name}{i:07d}" for i in range(9))] for name in "ab"]
    parts = [part.splitlines() for part in render_table(columns, rows, width=70).split("\n\n")]
    assert [part[0].split() for part in parts] == [
        ["design", "n0", "n1", "n2", "n3", "n4", "n5"], ["design", "n6", "n7", "n8"],
    ]  # fmt: skip
    assert all([row.split()[0] for row in part[2:]] == ["a", "b"] for part in parts)
    two = render_table(columns, rows, width=70, keys=4).split("\n\n")
    assert [part.split()[:4] for part in two] == 2 * [["design", "n0", "n1", "n2"]]


def test_fields_are_wrapped_under_each_other() -> None:
    text = render_fields([("source", "word " * 30), ("a", "b")], width=40)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[0].startswith("source  word")
    assert all(line.startswith("        word") for line in lines[1:-1])
    assert lines[-1] == "a       b"


def test_an_empty_table_still_has_its_titles() -> None:
    assert render_table(["a", "b"], []).splitlines() == ["a  b", "─  ─"]
