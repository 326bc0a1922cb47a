"""README.md and docs/*.md: every command and code block runs, and prints what the page says it prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.generate.accuracy import BEGIN, with_table
from tests.docs.blocks import MAIN_JOB, PAGES, ROOT, Block, Runner, check_command, read_blocks, refreshed, shows

NAMES = [page.name for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_of_a_page_runs_and_prints_what_is_shown(page: Path, tmp_path: Path) -> None:
    runner = Runner(tmp_path)
    for block in read_blocks(page):
        if block.mark == "not run":
            for line in block.commands if block.kind == "sh" else ():
                check_command(line)
            continue
        output = runner.run(block)
        if block.shown:
            assert shows(block.shown.text, output), (
                f"line {block.shown.line}; `make outputs` writes what is printed:\n{output}"
            )


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in read_blocks(page):
        assert block.kind in ("sh", "python", "yaml", "text"), f"line {block.line}"
        assert block.mark in ("", "not run", "file", "drawing"), f"line {block.line}"
        assert block.kind != "text" or block.mark, f"line {block.line}: output stands directly below its command"
        assert block.mark == "" or len(block.value) > 5, f"line {block.line}: say why, or which file"
    outside = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert not re.findall(r"^ {4,}einsight .*", outside, re.MULTILINE), "commands stand in sh blocks"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    from docs.generate.hook import PAGES as GENERATED

    for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        generated = page.parent == ROOT / "docs" and link in GENERATED
        assert "://" in link or generated or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", [page for page in PAGES if BEGIN in page.read_text(encoding="utf-8")], ids=str)
def test_the_table_of_accuracy_is_what_is_measured(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert with_table(text) == text, "`make outputs` writes it"


def test_the_main_job_of_the_makefile_is_the_one_that_is_tested() -> None:
    assert f"$(BIN)/{MAIN_JOB}" in (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("shown", "output", "same"),
    [
        ("a  1\n", "a 1\n", True),
        ("a 1\n", "a 2\n", False),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\nd\n", "a\nd\n", True),
        ("a\n…\n", "a\nb\n", True),
        ("…\nb\n", "a\nb\n", True),
        ("…\na\n", "a\nb\n", False),
        ("took … s\n", "took 3.2 s\n", True),
        ("a.c\n", "abc\n", False),
        ("─── ──\n", "─ ───\n", True),
        ("a\n", "a\nb\n", False),
    ],
)
def test_ellipses_stand_for_what_is_left_out(shown: str, output: str, same: bool) -> None:
    assert shows(shown, output) == same


def test_shown_parts_are_refreshed_by_the_lines_most_like_them() -> None:
    output = "name  cost\nflat  12 s\nbest  3 s\nlast  4 s\n"
    assert refreshed("name cost\n…\nbest  9 s\n…\n", output) == "name  cost\n…\nbest  3 s\n…\n"
    assert refreshed("old\n", output) == output


def test_commands_are_joined_and_comments_left_out() -> None:
    block = Block(ROOT, 1, "sh", "einsight a \\\n  --set b=1   # why\n# nothing\nmake run\n")
    assert block.commands == ["einsight a --set b=1", "make run"]


@pytest.mark.parametrize(
    "line", ["einsight simulat", "einsight list --jsn", "make nothing", "rm -rf x", "python -m kernels.nothing"]
)
def test_commands_that_do_not_exist_are_found(line: str) -> None:
    import click

    with pytest.raises((AssertionError, click.ClickException)):
        check_command(line)
