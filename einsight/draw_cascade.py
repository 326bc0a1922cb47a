"""A cascade as a picture: its Einsums, which feeds which, and what is carried from one iteration to the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from einsight.layers import Layout, lay_out
from einsight.svg import ARROWS, LINE, Svg, text_width
from einsight.table import render_fields, render_table
from einsum import Cascade, Einsum

INPUT, MAP, REDUCTION, OUTPUT = "#dbe7f5", "#ffffff", "#fdf0dc", "#dff0df"
_ROW_HEIGHT = 92
_GAP = 26
_MARGIN = 24
_THROUGH = 14


def draw_text(cascade: Cascade, env: Mapping[str, Any] | None = None) -> str:
    """The cascade's ranks, inputs and Einsums, each with what it reduces and which Einsums read it.

    env sets variables in place of their defaults.
    """
    rows = []
    for einsum in cascade.einsums:
        readers = [consumer.name for consumer in cascade.consumers(einsum.output.tensor)]
        kind = cascade.tensors[einsum.output.tensor].kind
        feeds = ", ".join(dict.fromkeys(readers)) or ("(output)" if kind == "output" else "")
        rows.append([str(einsum), _reduction(einsum), feeds])
    fields = [
        ("description", cascade.description),
        ("source", cascade.source),
        ("ranks", " · ".join(_ranks(cascade))),
        ("variables", " · ".join(f"{name} = {value}" for name, value in {**cascade.variables, **(env or {})}.items())),
        ("inputs", " · ".join(str(cascade.access(tensor.name)) for tensor in cascade.inputs)),
    ]
    header = render_fields([(name, " ".join(text.split())) for name, text in fields if text])
    return f"{header}\n\n{render_table(['Einsum', 'reduces', 'feeds'], rows)}"


def _ranks(cascade: Cascade) -> Iterator[str]:
    parts = {part for partition in cascade.partitions.values() for part in (partition.outer, partition.inner)}
    for rank in cascade.ranks.values():
        if rank.name not in parts:
            yield f"{rank.name}: {rank.extent}"
    for partition in cascade.partitions.values():
        carried = f" ({partition.outer} iterative)" if cascade.ranks[partition.outer].iterative else ""
        yield f"{partition.rank} = {cascade.coordinate(partition.rank)}{carried}"


def _reduction(einsum: Einsum) -> str:
    return f"{einsum.reduction} over {', '.join(einsum.reduced)}" if einsum.reduced else ""


def draw_svg(cascade: Cascade, env: Mapping[str, Any] | None = None) -> str:
    """The graph of the cascade's Einsums as an SVG document; it does not depend on the variables in `env`.

    Inputs are blue, reductions orange, outputs green. Dashed arrows are values of an earlier iteration.
    """
    edges, carried = _edges(cascade)
    boxes = {tensor.name: [str(cascade.access(tensor.name))] for tensor in cascade.inputs}
    boxes |= {einsum.name: _lines(einsum) for einsum in cascade.einsums}
    layout = lay_out(list(boxes), edges)
    widths = {name: text_width(lines) + 18 for name, lines in boxes.items()}
    places, width = _places(layout, widths)
    height = len(layout.rows) * _ROW_HEIGHT + 2 * _MARGIN
    picture = Svg(width, height, cascade.name)
    picture.text(_MARGIN, _MARGIN, cascade.name, size=15)
    if carried:
        picture.text(_MARGIN, _MARGIN + LINE, "dashed: of the iteration before", color=ARROWS["back"])
    half = {name: (len(lines) * LINE + 10) / 2 for name, lines in boxes.items()}
    for (source, target), path in layout.paths.items():
        points = [places[name] for name in path]
        points[0] = (points[0][0], points[0][1] + half[source])
        points[-1] = (points[-1][0], points[-1][1] - half[target])
        picture.curve(points, f"{source} → {target}")
    for source, target in carried:
        _draw_carried(picture, source, target, places, widths)
    for name, lines in boxes.items():
        picture.box(*places[name], widths[name], 2 * half[name], lines, _fill(cascade, name))
    return str(picture)


def _edges(cascade: Cascade) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Pairs (producer or input, consumer): within an iteration, and from an earlier iteration."""
    position = {einsum.name: number for number, einsum in enumerate(cascade.einsums)}
    edges: list[tuple[str, str]] = []
    carried: list[tuple[str, str]] = []
    for einsum in cascade.einsums:
        for tensor in dict.fromkeys(access.tensor for access in einsum.inputs):
            sources = [producer.name for producer in cascade.producers(tensor)] or [tensor]
            for source in sources:
                later = position.get(source, -1) >= position[einsum.name]
                (carried if later else edges).append((source, einsum.name))
    return edges, carried


def _lines(einsum: Einsum) -> list[str]:
    lines = [str(einsum.output)]
    if einsum.reduced:
        lines.append(_reduction(einsum))
    operations = " ".join(name if count == 1 else f"{count} {name}" for name, count in einsum.ops.items())
    return [*lines, operations] if operations else lines


def _fill(cascade: Cascade, name: str) -> str:
    tensor = cascade.tensors.get(name)
    if tensor and tensor.kind != "intermediate":
        return INPUT if tensor.kind == "input" else OUTPUT
    return REDUCTION if cascade.einsum(name).reduced else MAP


def _places(layout: Layout, widths: dict[str, float]) -> tuple[dict[str, tuple[float, float]], float]:
    """Centres of the boxes and of the places where edges pass through a row, each row centred; and the width."""
    sizes = [[widths.get(name, _THROUGH) for name in row] for row in layout.rows]
    totals = [sum(row) + _GAP * (len(row) - 1) for row in sizes]
    width = max(totals, default=0) + 2 * _MARGIN
    places = {}
    for number, (row, row_sizes, total) in enumerate(zip(layout.rows, sizes, totals, strict=True)):
        x = (width - total) / 2
        for name, size in zip(row, row_sizes, strict=True):
            places[name] = (x + size / 2, _MARGIN + (number + 0.6) * _ROW_HEIGHT)
            x += size + _GAP
    return places, width


def _draw_carried(
    picture: Svg, source: str, target: str, places: dict[str, tuple[float, float]], widths: dict[str, float]
) -> None:
    (x, y), (to_x, to_y) = places[source], places[target]
    start, end = (x + widths[source] / 2, y + 6), (to_x + widths[target] / 2, to_y + (6 if source != target else -6))
    picture.back(start, end, 26, f"{source} of the iteration before → {target}")
