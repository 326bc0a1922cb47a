"""The errors that a user of Einsight can cause, each with its location: file, key path, column."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EinsightError(Exception):
    """One clear sentence about what is wrong, and where.

    message  the sentence, without the location
    file     the file that holds the mistake, if one does
    key      path of keys inside that file or mapping, such as `levels.L3.capacity`
    column   1-based column inside the text that was parsed (the message shows it as well)
    """

    def __init__(
        self, message: str, *, file: str | None = None, key: str | None = None, column: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.key = key
        self.column = column

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.key, self.message) if part)

    def located(self, *, file: str | None = None, key: str | None = None) -> EinsightError:
        """The same error with a location: `key` is put before the key path known so far, `file` fills a gap."""
        path = join_key(key, self.key)
        return type(self)(self.message, file=self.file or file, key=path, column=self.column)


class SpecError(EinsightError, ValueError):
    """A description or another input is wrong. As a ValueError it keeps its place when pydantic collects it."""


class InternalError(EinsightError):
    """Two results of this package contradict each other: a mistake in it, not of its user."""


def join_key(*parts: str | int | None) -> str | None:
    """Join key parts into one path: `join_key('levels', 0, 'name')` is `levels[0].name`; None if all are empty."""
    path = ""
    for part in parts:
        if part is None or part == "":
            continue
        if isinstance(part, int):
            path += f"[{part}]"
        elif part.startswith("["):
            path += part
        else:
            path += f".{part}" if path else part
    return path or None


def refuse_unknown(names: Iterable[str], known: Iterable[str], key: str = "set") -> None:
    """SpecError for the first of the `names` of variables that is none of the `known` ones."""
    candidates = set(known)
    for name in names:
        if name not in candidates:
            raise SpecError(f"unknown variable '{name}'{nearest(name, candidates)}", key=key)


def nearest(name: str, candidates: Iterable[str], limit: int = 12) -> str:
    """A hint to put behind an unknown name: " (did you mean 'x'?)", or the known names when none is close."""
    known = sorted({str(candidate) for candidate in candidates})
    if not known:
        return " (none are defined)"
    by_lower = {candidate.lower(): candidate for candidate in reversed(known)}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    if close:
        return f" (did you mean '{by_lower[close[0]]}'?)"
    shown = ", ".join(known[:limit])
    more = f" and {len(known) - limit} more" if len(known) > limit else ""
    return f" (known: {shown}{more})"
