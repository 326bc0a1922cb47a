"""Finding a description when only its name is known: which kind it is, and what the libraries hold of each kind."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from einsum.errors import SpecError, nearest
from einsum.specfile import LIBRARIES, find_spec, list_library, load_yaml

KINDS = tuple(LIBRARIES)
RUNS = {"sweep": "sweep", "experiment": "run", "comparisons": "compare"}
"""First key of files that put descriptions together -> the command for them."""


@dataclass(frozen=True)
class Entry:
    """One description: its kind, name, first sentence and source."""

    kind: str
    name: str
    description: str
    source: str


def kind_of(text: str) -> str | None:
    """The kind that a word such as `mapping` or `mappings` names, or None."""
    singular = {kind + "s": kind for kind in KINDS} | {kind: kind for kind in KINDS}
    return singular.get(text.lower())


def entries(kind: str) -> list[Entry]:
    """What the library of one kind holds, by name."""
    return [_entry(kind, name, load_yaml(find_spec(kind, name))) for name in list_library(kind)]


def locate(name_or_path: str) -> tuple[str, str]:
    """The kind and the name (or path) of a description. Raises SpecError for an unknown or an ambiguous name."""
    if Path(name_or_path).suffix in (".yaml", ".yml") or "/" in name_or_path:
        data = load_yaml(name_or_path)
        # A mapping names its cascade and architecture too, further down.
        kind = next((key for key in data if key in KINDS or key in RUNS), None)
        if kind is None:
            raise SpecError(f"expected one of the keys {', '.join(KINDS)} with the name", file=name_or_path)
        if kind in RUNS:
            raise SpecError(f"is no single description; `einsight {RUNS[kind]}` runs it", file=name_or_path)
        return kind, name_or_path
    found = [kind for kind in KINDS if name_or_path in list_library(kind)]
    if not found:
        known = [name for kind in KINDS for name in list_library(kind)]
        raise SpecError(f"nothing in the libraries is called '{name_or_path}'{nearest(name_or_path, known)}")
    if len(found) > 1:
        raise SpecError(f"'{name_or_path}' is the name of several; say which: {' or '.join(found)} {name_or_path}")
    return found[0], name_or_path


def _entry(kind: str, name: str, data: dict[str, Any]) -> Entry:
    description = " ".join(str(data.get("description", "")).split())
    return Entry(kind, name, description.split(". ")[0].rstrip("."), " ".join(str(data.get("source", "")).split()))


def reference(name_or_path: str, out: str | None) -> str:
    """How a file `out` names a description: a library name as it is, a path as it starts in the folder of `out`."""
    path = Path(name_or_path)
    if out is None or not path.is_file():
        return name_or_path
    return Path(os.path.relpath(path, Path(out).parent)).as_posix()
