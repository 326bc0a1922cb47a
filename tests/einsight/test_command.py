"""The command as a whole: help, exit codes, and one clear sentence for every kind of bad input."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from einsight.command import COMMANDS
from tests.einsight.conftest import Run

MODEL = ("--mapping", "fusemax-binding", "--workload", "bert-base")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder of files that are no descriptions."""
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (tmp_path / "bomb.yaml").write_text("\n".join(bomb))
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    (tmp_path / "broken.yaml").write_text("mapping: [1, 2\n")
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)) * 16)
    (tmp_path / "large.yaml").write_text("x: 1\n# " + "-" * 11_000_000)
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "object.yaml").write_text("mapping: !!python/object/apply:os.system ['true']\n")
    return tmp_path


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_help_lists_every_subcommand(run: Run, arguments: list[str]) -> None:
    ran = run(*arguments)
    assert ran.code == 0
    assert all(re.search(rf"^  {name} ", ran.out, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_has_help_with_an_example(run: Run, name: str) -> None:
    ran = run(name, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"Example: einsight {name}" in " ".join(ran.out.split())
    assert max(map(len, ran.out.splitlines())) <= 100


def test_the_version_is_that_of_the_distribution(run: Run) -> None:
    assert re.fullmatch(r"einsight, version \d+\.\d+\.\d+\n", run("--version").out)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("bomb.yaml", "expands to more than"),
        ("list.yaml", "expected a mapping of keys to values, found a list"),
        ("broken.yaml", "line "),
        ("binary.yaml", "not UTF-8 text"),
        ("large.yaml", "larger than 10 MB"),
        ("object.yaml", "line 1"),
        ("folder.yaml", ""),
        ("missing.yaml", "there is no such"),
    ],
)
@pytest.mark.parametrize("option", ["--cascade", "--architecture", "--mapping", "--workload", "run", "show", "passes"])
def test_a_file_that_is_no_description_is_named(run: Run, files: Path, option: str, name: str, sentence: str) -> None:
    path = files / name
    if option.startswith("--"):
        others = [word for pair in zip(MODEL[::2], MODEL[1::2], strict=True) if pair[0] != option for word in pair]
        ran = run("simulate", *others, option, path)
    else:
        ran = run(option, path)
    assert ran.code == 2
    assert (ran.out, ran.err.count("\n")) == ("", 1)
    assert str(path) in ran.err
    assert sentence in ran.err


@pytest.mark.parametrize("place", ["folder.yaml", "missing/trace.json", "list.yaml/trace.json"])
def test_a_trace_that_cannot_be_written_is_said_before_the_work(run: Run, files: Path, place: str) -> None:
    ran = run("simulate", *MODEL, "--fidelity", "event", "--trace", files / place)
    assert ran.code == 2
    assert ran.err.startswith(f"einsight: {files / place}: ")
    assert not list(files.glob(".*"))


def test_output_that_nobody_reads_is_no_error() -> None:
    program = [sys.executable, "-m", "einsight", "list"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode in (0, 1)
