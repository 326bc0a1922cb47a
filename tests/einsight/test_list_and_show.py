"""Listing the libraries and showing what they hold, as text and as drawings."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from einsum import Cascade, list_library
from tests.einsight.conftest import Run

KINDS = ("cascade", "architecture", "mapping", "workload")
NAMES = [(kind, name) for kind in KINDS for name in list_library(kind)]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_listed_by_its_singular_and_its_plural(run: Run, kind: str) -> None:
    singular, plural = run("list", kind, "--json").document, run("list", kind + "s", "--json").document
    assert singular == plural
    assert [entry["name"] for entry in singular] == list(list_library(kind))
    assert {entry["kind"] for entry in singular} == {kind}


def test_everything_in_the_libraries_is_listed_and_described(run: Run) -> None:
    listed = run("list", "--json").document
    assert [(entry["kind"], entry["name"]) for entry in listed] == NAMES
    assert not [entry["name"] for entry in listed if not entry["description"]]
    text = run("list").out
    assert all(name in text for _, name in NAMES)
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(("kind", "name"), NAMES)
def test_everything_in_the_libraries_is_shown(run: Run, kind: str, name: str) -> None:
    ran = run("show", kind, name)
    assert (ran.code, ran.err) == (0, "")
    assert len(ran.out.splitlines()) > 3
    assert max(map(len, ran.out.splitlines())) <= 100


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, name in NAMES if kind != "workload"])
def test_drawings_are_complete_documents(run: Run, tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / "drawing.svg"
    ran = run("show", kind, name, "--out", path)
    assert (ran.code, ran.out, ran.err) == (0, "", f"wrote {path}\n")
    text = path.read_text(encoding="utf-8")
    assert ElementTree.fromstring(text).tag == f"{SVG}svg"
    assert not re.search(r"(href|src)=|url\((?!#)", text), "a drawing needs nothing else"


@pytest.mark.parametrize("name", list_library("cascade"))
def test_the_graph_of_a_cascade_shows_each_einsum_input_and_dependence(run: Run, tmp_path: Path, name: str) -> None:
    cascade = Cascade.load(name)
    run("show", "cascade", name, "--out", tmp_path / "drawing.svg")
    root = ElementTree.parse(tmp_path / "drawing.svg").getroot()
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {str(einsum.output) for einsum in cascade.einsums} <= set(texts)
    assert {str(cascade.access(tensor.name)) for tensor in cascade.inputs} <= set(texts)
    reads = {(access.tensor, einsum.name) for einsum in cascade.einsums for access in einsum.inputs}
    arrows = {path.findtext(f"{SVG}title", "") for path in root.iter(f"{SVG}path")} - {""}
    assert {tuple(arrow.replace(" of the iteration before", "").split(" → ")) for arrow in arrows} == reads


def test_the_running_maximum_is_carried_from_one_iteration_to_the_next(run: Run, tmp_path: Path) -> None:
    run("show", "attention-1pass", "--out", tmp_path / "drawing.svg")
    text = (tmp_path / "drawing.svg").read_text(encoding="utf-8")
    assert {"RM", "RD", "RNV"} == set(re.findall(r"<title>(\w+) of the iteration before", text))


def test_an_einsum_is_shown_with_its_reduction_and_its_readers(run: Run) -> None:
    lines = run("show", "attention-3pass").out.splitlines()
    maximum = next(line for line in lines if line.startswith("GM["))
    assert re.search(r"max over m\s+SN$", maximum)


def test_variables_can_be_set_where_sizes_are_shown(run: Run) -> None:
    shown = run("show", "bert-base", "--set", "L=64Ki").out
    assert re.search(r"^M +65,536 +L$", shown, re.MULTILINE)
    assert "W = 64" in run("show", "fusemax", "--set", "W=64").out


def test_a_file_is_shown_like_a_name(run: Run, tmp_path: Path) -> None:
    Cascade.load("attention-3pass").save(tmp_path / "mine.yaml")
    assert run("show", tmp_path / "mine.yaml").out == run("show", "attention-3pass").out


@pytest.mark.parametrize("name", list_library("mapping"))
def test_the_boxes_of_a_nest_lie_inside_or_beside_each_other(run: Run, tmp_path: Path, name: str) -> None:
    run("show", "mapping", name, "--out", tmp_path / "drawing.svg")
    root = ElementTree.parse(tmp_path / "drawing.svg").getroot()
    boxes = [
        (x, y, x + float(rect.get("width", 0)), y + float(rect.get("height", 0)))
        for rect in root.iter(f"{SVG}rect")
        for x, y in [(float(rect.get("x", 0)), float(rect.get("y", 0)))]
    ]
    assert len(boxes) > 2
    for number, (left, top, right, bottom) in enumerate(boxes):
        for other_left, other_top, other_right, other_bottom in boxes[:number]:
            apart = left >= other_right or right <= other_left or top >= other_bottom or bottom <= other_top
            inside = other_left <= left and right <= other_right and other_top <= top and bottom <= other_bottom
            assert apart or inside


def test_a_nest_is_shown_as_it_encloses(run: Run) -> None:
    lines = run("show", "mapping", "fusemax-architecture").out.splitlines()
    indents = {line.strip().split(" (")[0]: len(line) - len(line.lstrip()) for line in lines}
    assert indents["for m1 by 1"] < indents["for p by P0"] < indents["RM on array_1d"] < indents["BQK on array_2d"]
    assert indents["BQK on array_2d"] == indents["LM on array_2d"]
