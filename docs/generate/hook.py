"""The hook of MkDocs: adds the generated pages, and the README as the first page."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

from docs.generate.commands import commands_page  # noqa: E402
from docs.generate.documents import documents_page  # noqa: E402
from docs.generate.files import FILES, file_page, index_page  # noqa: E402
from docs.generate.libraries import libraries_page  # noqa: E402


def first_page() -> str:
    """The README with its links as they are inside the site; what is not part of the site is no link there."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\[([^\]]+)\]\((?!https?:)[A-Z]+\)", r"\1", text)


PAGES: dict[str, Callable[[], str]] = {
    "index.md": first_page,
    "reference/index.md": index_page,
    "reference/commands.md": commands_page,
    "reference/documents.md": documents_page,
    "reference/libraries.md": libraries_page,
    **{f"reference/{name}.md": partial(file_page, name) for name in FILES},
}
"""Path inside the site -> the page's Markdown."""


def on_files(files: Any, config: Any) -> Any:
    """Called by MkDocs once it has collected the files of `docs/`."""
    from mkdocs.structure.files import File

    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    return files
