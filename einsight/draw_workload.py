"""A workload as text: its sizes, and the matrix products around its attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from einsight.table import Column, render_fields, render_table
from einsum.errors import SpecError
from workloads import Workload


def draw_text(workload: Workload, env: Mapping[str, Any] | None = None) -> str:
    """The sizes with the variables' values in `env` in place of their defaults, and the linear layers."""
    sizes = workload.resolve(env or {})
    fields = [("description", workload.description), ("source", workload.source)]
    parts = [render_fields([(name, " ".join(text.split())) for name, text in fields if text])]
    given = env or {}
    rows = [
        [name, f"{sizes[name]:,.0f}", "--set" if name in given else str(expression)]
        for name, expression in workload.variables.items()
    ]
    parts.append(render_table(["variable", Column("value", right=True), "from"], rows))
    if workload.properties:
        values = workload.property_values(given)
        rows = [[name, f"{values[name]:g}", "--set" if name in given else str(expression)]
                for name, expression in workload.properties.items()]  # fmt: skip
        parts.append(render_table(["property", Column("value", right=True), "from"], rows))
    layers = [
        [layer.name, *(f"{size:,.0f}" for size in (layer.rows, layer.inner, layer.columns))]
        for layer in workload.linear_sizes(given)
    ]
    if layers:
        numbers = [Column(title, right=True) for title in ("rows", "inner", "columns")]
        parts.append(render_table([Column("linear layer"), *numbers], layers))
    return "\n\n".join(parts)


def draw_svg(workload: Workload, env: Mapping[str, Any] | None = None) -> str:
    """Raise SpecError: a workload is a table of numbers, there is nothing to draw."""
    raise SpecError(f"{workload.name} is a workload, a table of sizes; there is no drawing of it, leave out --out")
