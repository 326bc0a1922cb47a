"""README.md: its commands run, and print what it says they print.

A line that is only an ellipsis stands for lines that are left out; how wide columns are does not count.
"""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from einsight.command import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
MAIN_JOB = "einsight run docs/examples/fusemax-bert.yaml"


def commands(block: str) -> list[str]:
    """The `einsight` commands of a shell block; what `make run` prints is what its experiment prints."""
    lines = [line.split("  #")[0].strip() for line in block.splitlines()]
    lines = [MAIN_JOB if line.split(" ")[:2] == ["make", "run"] else line for line in lines]
    return [line for line in lines if line.startswith("einsight ")]


SHOWN = [
    (commands(shell)[0], text)
    for (kind, shell), (next_kind, text) in pairwise(BLOCKS)
    if kind == "sh" and next_kind == "text" and commands(shell)
]


def printed(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(shlex.split(command)[1:]) == 0
    return capsys.readouterr().out


def narrowed(text: str) -> str:
    return re.sub(r"[ ─]+", " ", text)


def test_outputs_are_shown() -> None:
    assert len(SHOWN) >= 4


@pytest.mark.parametrize(("command", "text"), SHOWN)
def test_a_command_prints_what_the_readme_shows(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, text: str
) -> None:
    monkeypatch.chdir(ROOT)
    output = printed(command, capsys)
    for part in re.split(r"^…$", text, flags=re.MULTILINE):
        assert narrowed(part).strip() in narrowed(output)


@pytest.mark.parametrize("command", [line for kind, block in BLOCKS if kind == "sh" for line in commands(block)])
def test_every_command_of_the_readme_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.chdir(ROOT)
    assert printed(re.sub(r"--out \S+/?(\w+\.svg)", rf"--out {tmp_path}/\1", command), capsys) or "--out" in command


@pytest.mark.parametrize("program", [block for kind, block in BLOCKS if kind == "python"])
def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str], program: str) -> None:
    exec(compile(program, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_links_of_the_readme_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]
