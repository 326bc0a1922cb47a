"""YAML descriptions: what is read, what is refused, and how errors name their place."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from einsum.errors import SpecError
from einsum.expressions import Expression
from einsum.specfile import SpecFile, find_spec, library_folder, list_library, load_yaml, parse_yaml, pydantic_error


def write(folder: Path, text: str) -> Path:
    path = folder / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_scalars_read_as_people_expect() -> None:
    text = "{a: 1e9, b: 1_000, c: no, d: on, e: 2024-01-01, f: 010, g: true, h: ~, i: 0x10, j: -.5, k: 12:30, l: -inf}"
    assert parse_yaml(text) == {
        "a": 1e9, "b": 1000, "c": "no", "d": "on", "e": "2024-01-01", "f": 10, "g": True, "h": None,
        "i": 16, "j": -0.5, "k": "12:30", "l": "-inf",
    }  # fmt: skip


def test_aliases_and_merges_work_in_moderation() -> None:
    data = parse_yaml("base: &b {x: 1, y: 2}\nother: {<<: *b, y: 3}\nsame: *b\nempty:\n")
    assert data == {"base": {"x": 1, "y": 2}, "other": {"x": 1, "y": 3}, "same": {"x": 1, "y": 2}, "empty": None}


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
BOMB += "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found nothing"),
        ("- a\n- b", "expected a mapping of keys to values, found a list"),
        ("just text", "expected a mapping"),
        ("a: 1\na: 2", "line 2, column 1: the key 'a' occurs twice"),
        ("x: {b: 1, b: 2}", "the key 'b' occurs twice"),
        ("a: [1, 2", "while parsing a flow sequence"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("a: &x [*x]", "alias refers to the value that contains it"),
        ("a: *nothing", "undefined alias"),
        ("{1: 2}", "the key 1 is not text"),
        ("{[1]: 2}", "a key must be plain text"),
        (BOMB, "expands to more than"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested more than 64 levels"),
        ("a: " + "[" * 500_000, "nested more than 64 levels"),
        ("a: " + "9" * 10_000, "the number is too long"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_bad_yaml_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    start = time.perf_counter()
    with pytest.raises(SpecError) as caught:
        load_yaml(path)
    assert time.perf_counter() - start < 2
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_descriptions_are_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    large.write_bytes(b"a: 1\n" + b"#" * 10_000_001)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: \xe9\n")
    for path, message in [
        (large, "larger than 10 MB"),
        (latin, "not UTF-8"),
        (tmp_path, "is a folder"),
        (tmp_path / "none.yaml", "no such file"),
    ]:
        with pytest.raises(SpecError, match=message):
            load_yaml(path)


def test_errors_name_file_and_key(tmp_path: Path) -> None:
    spec = SpecFile.load(write(tmp_path, "levels: [1]"))
    assert str(spec.error(["levels", 0, "size"], "is missing")) == f"{spec.path}: levels[0].size: is missing"
    inner = SpecError("is wrong", key="size")
    assert str(spec.located(inner, "levels[0]")) == f"{spec.path}: levels[0].size: is wrong"


def test_libraries_are_found_by_name_and_files_by_path(tmp_path: Path) -> None:
    assert library_folder("cascade").parent.name == "einsum"
    for name in list_library("cascade"):
        assert find_spec("cascade", name).is_file()
    path = write(tmp_path, "a: 1")
    assert find_spec("mapping", path) == path
    with pytest.raises(SpecError, match=r"unknown cascade 'attention-0pas'"):
        find_spec("cascade", "attention-0pas")
    with pytest.raises(SpecError, match="no such cascade file"):
        find_spec("cascade", "../../etc/passwd.yaml")
    with pytest.raises(SpecError, match=r"unknown kind of description 'cascades' .did you mean 'cascade'"):
        list_library("cascades")


class Level(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    capacity: Expression
    banks: int = Field(default=1, gt=0)
    policy: Literal["lru", "fifo"] = "lru"


class Machine(BaseModel):
    model_config = ConfigDict(extra="forbid")
    levels: list[Level]
    extra: dict[str, Level | None] = {}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"levels": [{"name": "L1", "capcity": 3}]}, "levels[0]: unknown field 'capcity' (did you mean 'capacity'?)"),
        ({"levels": [{"name": "L1"}]}, "levels[0]: the field 'capacity' is missing"),
        ({"levels": [{"name": "L1", "capacity": 1, "banks": -2}]}, ".banks: expected greater than 0, found -2"),
        ({"levels": [{"name": "L1", "capacity": "2 +"}]}, "levels[0].capacity: expected a number or a name"),
        ({"levels": [{"name": 3, "capacity": 1}]}, "levels[0].name: expected a valid string, found 3"),
        ({"levels": [{"name": "a", "capacity": 1, "policy": "x"}]}, "expected 'lru' or 'fifo', found 'x'"),
        ({"levels": 3}, "levels: expected a valid list, found 3"),
        ({"levels": [], "extra": {"k": {"nam": 1}}}, "extra.k: unknown field 'nam' (did you mean 'name'?)"),
        ({"level": []}, "unknown field 'level' (did you mean 'levels'?)"),
    ],
)
def test_a_validation_error_becomes_one_sentence(data: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Machine.model_validate(data)
    text = str(pydantic_error(caught.value, "m.yaml", Machine))
    assert text.startswith("m.yaml: ")
    assert sentence in text
