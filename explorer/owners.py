"""Processes that share a folder: each holds a lock on a file of its own, which ends when the process does."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path

FOLDER = ".owners"


class Owner:
    """One process at work in a folder. Its name is unique; while it lives, `alive` says so to all others."""

    def __init__(self, folder: Path) -> None:
        self.name = uuid.uuid4().hex
        (folder / FOLDER).mkdir(exist_ok=True)
        self._path = folder / FOLDER / self.name
        # Python closes the file in programs that it starts, so the lock is held by this process alone.
        self._handle = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o644)
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def close(self) -> None:
        """Give up the lock and remove the file."""
        self._path.unlink(missing_ok=True)
        os.close(self._handle)


def alive(folder: Path, name: str) -> bool:
    """Whether the process of that name still holds its lock."""
    path = folder / FOLDER / name
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    path.unlink(missing_ok=True)
    return False


def others(folder: Path) -> list[str]:
    """The names of all living processes at work in the folder."""
    place = folder / FOLDER
    return [path.name for path in place.iterdir() if alive(folder, path.name)] if place.is_dir() else []
