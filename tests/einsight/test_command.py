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
    ("arguments", "sentence"),
    [
        (["simulat"], "unknown command 'simulat' (did you mean 'simulate'?)"),
        (["simulate", "--mappin", "flat"], "no such option '--mappin'"),
        (["simulate", "--fidelity", "exact"], "'exact' is not one of 'analytic', 'event'"),
        (["simulate"], "missing option '--mapping'"),
        (["simulate", "--mapping"], "option '--mapping' requires an argument"),
        (["passes"], "missing argument 'CASCADE'"),
        (["list", "maping"], "unknown kind 'maping' (did you mean 'mapping'?)"),
        (["list", ""], "unknown kind ''"),
        (["show", "/dev/null"], "/dev/null: there is no such file"),
        (["show", "attention-1pass", "--out", ""], "must end in .svg"),
        (["simulate", *MODEL, "--fidelity", "event", "--trace", ""], "is a folder"),
        (["show", "atention-1pass"], "(did you mean 'attention-1pass'?)"),
        (["show", "cascades"], "which cascade?"),
        (["show", "cascade", "fusemax"], "unknown cascade 'fusemax'"),
        (["show", "fusemax", "--set", "w=3"], "no variable 'w' (did you mean 'W'?)"),
        (["show", "bert-base", "--out", "x.svg"], "there is no drawing of it"),
        (["passes", "atention-1pass"], "unknown cascade 'atention-1pass' (did you mean 'attention-1pass'?)"),
        (["passes", "attention-1pass", "--rank", "z"], "unknown rank 'z'"),
        (["simulate", *MODEL, "--cascade", "x"], "unknown cascade 'x'"),
        (["simulate", *MODEL, "--architecture", "fusemx"], "unknown architecture 'fusemx' (did you mean 'fusemax'?)"),
        (["simulate", "--mapping", "flatt"], "unknown mapping 'flatt' (did you mean 'flat'?)"),
        (["simulate", *MODEL[:2], "--workload", "bert"], "unknown workload 'bert'"),
        (["simulate", *MODEL, "--set", "L"], "--set: expected NAME=VALUE, found 'L'"),
        (["simulate", *MODEL, "--set", "=3"], "--set: expected NAME=VALUE, found '=3'"),
        (["simulate", *MODEL, "--set", "L="], "--set: expected NAME=VALUE, found 'L='"),
        (["simulate", *MODEL, "--set", "L=1", "--set", "L=2"], "--set: L is given twice"),
        (["simulate", *MODEL, "--set", "L=1 parsec"], "--set L: "),
        (["simulate", *MODEL, "--set", "L=1/0"], "--set L: division by zero"),
        (["simulate", *MODEL, "--set", "l=1024"], "unknown variable 'l' (did you mean 'L'?)"),
        (["simulate", *MODEL, "--set", "L=many"], "L"),
        (["simulate", *MODEL, "--set", "L=-1024"], "L"),
        (["simulate", *MODEL, "--set", "L=0"], "L"),
        (["simulate", *MODEL, "--set", "L=1.5"], "L"),
        (["simulate", *MODEL, "--set", "dram_bandwidth=0"], "DRAM"),
        (["simulate", *MODEL, "--trace", "t.json"], "fidelity event"),
        (["run", "missing.yaml"], "missing.yaml: there is no such file"),
    ],
)
def test_bad_input_is_one_clear_sentence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("einsight: ")
    assert ran.err.count("\n") == 1
    assert sentence in ran.err
    assert list(tmp_path.iterdir()) == []


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
