"""Output files and folders appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from einsum.errors import SpecError
from einsum.files import output_folder, whole_file


def test_a_file_appears_at_the_end_and_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")
    with whole_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
        assert partial.suffix == ".json"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_left_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "out.json") as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_link_is_followed_and_kept(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with whole_file(tmp_path / "link") as partial:
        partial.write_text("text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "text"


def test_a_device_is_written_directly() -> None:
    with whole_file(os.devnull) as partial:
        assert partial == Path(os.devnull)
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize("place", [".", "missing/out.json", "file/out.json"])
def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match=r"is a folder|cannot be written"), whole_file(tmp_path / place):
        pytest.fail("the work has begun")


def test_folders_that_were_made_go_when_the_work_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), output_folder(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    with output_folder(tmp_path / "a" / "b") as folder:
        (folder / "kept").touch()
    with pytest.raises(ZeroDivisionError), output_folder(tmp_path / "a" / "b"):
        raise ZeroDivisionError
    assert (tmp_path / "a" / "b" / "kept").is_file()


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="no folder can be made here"), output_folder(tmp_path / "file" / "a"):
        pytest.fail("the work has begun")
