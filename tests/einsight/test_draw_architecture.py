"""Drawings show every part and number, in text within 100 columns and as a picture that stands alone."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from architectures import Architecture
from einsight.draw_architecture import draw_svg, draw_text
from einsum import list_library

SVG = "{http://www.w3.org/2000/svg}"
MANY_PARTS = """
architecture: many-parts
description: A machine with <odd> & "long" names
clock: 1.7 GHz
word_bits: 16
memories:
  HBM: {capacity: 80 GB, read_bandwidth: 3.35 TB/s, write_bandwidth: 3 TB/s, latency: 600 ns}
  a_memory_whose_name_is_much_longer_than_anyone_would_expect_it_to_be: {capacity: 50 MiB, bandwidth: 5.5 TB/s}
  shared: {capacity: 228 KiB, copies: 132}
units:
  tensor: {copies: 132, dims: {rows: 64, columns: 8, depth: 4}, ops: {mac: {energy: 1 pJ}}}
  scalar: {ops: {exp: {cycles: 16}}}
  vector: {dims: {lanes: 128}, registers: {words: 512}, ops: {add: {}, mul: {}, max: {}}}
"""


def shown(svg: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(f"{SVG}text"))


@pytest.mark.parametrize("name", list_library("architecture"))
def test_text_shows_every_part_within_100_columns(name: str) -> None:
    architecture = Architecture.load(name)
    text = draw_text(architecture)
    assert max(map(len, text.splitlines())) <= 100
    for part in (*architecture.memories, *architecture.units, *architecture.variables):
        assert part in text


def test_text_of_fusemax_is_a_tree_with_its_numbers() -> None:
    lines = draw_text(Architecture.load("fusemax")).splitlines()
    tree = lines[lines.index("") + 1 :]
    assert tree[0] == "DRAM  unbounded · 429.5 GB/s"
    assert tree[2] == "└─ L3  16 MiB · no bandwidth limit"
    assert "   ├─ array_2d  256 columns × 256 rows = 65,536 elements" in tree
    assert "   │    exp       6    103 pJ" in tree
    assert "   └─ array_1d  256 lanes" in tree


def test_text_shows_settings_and_the_range_of_an_array() -> None:
    text = draw_text(Architecture.load("fusemax"), {"W": np.array([16, 64, 512]), "buffer": 2**20})
    assert "16 … 512 columns" in text
    assert "256 … 262,144 elements" in text
    assert "L3  1 MiB" in text


def test_long_names_and_many_parts_stay_inside_the_lines() -> None:
    text = draw_text(Architecture.parse(MANY_PARTS))
    assert max(map(len, text.splitlines())) <= 100
    for shape in ("64 rows × 8 columns × 4 depth = 2,048 elements", "1 element", "shared ×132"):
        assert shape in text


@pytest.mark.parametrize("source", [*list_library("architecture"), MANY_PARTS], ids=lambda source: source[:20].strip())
def test_the_picture_is_complete_and_stands_alone(source: str) -> None:
    architecture = Architecture.parse(source) if "\n" in source else Architecture.load(source)
    svg = draw_svg(architecture)
    texts = " ".join(element.text or "" for element in shown(svg))
    for part in (*architecture.memories, *architecture.units):
        assert part[:39] in texts
    for unit in architecture.units.values():
        assert all(f" {kind} " in texts for kind in unit.ops)
    assert "href" not in svg and "url(http" not in svg


@pytest.mark.parametrize("source", [*list_library("architecture"), MANY_PARTS], ids=lambda source: source[:20].strip())
def test_nothing_leaves_the_picture_and_no_lines_of_text_collide(source: str) -> None:
    architecture = Architecture.parse(source) if "\n" in source else Architecture.load(source)
    svg = draw_svg(architecture, {})
    root = ElementTree.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    boxes = []
    for element in shown(svg):
        x, y, size = (float(element.attrib[name]) for name in ("x", "y", "font-size"))
        length = len(element.text or "") * (14.5 if size > 20 else 10 if size > 15 else 6.9)
        left = x - {"start": 0.0, "middle": length / 2, "end": length}[element.attrib["text-anchor"]]
        boxes.append((left, left + length, y - 11, y))
        assert left >= 0 and left + length <= width and 0 < y < height
    for index, (left, right, top, bottom) in enumerate(boxes):
        for other_left, other_right, other_top, other_bottom in boxes[index + 1 :]:
            apart = right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
            assert apart, "two texts overlap"


def test_names_are_escaped_in_the_picture() -> None:
    svg = draw_svg(Architecture.parse(MANY_PARTS))
    assert 'A machine with <odd> & "long" names' in [element.text for element in shown(svg)]
