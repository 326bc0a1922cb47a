"""The options of all subcommands side by side: one name for one thing; and what the shell completes."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.shell_completion import BashComplete

from einsight.command import COMMANDS, einsight
from einsight.documents import DOCUMENTS
from tests.einsight.conftest import Run

MODELS = ("cascade", "architecture", "mapping", "workload")


def options(name: str) -> dict[str, click.Option]:
    command = einsight.get_command(click.Context(einsight), name)
    assert command is not None
    return {option.opts[0]: option for option in command.params if isinstance(option, click.Option)}


ALL = {name: options(name) for name in COMMANDS}


def test_an_option_of_several_subcommands_means_the_same_in_each() -> None:
    for name in {option for found in ALL.values() for option in found}:
        users = [found[name] for found in ALL.values() if name in found]
        texts = {(user.help or "").split(":")[0].split(".")[0] for user in users}
        assert len(texts) == 1 or name == "--out", f"{name}: {texts}"
        assert len({user.is_flag for user in users}) == 1
        assert len({user.metavar for user in users}) == 1 or name == "--out"


@pytest.mark.parametrize("name", COMMANDS)
def test_options_follow_the_conventions(name: str) -> None:
    found = ALL[name]
    assert ("--json" in found) == (name in DOCUMENTS), "every subcommand but `schema` prints a document"
    order = [f"--{kind}" for kind in MODELS] + ["--set"]
    shared = [option for option in found if option in order]
    assert shared == sorted(shared, key=order.index) == list(found)[: len(shared)] or "--rank" in found, "models, --set"
    assert list(found)[-1:] == ["--json"] or name == "schema"
    if "--out" in found:
        metavar = found["--out"].metavar or ""
        assert metavar == "DIR" or metavar.startswith("FILE."), "a folder, or a file of a kind"
        assert "--json" not in found or list(found)[-2] == "--out" or name in ("measure", "sweep")
    for kind in MODELS:
        if f"--{kind}" in found:
            assert "--set" in found, "what can be named can be varied"
            assert "a library name or a YAML file" in (found[f"--{kind}"].help or "")


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        ([], "sim", ["simulate"]),
        (["simulate"], "--arch", ["--architecture"]),
        (["simulate", "--mapping"], "fusemax-b", ["fusemax-binding"]),
        (["simulate", "--workload"], "bert", ["bert-base", "bert-large"]),
        (["bounds", "--cascade"], "matm", ["matmul"]),
        (["map", "--objective"], "e", ["edp", "energy"]),
        (["show"], "gpu-only", ["gpu-only"]),
        (["list"], "ma", ["mapping"]),
        (["passes"], "attention-3pass-", ["attention-3pass-deferred"]),
        (["measure"], "q", ["quick"]),
        (["compare"], "h100-sxm-h", ["h100-sxm-holdout"]),
        (["schema"], "sim", ["simulate"]),
    ],
)
def test_the_shell_completes_names(words: list[str], incomplete: str, offered: list[str]) -> None:
    shell = BashComplete(einsight, {}, "einsight", "_EINSIGHT_COMPLETE")
    assert [item.value for item in shell.get_completions(words, incomplete)] == offered


@pytest.mark.parametrize(("words", "incomplete"), [(["run"], "docs/exa"), (["simulate", "--mapping"], "./my")])
def test_the_shell_completes_files_where_no_name_fits(words: list[str], incomplete: str) -> None:
    shell = BashComplete(einsight, {}, "einsight", "_EINSIGHT_COMPLETE")
    assert [item.type for item in shell.get_completions(words, incomplete)] == ["file"]


def test_the_completion_script_is_printed() -> None:
    program = "import sys; sys.argv = ['einsight']; from einsight.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], env={"_EINSIGHT_COMPLETE": "bash_source", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "complete -o nosort -F" in done.stdout


def test_the_doctor_says_what_is_missing_and_how_to_get_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import einsight.doctor

    known = einsight.doctor._version
    monkeypatch.setattr(einsight.doctor, "_version", lambda name: None if name == "pymoo" else known(name))
    ran = run("doctor", "--json")
    parts = {part["needs"]: part for part in ran.document["features"]}
    assert ran.code == 0
    assert parts["pymoo"] | {"feature": ""} == {
        "feature": "", "needs": "pymoo", "found": None, "get": "pip install 'einsight[search]'",
    }  # fmt: skip
    assert parts["numpy"]["found"] and parts["numpy"]["get"] is None
    assert {"torch", "triton", "distributed", "pyarrow", "ncu", "chromium"} <= parts.keys()
    text = run("doctor").out
    assert "einsight[search]" in text
    assert max(map(len, text.splitlines())) <= 100
