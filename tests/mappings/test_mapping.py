"""Mapping files: reading, saving, tables of rows, and the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from einsum import Cascade
from einsum.errors import SpecError
from einsum.specfile import list_library, parse_yaml
from mappings import Mapping
from simulator.simulate import simulate

TEXT = """
mapping: mine
description: A product with tile sizes from a table.
cascade: matmul
architecture: fusemax
variables:
  R: array_2d.rows
  tile: "4 * R if big == 'yes' else R"
rows: {file: sizes.csv, keys: [model, M]}
nest:
  - for: {m: tile, k: depth}
  - {compute: Z, on: array_2d, spatial: {m: rows, n: columns}}
"""
TABLE = """# Sizes chosen by hand
model,M,depth,big,share
a,64,16,yes,0.5
a,128,32,no,0.25

b,64,8,no,1
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "sizes.csv").write_text(TABLE, encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_file_is_read(path: Path) -> None:
    mapping = Mapping.load(path)
    assert (mapping.name, mapping.header.cascade, mapping.file) == ("mine", "matmul", str(path))
    assert {name: str(value) for name, value in mapping.variables.items()}["R"] == "array_2d.rows"
    assert mapping.known_names == {"R", "tile", "model", "M", "depth", "big", "share"}
    assert mapping.header.fill_drain == "charged"


def test_saving_and_reading_again_changes_nothing(path: Path, tmp_path: Path) -> None:
    mapping = Mapping.load(path)
    copy = tmp_path / "copy.yaml"
    mapping.save(copy)
    again = Mapping.load(copy)
    assert (again.header, again.nest, again.table) == (mapping.header, mapping.nest, mapping.table)
    assert again.data == mapping.data


@pytest.mark.parametrize("name", list_library("mapping"))
def test_the_library_survives_saving(name: str, tmp_path: Path) -> None:
    mapping = Mapping.load(name)
    if mapping.header.rows is not None:
        source = Path(mapping.file or "").parent / mapping.header.rows.file
        (tmp_path / source.name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    mapping.save(tmp_path / "copy.yaml")
    again = Mapping.load(tmp_path / "copy.yaml")
    assert (again.header, again.nest) == (mapping.header, mapping.nest)
    assert mapping.name == name
    assert mapping.header.description and mapping.header.source
    if mapping.header.cascade is not None:
        assert Cascade.load(mapping.header.cascade)


def test_rows_are_found_by_their_keys(path: Path) -> None:
    table = Mapping.load(path).table
    assert table is not None
    assert table.find({"model": "a", "M": 128}, 1) == {"depth": 32, "big": "no", "share": 0.25}
    assert table.find({"model": "a", "M": 64.0}, 1)["share"] == 0.5


def test_every_design_point_finds_its_row(path: Path) -> None:
    table = Mapping.load(path).table
    assert table is not None
    found = table.find({"model": "a", "M": np.array([128.0, 64.0, 128.0])}, 3)
    assert found["depth"].tolist() == [32, 16, 32]
    assert found["big"].tolist() == ["no", "yes", "no"]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"model": "a", "M": 96}, "no row for model=a, M=96; there are rows for M = 64, 128"),
        ({"model": "aa", "M": 64}, "no row for model=aa, M=64"),
        ({"model": "c", "M": np.array([64, 64])}, "no row for model=c, M=64"),
    ],
)
def test_a_missing_row_is_told_with_those_that_there_are(path: Path, case: dict[str, Any], message: str) -> None:
    table = Mapping.load(path).table
    assert table is not None
    with pytest.raises(SpecError) as caught:
        table.find(case, np.size(case["M"]))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path.parent / "sizes.csv"))


def test_the_library_table_is_found_by_model_and_length() -> None:
    with pytest.raises(SpecError, match=r"no row for workload=bert-base, L=5000; there are rows for L = 1024, 4096"):
        simulate(mapping="flat", workload="bert-base", settings={"L": 5000})
    result = simulate(mapping="flat", workload="bert-base", settings={"L": np.array([1024, 262144])})
    alone = simulate(mapping="flat", workload="bert-base", settings={"L": 262144})
    assert result.latency_s[1] == alone.latency_s[0]


def test_settings_win_over_the_table() -> None:
    given = simulate(mapping="flat", workload="bert-base", settings={"L": 1024, "Q_loc": "onchip", "K_loc": "onchip"})
    row = simulate(mapping="flat", workload="bert-base", settings={"L": 1024})
    assert given.traffic_bytes["DRAM"]["K"]["read"][0] < row.traffic_bytes["DRAM"]["K"]["read"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": {"file": "none.csv", "keys": ["M"]}}, "rows.file: the table 'none.csv' cannot be read: no such file"),
        ({"rows": {"file": "sizes.csv", "keys": ["modle"]}}, "rows.keys: the table 'sizes.csv' has no column 'modle'"),
        ({"rows": {"file": "sizes.csv", "keys": []}}, "rows.keys: "),
        ({"rows": {"file": "sizes.csv"}}, "'keys' is missing"),
        ({"fill_drain": "free"}, "fill_drain: expected 'charged' or 'hidden', found 'free'"),
        ({"variabels": {}}, "unknown field 'variabels' (did you mean 'variables'?)"),
        ({"variables": {"R": "2 +"}}, "variables.R: "),
        ({"nest": None}, "nest[0]: "),
    ],
)
def test_mistakes_in_a_file(path: Path, change: dict[str, Any], message: str) -> None:
    path.write_text(yaml.safe_dump(parse_yaml(TEXT) | change), encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        Mapping.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_file_without_a_nest_and_a_table_with_a_short_row(path: Path) -> None:
    (path.parent / "sizes.csv").write_text("model,M,depth\na,64\n", encoding="utf-8")
    with pytest.raises(SpecError, match="row 1 has 2 values, expected 3"):
        Mapping.load(path)
    path.write_text("mapping: mine\nnests: []\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"the field 'nest' is missing \(did you mean 'nests'\?\)"):
        Mapping.load(path)


def test_unknown_names_come_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'fusemax-binding'"):
        Mapping.load("fusemax-bindng")
