"""Output files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from einsum.errors import SpecError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; rename it to `path` at the end, or delete it when an exception passes.

    The place is tried at once, so that long work does not end at a folder that cannot be written. A device such as
    /dev/null is written directly. Raises SpecError where `path` is a folder or cannot be written.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise SpecError("is a folder; give the name of a file to write", file=str(path))
    if target.exists() and not target.is_file():
        yield target
        return
    partial = target.with_name(f".{target.stem}.{os.getpid()}.partial{target.suffix}")
    try:
        partial.touch(exist_ok=False)
    except OSError as error:
        raise SpecError(f"cannot be written: {reason(error)}", file=str(path)) from None
    try:
        yield partial
        os.replace(partial, target)
    except OSError as error:
        if error.filename not in (None, str(partial)):
            raise  # about another file
        raise SpecError(f"cannot be written: {reason(error)}", file=str(path)) from None
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def output_folder(path: str | Path) -> Iterator[Path]:
    """Make the folder `path` with its parents; when an exception passes, take away what was made and is empty.

    Raises SpecError where no folder can be made or written to.
    """
    folder = Path(path)
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecError(f"no folder can be made here: {reason(error)}", file=str(path)) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SpecError("the folder cannot be written to", file=str(path))
    try:
        yield folder
    except BaseException:
        for place in missing:
            with suppress(OSError):
                place.rmdir()
        raise


def check_ending(path: str | Path, *endings: str) -> Path:
    """The path, if its name ends as the file's format asks; SpecError names the endings that do."""
    if Path(path).suffix.lower() not in endings:
        raise SpecError(f"expected a name that ends in {' or '.join(endings)}", file=str(path) or "''")
    return Path(path)


def reason(error: OSError) -> str:
    """What the operating system says of a failed call, in lower case and without the path."""
    return (error.strerror or str(error)).lower()
