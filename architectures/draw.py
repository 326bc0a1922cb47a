"""Drawings of an architecture: a tree of text for the terminal, and an SVG picture that needs nothing else."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from architectures.architecture import Architecture
from architectures.evaluated import Device, EvaluatedArchitecture, EvaluatedMemory, EvaluatedSelector, EvaluatedUnit
from architectures.quantity import Number
from einsum.units import format_quantity

TEXT_WIDTH = 100


def draw_text(architecture: Architecture, env: Mapping[str, Any] | None = None) -> str:
    """The tree of memories and units with their numbers, at most 100 columns wide.

    env sets variables, as in `Architecture.evaluate`; where a value is an array its range is shown.
    """
    evaluated = architecture.evaluate(env or {})
    lines = [f"{evaluated.name} · {_clock(evaluated)}"]
    lines += textwrap.wrap(architecture.description, TEXT_WIDTH, break_on_hyphens=False)
    lines += [*_variable_lines(architecture, env or {}), ""]
    indent = ""
    units = list(evaluated.units.values())
    for depth, memory in enumerate(evaluated.memories.values()):
        last = depth == len(evaluated.memories) - 1
        bar = "   " if last and not units else "│  "
        lines.append(f"{indent}{'└─ ' if depth else ''}{_copied(memory)}  {_capacity(memory)} · {_bandwidth(memory)}")
        indent += "   " if depth else ""
        lines.append(f"{indent}{bar}{_access(memory.access_bits, memory.read_energy_j, memory.write_energy_j)}")
    for unit in units:
        lines.append(f"{indent}│")
        lines.append(f"{indent}{'└─ ' if unit is units[-1] else '├─ '}{_copied(unit)}  {_dims(unit)}")
        below = indent + ("   " if unit is units[-1] else "│  ")
        lines += [f"{below}  {line}" for line in _unit_lines(unit)]
    for selector in evaluated.selectors.values():
        lines += [f"{indent}│", f"{indent}└─ {selector.name}  top-k engine · {_selection(selector)}"]
    system = _system_lines(evaluated)
    lines += ["", *system] if system else []
    return "\n".join(_cut(line, TEXT_WIDTH).rstrip() for line in lines) + "\n"


def _variable_lines(architecture: Architecture, env: Mapping[str, Any]) -> list[str]:
    """What can be set: each variable with its expression, or with the value that `env` gives it."""
    settings = [f"{name} = {_setting(env.get(name, text))}" for name, text in architecture.variables.items()]
    unbroken = " · ".join(setting.replace(" ", "\u00a0") for setting in settings)
    lines = textwrap.wrap(f"variables: {unbroken}", TEXT_WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return [line.replace("\u00a0", " ") for line in lines] if settings else []


def _unit_lines(unit: EvaluatedUnit) -> Iterator[str]:
    if unit.registers:
        registers = unit.registers
        energy = _access(registers.access_bits, registers.read_energy_j, registers.write_energy_j)
        yield f"registers  {_show(registers.words, 'count')} words per element · {energy}"
    rows = [("op", "cycles", "energy")]
    rows += [(kind, _show(op.cycles, "count"), _show(op.energy_j, "j")) for kind, op in unit.ops.items()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        yield f"{row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}"


def _show(value: Number, dimension: str) -> str:
    low, high = format_quantity(float(np.min(value)), dimension), format_quantity(float(np.max(value)), dimension)
    return low if low == high else f"{low} … {high}"


def _setting(value: Any) -> str:
    if np.ndim(value):
        return f"{np.min(value):.6g} … {np.max(value):.6g}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _clock(evaluated: EvaluatedArchitecture) -> str:
    return f"{_show(evaluated.clock_hz, 'hz')} · words of {_show(evaluated.word_bits, 'count')} bit"


def _capacity(memory: EvaluatedMemory) -> str:
    return "unbounded" if memory.unbounded else _show(memory.capacity_bytes, "bytes")


def _bandwidth(memory: EvaluatedMemory) -> str:
    limits = {
        "": memory.bandwidth_bytes_per_s,
        "reads ": memory.read_bandwidth_bytes_per_s,
        "writes ": memory.write_bandwidth_bytes_per_s,
    }
    shown = [f"{name}{_show(limit, 'bytes_per_s')}" for name, limit in limits.items() if np.all(np.isfinite(limit))]
    return ", ".join(shown) or "no bandwidth limit"


def _access(bits: Number, read_energy_j: Number, write_energy_j: Number) -> str:
    if not np.any(read_energy_j) and not np.any(write_energy_j):
        return "no access energy"
    read, write = _show(read_energy_j, "j"), _show(write_energy_j, "j")
    return f"per {_show(bits, 'count')} bit: read {read}, write {write}"


def _dims(unit: EvaluatedUnit) -> str:
    if not unit.dims:
        return "1 element"
    shape = " × ".join(f"{_show(size, 'count')} {name}" for name, size in unit.dims.items())
    return shape if len(unit.dims) == 1 else f"{shape} = {_show(unit.elements, 'count')} elements"


def _selection(selector: EvaluatedSelector) -> str:
    held = "" if np.any(np.isinf(selector.capacity)) else f" · up to {_show(selector.capacity, 'count')} values"
    width, drain = _show(selector.parallelism, "count"), _show(selector.pass_cycles, "count")
    return f"{selector.algorithm}, {width} values a cycle, {drain} cycles more a pass{held}"


def _system_lines(evaluated: EvaluatedArchitecture) -> list[str]:
    """Drives and links with their numbers, and the paths over them."""
    lines = []
    for device in evaluated.devices.values():
        facts = [
            _fact(name, value) for name, value in device.numbers() if name != "copies" and np.all(np.isfinite(value))
        ]
        wrapped = textwrap.wrap(" · ".join(facts), TEXT_WIDTH - 3, break_long_words=False)
        lines += [_copied(device), *(f"   {line}" for line in wrapped)]
    return [*lines, *(f"{name}: {' → '.join(over)}" for name, over in evaluated.paths.items())]


def _fact(name: str, value: Number) -> str:
    """A number under its name, whose ending says what it is measured in."""
    units = {"_bytes_per_s": "bytes_per_s", "_bytes": "bytes", "_s": "s"}
    ending = next((ending for ending in units if name.endswith(ending)), "")
    return f"{name.removesuffix(ending).replace('_', ' ')} {_show(value, units.get(ending, 'count'))}"


def _copied(part: EvaluatedMemory | EvaluatedUnit | Device) -> str:
    return part.name if np.all(np.equal(part.copies, 1)) else f"{part.name} ×{_show(part.copies, 'count')}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


MARGIN = 40
INSIDE = 880
GAP = 24
CARD = (INSIDE - GAP) // 2
MEMORY_HEIGHT = 66
ROW = 21
MEMORY_FILLS = ("#dbe7f5", "#c3d8ee", "#a9c7e6", "#8fb5dd")

STYLE = """
text { font-family: Inter, 'Helvetica Neue', Helvetica, Arial, 'DejaVu Sans', sans-serif; fill: #1c2733; }
.title { font-size: 23px; font-weight: 700; } .name { font-size: 16px; font-weight: 700; }
.body { font-size: 13px; } .soft { font-size: 12.5px; fill: #566474; } .end { text-anchor: end; }
.mid { text-anchor: middle; } .head { font-size: 11px; fill: #7b8794; letter-spacing: .06em; }
""".strip()


@dataclass
class _Canvas:
    """SVG elements, and the height that they have taken so far."""

    y: float = 0.0
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, content: str, style: str, limit: int = 140) -> None:
        self.parts.append(f'<text x="{x:g}" y="{y:g}" class="{style}">{escape(_cut(content, limit))}</text>')

    def box(self, x: float, y: float, width: float, height: float, fill: str, edge: str = "#33506e") -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="9" fill="{fill}" stroke="{edge}"/>'
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, color: str, arrows: bool = False) -> None:
        ends = ' marker-start="url(#tip)" marker-end="url(#tip)" stroke-width="2"' if arrows else ""
        self.parts.append(f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{color}" fill="none"{ends}/>')


def draw_svg(architecture: Architecture, env: Mapping[str, Any] | None = None) -> str:
    """A picture of the memories, the units below them and all their numbers: one SVG document without references.

    env sets variables, as in `Architecture.evaluate`; where a value is an array its range is shown.
    """
    evaluated = architecture.evaluate(env or {})
    canvas = _Canvas()
    _draw_header(canvas, architecture, evaluated)
    memories = list(evaluated.memories.values())
    for depth, memory in enumerate(memories):
        _draw_memory(canvas, memory, MEMORY_FILLS[min(depth, len(MEMORY_FILLS) - 1)])
        if depth < len(memories) - 1 or evaluated.units:
            _draw_link(canvas, _bandwidth(memory), depth == len(memories) - 1 and len(evaluated.units) > 1)
    units = list(evaluated.units.values())
    for first in range(0, len(units), 2):
        row = units[first : first + 2]
        top, bottom = canvas.y, canvas.y
        for column, unit in enumerate(row):
            x = MARGIN + column * (CARD + GAP) if len(units) > 1 else MARGIN + (INSIDE - CARD) / 2
            bottom = max(bottom, _draw_unit(canvas, unit, x, top, max(_card_height(other) for other in row)))
        canvas.y = bottom + GAP
    for line in _system_lines(evaluated):
        canvas.y += ROW
        canvas.text(MARGIN, canvas.y, line, "name" if line in map(_copied, evaluated.devices.values()) else "body")
    width, height = INSIDE + 2 * MARGIN, canvas.y + (8 if not evaluated.devices else ROW)
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:g}" '
        f'viewBox="0 0 {width} {height:g}" role="img">',
        f"<title>{escape(evaluated.name)}</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" '
        'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="#33506e"/></marker></defs>',
        f'<rect width="{width}" height="{height:g}" fill="#ffffff"/>',
        *canvas.parts,
        "</svg>",
    ]) + "\n"  # fmt: skip


def _draw_header(canvas: _Canvas, architecture: Architecture, evaluated: EvaluatedArchitecture) -> None:
    canvas.text(MARGIN, 46, evaluated.name, "title", 60)
    canvas.text(MARGIN + INSIDE, 46, _clock(evaluated), "body end", 60)
    canvas.y = 70
    for line in textwrap.wrap(architecture.description, 130):
        canvas.text(MARGIN, canvas.y, line, "soft")
        canvas.y += 18
    canvas.y += 6


def _draw_memory(canvas: _Canvas, memory: EvaluatedMemory, fill: str) -> None:
    y, right = canvas.y, MARGIN + INSIDE - 20
    canvas.box(MARGIN, y, INSIDE, MEMORY_HEIGHT, fill)
    canvas.text(MARGIN + 20, y + 29, _copied(memory), "name", 40)
    canvas.text(MARGIN + 20, y + 50, _capacity(memory), "body", 40)
    canvas.text(right, y + 29, _access(memory.access_bits, memory.read_energy_j, memory.write_energy_j), "body end", 90)
    if np.any(memory.latency_s):
        canvas.text(right, y + 50, f"latency {_show(memory.latency_s, 's')}", "body end", 60)
    canvas.y += MEMORY_HEIGHT


def _draw_link(canvas: _Canvas, label: str, forked: bool) -> None:
    centers = [MARGIN + CARD / 2, MARGIN + INSIDE - CARD / 2] if forked else [MARGIN + INSIDE / 2]
    for x in centers:
        canvas.line(x, canvas.y + 5, x, canvas.y + 43, "#33506e", arrows=True)
    if forked:
        canvas.text(MARGIN + INSIDE / 2, canvas.y + 29, label, "soft mid", 60)
    else:
        canvas.text(centers[0] + 16, canvas.y + 29, label, "soft", 60)
    canvas.y += 48


def _card_height(unit: EvaluatedUnit) -> float:
    return 92 + ROW * max(len(unit.ops) + 1, 7) + (46 if unit.registers else 8)


def _draw_unit(canvas: _Canvas, unit: EvaluatedUnit, x: float, y: float, height: float) -> float:
    """Draw a card and return its lower edge."""
    canvas.box(x, y, CARD, height, "#fdf6ea", "#a9812f")
    canvas.text(x + 20, y + 30, _copied(unit), "name", 30)
    canvas.text(x + 20, y + 51, _dims(unit), "body", 54)
    _draw_elements(canvas, unit, x + 20, y + 78)
    left, cycles, right = x + 206, x + 300, x + CARD - 20
    row = y + 86
    for at, label, style in ((left, "OP", ""), (cycles, "CYCLES", " end"), (right, "ENERGY", " end")):
        canvas.text(at, row, label, f"head{style}")
    for kind, op in unit.ops.items():
        canvas.line(left, row + 6, right, row + 6, "#eadcbf")
        row += ROW
        canvas.text(left, row, kind, "body", 12)
        canvas.text(cycles, row, _show(op.cycles, "count"), "body end", 12)
        canvas.text(right, row, _show(op.energy_j, "j"), "body end", 18)
    if unit.registers:
        registers = unit.registers
        energy = _access(registers.access_bits, registers.read_energy_j, registers.write_energy_j)
        canvas.line(x + 20, y + height - 40, right, y + height - 40, "#eadcbf")
        words = f"{_show(registers.words, 'count')} registers each"
        canvas.text(x + 20, y + height - 17, f"{words}, {energy}", "soft", 66)
    return y + height


def _draw_elements(canvas: _Canvas, unit: EvaluatedUnit, x: float, y: float) -> None:
    """The first two dimensions as a grid of at most 8 x 8 processing elements."""
    sizes = [int(np.max(size)) for size in unit.dims.values()][:2]
    across, down = (*sizes, 1, 1)[:2]
    for row in range(min(down, 8)):
        for column in range(min(across, 8)):
            omitted = (across > 8 and column == 6) or (down > 8 and row == 6)  # dots stand for the elements not drawn
            side, fill = (4, "#c9a24a") if omitted else (15, "#e4b95b")
            corner = (15 - side) / 2
            canvas.parts.append(
                f'<rect x="{x + 20 * column + corner:g}" y="{y + 20 * row + corner:g}" width="{side}" height="{side}" '
                f'rx="{min(3, side / 2):g}" fill="{fill}"/>'
            )
