"""Code blocks of the Markdown pages: reading them, running them, and writing what they print back into the pages.

    einsight ...       in a `sh` block runs, in order, in one folder for each page that looks like the repository
    ```python          runs, with the variables of the page's earlier blocks
    ```yaml            is read; with `<!-- file: NAME -->` above it, it is a file for what follows
    ```text            directly below one of these is what it prints: a line `…` stands for lines that are left out, an
                       ellipsis inside a line for anything; how wide columns are does not count
    <!-- not run: REASON -->   above a block: its commands are only parsed
    <!-- drawing: WHAT -->     above a text block that is nobody's output

`python -m tests.docs.blocks` runs every block and writes its output into the page; `make outputs` does the same.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docs.generate.accuracy import with_table

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
_BLOCK = re.compile(
    r"(?:^<!-- *(?P<mark>[a-z ]+): *(?P<value>.*?) *-->\n+)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
MAIN_JOB = "einsight run docs/examples/fusemax-bert.yaml --out out/fusemax-bert"
"""What `make run` runs."""


@dataclass(frozen=True)
class Block:
    """A code block: its language, its text, the mark above it, and the output that stands directly below it."""

    page: Path
    line: int
    kind: str
    text: str
    mark: str = ""
    value: str = ""
    shown: Block | None = None

    @property
    def commands(self) -> list[str]:
        """Its lines without comments, those that end in a backslash joined with the next."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [" ".join(line.split()) for line in (re.sub(r"(^|\s)# .*$", "", line).strip() for line in lines) if line]


def read_blocks(page: Path) -> list[Block]:
    """The blocks of a page; a text block that shows output is part of the block above it."""
    text = page.read_text(encoding="utf-8")
    blocks: list[Block] = []
    end = 0
    for found in _BLOCK.finditer(text):
        block = Block(
            page,
            text.count("\n", 0, found.start("text")),
            found["kind"],
            found["text"],
            found["mark"] or "",
            found["value"] or "",
        )
        if (
            blocks
            and block.kind == "text"
            and blocks[-1].kind in ("sh", "python")
            and not text[end : found.start()].strip()
        ):
            last = blocks.pop()
            block = Block(page, last.line, last.kind, last.text, last.mark, last.value, block)
        blocks.append(block)
        end = found.end()
    return blocks


@dataclass
class Runner:
    """Runs the blocks of one page in `folder`, which gets links to everything in the repository."""

    folder: Path
    names: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for entry in ROOT.iterdir():
            if not entry.name.startswith(".") and entry.name not in ("out", "site", "build"):
                (self.folder / entry.name).symlink_to(entry)

    def run(self, block: Block) -> str:
        """Run a block and return what it prints to standard output. AssertionError where it fails."""
        with chdir(self.folder):
            if block.kind == "python":
                with redirect_stdout(io.StringIO()) as out:
                    exec(compile(block.text, f"{block.page.name}:{block.line}", "exec"), self.names)
                return out.getvalue()
            if block.kind == "yaml":
                return self._yaml(block)
            return "".join(map(self._command, block.commands)) if block.kind == "sh" else ""

    def _yaml(self, block: Block) -> str:
        from einsum.specfile import parse_yaml

        parse_yaml(block.text)
        if block.mark == "file":
            Path(block.value).write_text(block.text, encoding="utf-8")
        return ""

    def _command(self, line: str) -> str:
        from einsight.command import main

        line = MAIN_JOB if line == "make run" else line
        check_command(line)
        if not line.startswith("einsight "):
            return ""
        for out in re.findall(r"--(?:out|export) (\S+)", line):
            Path(out).parent.mkdir(parents=True, exist_ok=True)
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = main(shlex.split(line)[1:])
        assert code == 0, f"{line}: {err.getvalue()}"
        assert max(map(len, out.getvalue().splitlines()), default=0) <= 100, f"{line}: wider than a terminal"
        return out.getvalue()


def check_command(line: str) -> None:
    """Check what can be checked without running it; AssertionError for a command that does not exist."""
    words = shlex.split(line)
    if words[0] == "einsight":
        _parse(words[1:])
    elif words[0] == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
        assert set(words[1:]) <= targets | {word for word in words if "=" in word}, line
    elif words[:2] == ["python", "-m"]:
        assert (ROOT / (words[2].replace(".", "/") + ".py")).exists(), line
    else:
        assert words[0] in ("pip", "git", "cd", "eval"), f"a page names a command that nothing checks: {line}"


def _parse(arguments: list[str]) -> None:
    """Read the arguments as the command would, without running it."""
    import click

    from einsight.command import einsight

    if not arguments or arguments[0].startswith("-"):
        assert set(arguments) <= {"--help", "--version"}
        return
    command = einsight.get_command(click.Context(einsight), arguments[0])
    assert command is not None, f"there is no command '{arguments[0]}'"
    command.make_context(
        arguments[0],
        [word for word in arguments[1:] if word not in ("--help", "-h")],
        resilient_parsing="--help" in arguments,
    )


def shows(shown: str, output: str) -> bool:
    """Whether a page shows `output`, up to the width of columns and what an ellipsis stands for."""
    lines = [re.escape(narrowed(line)).replace("…", ".*?") for line in shown.strip("\n").split("\n")]
    pattern = "\n".join(lines).replace("\n.*?\n", "\n(?:.*\n)*?")
    pattern = re.sub(r"^\.\*\?\n", r"(?:.*\n)*?", pattern)
    pattern = re.sub(r"\n\.\*\?$", r"(?:\n.*)*", pattern)
    text = "\n".join(map(narrowed, output.strip("\n").split("\n")))
    return re.fullmatch(pattern, text) is not None


def narrowed(line: str) -> str:
    """A line without the width of its columns."""
    return re.sub(r"─+", "─", " ".join(line.split()))


def refreshed(shown: str, output: str) -> str:
    """What a page should show of `output`: all of it, or of each part between ellipses the lines most like it."""
    if shows(shown, output):
        return shown
    lines = [line.rstrip() for line in output.strip("\n").split("\n")]
    parts = [part.strip("\n").split("\n") for part in re.split(r"^…$", shown, flags=re.MULTILINE)]
    if len(parts) == 1:
        return "\n".join(lines) + "\n"
    start, texts = 0, []
    for part in parts:
        if part == [""]:
            texts.append("")
            continue
        start = max(
            range(start, max(len(lines) - len(part), start) + 1),
            key=lambda at: _likeness(part, lines[at : at + len(part)]),
        )
        texts.append("\n".join(lines[start : start + len(part)]) + "\n")
        start += len(part)
    return "…\n".join(texts)


def _likeness(shown: list[str], lines: list[str]) -> float:
    texts = [re.sub(r"\d", "0", "\n".join(map(narrowed, part))) for part in (shown, lines)]
    return difflib.SequenceMatcher(None, *texts, autojunk=False).ratio()


def refresh(page: Path) -> Iterator[str]:
    """Run a page's blocks and write what they print into it; yields a line for each block that has changed."""
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(Path(folder))
        for block in read_blocks(page):
            output = "" if block.mark == "not run" else runner.run(block)
            if block.shown and block.mark != "not run":
                new = refreshed(block.shown.text, output)
                if new != block.shown.text:
                    text = text.replace(f"```text\n{block.shown.text}```", f"```text\n{new}```")
                    yield f"{page.name}:{block.line}"
    if with_table(text) != text:
        text = with_table(text)
        yield f"{page.name}: the table of accuracy"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    for place in PAGES:
        for line in refresh(place):
            print(line, file=sys.stderr)
