"""What the libraries hold, as Markdown tables."""

from __future__ import annotations

from einsight.library import KINDS, entries


def libraries_page() -> str:
    """Every description in the libraries with its first sentence and its source."""
    parts = ["# Libraries", "Any of these names may stand where a command or a file asks for a description."]
    for kind in KINDS:
        rows = [f"| `{entry.name}` | {_cell(entry.description)} | {_cell(entry.source)} |" for entry in entries(kind)]
        parts += [f"## {kind.capitalize()}s", "\n".join(["| name | | source |", "|---|---|---|", *rows])]
    return "\n\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
