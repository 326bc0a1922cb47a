"""The reference of the documents that `--json` prints, made from their models."""

from __future__ import annotations

from docs.generate.models import sections, type_text
from einsight.documents import DOCUMENTS


def documents_page() -> str:
    """Every document with its fields."""
    parts = [
        "# JSON documents",
        "With `--json` a command prints one document to standard output. `einsight schema COMMAND` prints its JSON "
        "Schema. Values are in SI units, as their names say; what is not known is `null`.",
    ]
    for name, document in DOCUMENTS.items():
        parts += [f"## einsight {name}", f"The document is {type_text(document)}.", sections(document, level=3)]
    return "\n\n".join(parts) + "\n"
