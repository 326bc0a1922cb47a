"""Who is who among points: hashes of what was simulated, by which descriptions and by which code."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from architectures import Architecture
from einsum.cascade import Cascade
from einsum.cascade_file import cascade_data
from explorer.mapped import Find
from mappings import Mapping as Plan
from workloads import Workload

KEY_BYTES = 16
"""128 bits: two of 10^12 points share a key with a probability of 10^-15."""
_EVALUATING = ("einsum", "architectures", "workloads", "mappings", "simulator")
_ABOUT = frozenset({"description", "source"})


@cache
def model_version() -> str:
    """A hash of the code that turns descriptions into results; results of different versions are never mixed."""
    digest = hashlib.blake2b(digest_size=8)
    for package in _EVALUATING:
        found = importlib.util.find_spec(package)
        folders = (found.submodule_search_locations or []) if found else []
        for path in sorted(path for folder in folders for path in Path(folder).rglob("*.py")):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def text_digest(document: Any) -> str:
    """A hash of plain data, equal for equal data."""
    text = json.dumps(document, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).hexdigest()


def models_digest(
    cascade: Cascade, architecture: Architecture, mapping: Plan | Find, workload: Workload | None, end_to_end: bool
) -> str:
    """A hash of what descriptions say, wherever they lie and however they are formatted."""
    plans = [mapping.model_dump() if isinstance(mapping, Find) else _plan_content(mapping)]
    linear = mapping.linear_layers if isinstance(mapping, Find) else mapping.header.linear_layers
    if end_to_end and linear is not None:
        plans.append(_plan_content(Plan.load(linear)))
    return text_digest(
        [
            _content(cascade_data(cascade)),
            _content(architecture.data()),
            plans,
            None if workload is None else _content(workload.data()),
            end_to_end,
        ]
    )


def _plan_content(plan: Plan) -> list[Any]:
    """What a mapping says, with its table and the GPU kernel that it names."""
    kernel = None if plan.kernel is None else _content(plan.kernel.model_dump(mode="json", by_alias=True))
    return [_content(plan.data), plan.table.columns if plan.table else None, kernel]


def _content(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in _ABOUT}


def point_keys(about: Sequence[str], settings: Mapping[str, Any], count: int) -> list[bytes]:
    """A hash of `about` and of the settings of each point; arrays among the settings have one value for each point.

    A number counts by its value: 2 and 2.0 are the same point.
    """
    numbers, texts, fixed = [], [], {}
    for name in sorted(settings):
        value = settings[name]
        if np.ndim(value) == 0:
            fixed[name] = float(value) if isinstance(value, int | float) else value
        elif np.asarray(value).dtype.kind in "biuf":
            numbers.append(name)
        else:
            texts.append(name)
    document = json.dumps([*about, fixed, numbers, texts], sort_keys=True)
    common = hashlib.blake2b(document.encode(), digest_size=KEY_BYTES)
    matrix = np.empty((count, len(numbers)), dtype="<f8")
    for column, name in enumerate(numbers):
        matrix[:, column] = settings[name]
    width = matrix.strides[0] if numbers else 0
    raw = memoryview(matrix.tobytes())
    words = list(zip(*(settings[name].tolist() for name in texts), strict=True)) if texts else None
    keys = []
    for point in range(count):
        digest = common.copy()
        digest.update(raw[point * width : (point + 1) * width])
        if words is not None:
            digest.update(json.dumps(words[point]).encode())
        keys.append(digest.digest())
    return keys
