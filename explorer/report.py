"""The report of a sweep: one self-contained HTML page that opens from disk and asks for nothing else.

A page of a million points would be slow to open, so it holds a sample of the points, drawn once and for all by a fixed
seed, besides every point on the Pareto front and the best in each objective; and it says so.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from explorer.front import Front, read_front
from explorer.points import Cells
from explorer.store import Store

SAMPLE = 20_000
"""Points on a page besides those of the front."""
_ERRORS = 200


def render_report(store: Store, sample: int = SAMPLE) -> str:
    """The page of a store, as HTML."""
    about = store.about()
    document = report_document(store, sample)
    # No text of the sweep can end the script element that holds it.
    data = json.dumps(document, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    template = (files("explorer") / "library" / "report.html").read_text(encoding="utf-8")
    return template.replace("{{title}}", html.escape(f"{about['name']} · Einsight")).replace("{{data}}", data)


def report_document(store: Store, sample: int = SAMPLE) -> dict[str, Any]:
    """What the page shows, as plain data; rows are numbered in the order of the points."""
    about = store.about()
    front = read_front(store)
    points = np.unique(np.concatenate([_sampled(store, sample), front.points, *front.best]))
    names = [*about["varying"], *about["columns"]]
    found = store.read(["point", "feasible", *names], points=points)
    columns = {name: _column(name, found[name], about) for name in names}
    constants = {name: value for name, value in about["constants"].items() if value is not None}
    return {
        "name": about["name"],
        "about": " ".join(" ".join(text.split()) for text in (about["description"], about["source"]) if text),
        "counts": _counts(store, front),
        "shown": _shown(store, len(points), len(front.points)),
        "fidelity": about["fidelity"],
        "constants": list(constants.items()),
        "point": points.tolist(),
        "feasible": [int(value == 1) for value in found["feasible"]],
        "columns": columns,
        "objectives": [{"name": name, "sign": sign} for name, sign in front.signs.items()],
        "front": np.searchsorted(points, front.points).tolist(),
        "groups": [
            {"values": list(group.values.items()), "rows": np.searchsorted(points, group.points).tolist()}
            for group in front.groups
        ],
        "by": list(front.by),
        "found": about.get("found", []),
        "folder": str(store.folder),
        "best": [np.searchsorted(points, some).tolist() for some in front.best],
        "failures": store.failures(_ERRORS),
    }


def _sampled(store: Store, sample: int) -> NDArray[np.int64]:
    stored = store.read(["point"], "error IS NULL")["point"].astype(np.int64)
    if len(stored) <= sample:
        return stored
    return np.sort(np.random.default_rng(0).choice(stored, sample, replace=False))


def _column(name: str, values: Cells, about: Mapping[str, Any]) -> dict[str, Any]:
    """A column for the page: numbers as they are, or words once and their places."""
    described = about["columns"].get(name, {"dimension": "count", "title": name})
    column = {"title": described["title"], "dimension": described["dimension"], "input": name in about["varying"]}
    if values.dtype == object:
        words = sorted({str(value) for value in values if value is not None})
        place = {word: number for number, word in enumerate(words)}
        return {**column, "words": words, "values": [None if v is None else place[str(v)] for v in values]}
    return {**column, "values": [_plain(value, exact=column["input"]) for value in values.tolist()]}


def _plain(value: float, exact: bool) -> float | int | None:
    """A number for JSON: inputs in full, since a point is run again from them; results to seven digits."""
    if math.isnan(value):
        return None
    if value == int(value) and abs(value) < 2**53:
        return int(value)
    return value if exact else float(f"{value:.7g}")


def _counts(store: Store, front: Front) -> str:
    about, stored = store.about(), store.count()
    parts = [f"{stored:,} points ({about['sampler']}, {about['fidelity']})"]
    if stored < about["points"] and about["sampler"] != "evolutionary":
        parts.append(f"{about['points'] - stored:,} still to evaluate")
    for text, condition in (("failed", "error IS NOT NULL"), ("break a constraint on results", "feasible = 0")):
        if count := store.count(condition):
            parts.append(f"{count:,} {text}")
    if front.signs:
        titles = {name: about["columns"].get(name, {}).get("title", name) for name in front.signs}
        goals = " and ".join(f"{'small' if sign > 0 else 'large'} {titles[name]}" for name, sign in front.signs.items())
        each = f", one front for each {' and '.join(front.by)}" if front.by else ""
        parts.append(f"{len(front.points):,} on the Pareto front for {goals}{each}")
    return "; ".join(parts) + "."


def _shown(store: Store, shown: int, front: int) -> str:
    stored = store.count("error IS NULL")
    if shown >= stored:
        return "All points are shown."
    kept: Sequence[str] = (f"all {front:,} on the Pareto front", "the best in each objective") if front else ()
    extra = f", among them {' and '.join(kept)}" if kept else ""
    return f"{shown:,} of {stored:,} points are shown, chosen at random{extra}."
