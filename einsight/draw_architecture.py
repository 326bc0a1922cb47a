"""Drawings of an architecture: a tree of text for the terminal, and an SVG picture that needs nothing else."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from architectures.architecture import Architecture
from architectures.evaluated import Device, EvaluatedArchitecture, EvaluatedMemory, EvaluatedSelector, EvaluatedUnit
from architectures.quantity import Number
from einsight.svg import EDGE, SOFT, Svg
from einsight.table import WIDTH
from einsum.units import format_quantity


def draw_text(architecture: Architecture, env: Mapping[str, Any] | None = None) -> str:
    """The tree of memories and units with their numbers, at most 100 columns wide.

    env sets variables, as in `Architecture.evaluate`; where a value is an array its range is shown.
    """
    evaluated = architecture.evaluate(env or {})
    lines = [f"{evaluated.name} · {_clock(evaluated)}"]
    lines += textwrap.wrap(architecture.description, WIDTH, break_on_hyphens=False)
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
    return "\n".join(_cut(line, WIDTH).rstrip() for line in lines) + "\n"


def _variable_lines(architecture: Architecture, env: Mapping[str, Any]) -> list[str]:
    """What can be set: each variable with its expression, or with the value that `env` gives it."""
    settings = [f"{name} = {_setting(env.get(name, text))}" for name, text in architecture.variables.items()]
    unbroken = " · ".join(setting.replace(" ", "\u00a0") for setting in settings)
    lines = textwrap.wrap(f"variables: {unbroken}", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
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
        wrapped = textwrap.wrap(" · ".join(facts), WIDTH - 3, break_long_words=False)
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

STYLES: dict[str, dict[str, Any]] = {
    "title": {"size": 23, "bold": True},
    "name": {"size": 16, "bold": True},
    "body": {"size": 13},
    "soft": {"size": 12.5, "color": SOFT},
    "head": {"size": 11, "color": SOFT},
}
"""Kinds of text in the picture."""


class _Sheet(Svg):
    """The picture of an architecture: it grows downwards, and `height` is what its parts have taken so far."""

    def words(self, x: float, y: float, text: str, style: str, limit: int = 140, anchor: str = "start") -> None:
        """A line of text, cut where it is too long."""
        self.text(x, y, _cut(text, limit), anchor=anchor, **STYLES[style])


def draw_svg(architecture: Architecture, env: Mapping[str, Any] | None = None) -> str:
    """A picture of the memories, the units below them and all their numbers: one SVG document without references.

    env sets variables, as in `Architecture.evaluate`; where a value is an array its range is shown.
    """
    evaluated = architecture.evaluate(env or {})
    sheet = _Sheet(INSIDE + 2 * MARGIN, 0.0, evaluated.name)
    _draw_header(sheet, architecture, evaluated)
    memories = list(evaluated.memories.values())
    for depth, memory in enumerate(memories):
        _draw_memory(sheet, memory, MEMORY_FILLS[min(depth, len(MEMORY_FILLS) - 1)])
        if depth < len(memories) - 1 or evaluated.units:
            _draw_link(sheet, _bandwidth(memory), depth == len(memories) - 1 and len(evaluated.units) > 1)
    units = list(evaluated.units.values())
    for first in range(0, len(units), 2):
        row = units[first : first + 2]
        top, bottom = sheet.height, sheet.height
        for column, unit in enumerate(row):
            x = MARGIN + column * (CARD + GAP) if len(units) > 1 else MARGIN + (INSIDE - CARD) / 2
            bottom = max(bottom, _draw_unit(sheet, unit, x, top, max(_card_height(other) for other in row)))
        sheet.height = bottom + GAP
    for line in _system_lines(evaluated):
        sheet.height += ROW
        sheet.words(MARGIN, sheet.height, line, "name" if line in map(_copied, evaluated.devices.values()) else "body")
    sheet.height += ROW if evaluated.devices else 8
    return str(sheet)


def _draw_header(sheet: _Sheet, architecture: Architecture, evaluated: EvaluatedArchitecture) -> None:
    sheet.words(MARGIN, 46, evaluated.name, "title", 60)
    sheet.words(MARGIN + INSIDE, 46, _clock(evaluated), "body", 60, "end")
    sheet.height = 70
    for line in textwrap.wrap(architecture.description, 130):
        sheet.words(MARGIN, sheet.height, line, "soft")
        sheet.height += 18
    sheet.height += 6


def _draw_memory(sheet: _Sheet, memory: EvaluatedMemory, fill: str) -> None:
    y, right = sheet.height, MARGIN + INSIDE - 20
    sheet.rectangle(MARGIN, y, INSIDE, MEMORY_HEIGHT, fill, EDGE)
    sheet.words(MARGIN + 20, y + 29, _copied(memory), "name", 40)
    sheet.words(MARGIN + 20, y + 50, _capacity(memory), "body", 40)
    sheet.words(
        right, y + 29, _access(memory.access_bits, memory.read_energy_j, memory.write_energy_j), "body", 90, "end"
    )
    if np.any(memory.latency_s):
        sheet.words(right, y + 50, f"latency {_show(memory.latency_s, 's')}", "body", 60, "end")
    sheet.height += MEMORY_HEIGHT


def _draw_link(sheet: _Sheet, label: str, forked: bool) -> None:
    centers = [MARGIN + CARD / 2, MARGIN + INSIDE - CARD / 2] if forked else [MARGIN + INSIDE / 2]
    for x in centers:
        sheet.line(x, sheet.height + 5, x, sheet.height + 43, arrows=True)
    if forked:
        sheet.words(MARGIN + INSIDE / 2, sheet.height + 29, label, "soft", 60, "middle")
    else:
        sheet.words(centers[0] + 16, sheet.height + 29, label, "soft", 60)
    sheet.height += 48


def _card_height(unit: EvaluatedUnit) -> float:
    return 92 + ROW * max(len(unit.ops) + 1, 7) + (46 if unit.registers else 8)


def _draw_unit(sheet: _Sheet, unit: EvaluatedUnit, x: float, y: float, height: float) -> float:
    """Draw a card and return its lower edge."""
    sheet.rectangle(x, y, CARD, height, "#fdf6ea", "#a9812f")
    sheet.words(x + 20, y + 30, _copied(unit), "name", 30)
    sheet.words(x + 20, y + 51, _dims(unit), "body", 54)
    _draw_elements(sheet, unit, x + 20, y + 78)
    left, cycles, right = x + 206, x + 300, x + CARD - 20
    row = y + 86
    for at, label, anchor in ((left, "OP", "start"), (cycles, "CYCLES", "end"), (right, "ENERGY", "end")):
        sheet.words(at, row, label, "head", anchor=anchor)
    for kind, op in unit.ops.items():
        sheet.line(left, row + 6, right, row + 6, "#eadcbf")
        row += ROW
        sheet.words(left, row, kind, "body", 12)
        sheet.words(cycles, row, _show(op.cycles, "count"), "body", 12, "end")
        sheet.words(right, row, _show(op.energy_j, "j"), "body", 18, "end")
    if unit.registers:
        registers = unit.registers
        energy = _access(registers.access_bits, registers.read_energy_j, registers.write_energy_j)
        sheet.line(x + 20, y + height - 40, right, y + height - 40, "#eadcbf")
        words = f"{_show(registers.words, 'count')} registers each"
        sheet.words(x + 20, y + height - 17, f"{words}, {energy}", "soft", 66)
    return y + height


def _draw_elements(sheet: _Sheet, unit: EvaluatedUnit, x: float, y: float) -> None:
    """The first two dimensions as a grid of at most 8 x 8 processing elements."""
    sizes = [int(np.max(size)) for size in unit.dims.values()][:2]
    across, down = (*sizes, 1, 1)[:2]
    for row in range(min(down, 8)):
        for column in range(min(across, 8)):
            omitted = (across > 8 and column == 6) or (down > 8 and row == 6)  # dots stand for the elements not drawn
            side, fill = (4, "#c9a24a") if omitted else (15, "#e4b95b")
            corner = (15 - side) / 2
            sheet.rectangle(x + 20 * column + corner, y + 20 * row + corner, side, side, fill, radius=min(3, side / 2))
