"""A mapping as a picture: its loop nest, what is held where, and which unit computes which Einsum."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from einsight.svg import LINE, Svg, text_width
from einsight.table import WIDTH, render_fields
from mappings import Mapping as MappingFile
from mappings.gpu.kernel import GridLaunch, GridStep
from mappings.plan import PlanPhase
from mappings.schema import Branch, Compute, Grid, Keep, Kept, Loops, Node, Select, Stage, Stall
from mappings.stages import PlanStage

LOOP, HELD, BRANCH, CHOICE = "#f3f7fc", "#ffffff", "#eef1f4", "#f7f4ee"
UNITS = ("#fdf0dc", "#dff0df", "#f6dfe3", "#e8e2f5", "#dcf0f3")
"""Fills of computed Einsums, one for each unit in the order in which the nest names them."""
_PAD = 10
_GAP = 8
_TOP = 56


@dataclass(frozen=True)
class Block:
    """A part of the nest: a title, and the parts that it encloses, one below the other or `beside` each other."""

    title: str
    fill: str
    children: tuple[Block, ...] = ()
    beside: bool = False


def draw_text(mapping: MappingFile, env: Mapping[str, Any] | None = None) -> str:
    """The mapping's header, its variables (those in `env` with their values there) and its nest, indented."""
    header = mapping.header
    variables = {**mapping.variables, **(env or {})}
    fields = [
        ("description", header.description),
        ("source", header.source),
        ("cascade", header.cascade or "any that has its Einsums"),
        ("architecture", header.architecture or "any that has its memories and units"),
        ("variables", " · ".join(f"{name} = {value}" for name, value in variables.items())),
        ("table", f"{header.rows.file} by {', '.join(header.rows.keys)}" if header.rows else ""),
        ("linear layers", header.linear_layers or ""),
    ]
    lines = [line for block in _nest(mapping) for line in _lines(block, 0)]
    return "\n".join([render_fields([(name, " ".join(text.split())) for name, text in fields if text]), "", *lines])


def _lines(block: Block, depth: int) -> Iterator[str]:
    indent = "  " * depth
    if block.title:
        yield from textwrap.wrap(block.title, WIDTH, initial_indent=indent, subsequent_indent=indent + "    ")
    for child in block.children:
        yield from _lines(child, depth + bool(block.title))


def draw_svg(mapping: MappingFile, env: Mapping[str, Any] | None = None) -> str:
    """The nest as boxes in boxes, an SVG document; it does not depend on the variables in `env`."""
    block = Block("", "#ffffff", tuple(_nest(mapping)))
    width, height = _size(block)
    picture = Svg(max(width, text_width([mapping.name]) * 1.4) + 2 * _PAD, height + _TOP, mapping.name)
    picture.text(2 * _PAD, 26, mapping.name, size=15)
    runs = " on ".join(name for name in (mapping.header.cascade, mapping.header.architecture) if name)
    picture.text(2 * _PAD, 44, runs)
    _draw(picture, block, _PAD, _TOP - _PAD, width)
    return str(picture)


def _size(block: Block) -> tuple[float, float]:
    """Width and height that a block needs."""
    title = LINE if block.title else 0
    sizes = [_size(child) for child in block.children]
    inner = sum if block.beside else max
    across = inner([size[0] for size in sizes]) if sizes else 0.0
    down = (max if block.beside else sum)([size[1] for size in sizes]) if sizes else 0.0
    gaps = _GAP * (len(sizes) - 1) if sizes else 0
    width = across + (gaps if block.beside else 0)
    height = title + down + (0 if block.beside else gaps) + (_GAP if title and sizes else 0)
    return max(width, text_width([block.title])) + 2 * _PAD, height + 2 * _PAD


def _draw(picture: Svg, block: Block, x: float, y: float, width: float) -> None:
    height = _size(block)[1]
    if block.title:
        picture.box(x + width / 2, y + height / 2, width, height, [], block.fill)
        picture.text(x + _PAD, y + _PAD + LINE - 4, block.title)
        y += LINE + (_GAP if block.children else 0)
    y += _PAD
    x += _PAD
    spare = (width - _size(block)[0]) / max(len(block.children), 1) if block.beside else 0.0
    for child in block.children:
        child_width, child_height = _size(child)
        _draw(picture, child, x, y, child_width + spare if block.beside else width - 2 * _PAD)
        x, y = (x + child_width + spare + _GAP, y) if block.beside else (x, y + child_height + _GAP)


def _nest(mapping: MappingFile) -> tuple[Block, ...]:
    if mapping.plan is not None:
        return tuple(_phase(phase) for phase in mapping.plan.phases)
    if mapping.kernel is not None:
        return tuple(_launch(launch) for launch in mapping.kernel.launches)
    units = dict.fromkeys(_units(mapping.nest))
    fills = {unit: UNITS[number % len(UNITS)] for number, unit in enumerate(units)}
    return _blocks(mapping.nest, fills)


def _launch(launch: GridLaunch) -> Block:
    """A launch of a GPU kernel: its grid of thread blocks, and their loops with what each trip does."""
    grid = ", ".join(f"{axis} {blocks}" for axis, blocks in launch.grid.items())
    when = f", when {launch.when}" if launch.when is not None else ""
    title = f"grid {launch.launch}: {grid}; {launch.warps} warps, {launch.stages} stages{when}"
    return Block(
        title,
        BRANCH,
        tuple(
            Block(f"{loop.trips} times" if str(loop.trips) != "1" else "once", LOOP, _steps(loop.steps))
            for loop in launch.loops
        ),
    )


def _steps(steps: Sequence[GridStep]) -> tuple[Block, ...]:
    fills = {"product": UNITS[0], "vector": UNITS[1]}
    names = [step.name if step.kind in ("load", "store") else f"{step.kind} {step.name}" for step in steps]
    return tuple(Block(name, fills.get(step.kind, HELD)) for name, step in zip(names, steps, strict=True))


def _phase(phase: PlanPhase) -> Block:
    """A phase of a plan with its stages."""
    if phase.rows is not None:
        apart = f", rows apart by {', '.join(phase.rows.serial)}" if phase.rows.serial else ""
        return Block(f"{phase.phase}: tiles of a trace{apart}", BRANCH, _stages(phase.stages))
    values = "".join(f", {name} from {each.start}, {each.count} times" for name, each in phase.series.items())
    return Block(f"{phase.phase}: {phase.tiles} tiles{values}", BRANCH, _stages(phase.stages))


def _stages(stages: Sequence[PlanStage]) -> tuple[Block, ...]:
    """The stages from top to bottom, in the colour of what they occupy."""
    parts = dict.fromkeys(stage.on for stage in stages if stage.on is not None)
    fills = {part: UNITS[number % len(UNITS)] for number, part in enumerate(parts)}
    return tuple(Block(_stage(stage), fills.get(stage.on or "", HELD)) for stage in stages)


def _stage(stage: PlanStage) -> str:
    text = stage.stage + (f" on {stage.on}" if stage.on else "")
    text += f" ({', '.join(stage.computes)})" if stage.computes else ""
    text += f", along {', '.join(stage.along)}" if stage.along else ""
    waits = [
        name if str(distance) == "0" else f"{name} {distance} tiles back" for name, distance in stage.after.items()
    ]
    text += f", after {', '.join(waits)}" if waits else ""
    return text + (f", when {stage.when}" if stage.when is not None else "")


def _units(nodes: Sequence[Node]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Compute):
            yield node.on
        elif isinstance(node, Branch):
            for child in node.children:
                yield from _units(child)
        elif isinstance(node, Select):
            for choice in node.select:
                yield from _units(choice.do)


def _blocks(nodes: Sequence[Node], fills: Mapping[str, str]) -> tuple[Block, ...]:
    """The parts of a nest; a loop encloses all that follows it."""
    found: list[Block] = []
    for number, node in enumerate(nodes):
        if isinstance(node, (Loops, Grid)):
            steps = ", ".join(f"{rank} by {step}" for rank, step in node.ranks.items())
            title = f"for {steps}" if isinstance(node, Loops) else f"grid {steps}, {node.slots} on each copy"
            return (*found, Block(title, LOOP, _blocks(nodes[number + 1 :], fills)))
        found.append(_block(node, fills))
    return tuple(found)


def _block(node: Node, fills: Mapping[str, str]) -> Block:
    if isinstance(node, Keep):
        return Block(f"keep {_levels(node.keep)}", HELD)
    if isinstance(node, Stage):
        return Block(f"stage {_levels(node.stage)}", HELD)
    if isinstance(node, Compute):
        return Block(_compute(node), fills[node.on])
    if isinstance(node, Stall):
        return Block(f"stall {node.stall} cycles" + (f" of {node.on}" if node.on else ""), HELD)
    if isinstance(node, Select):
        choices = (Block(f"when {choice.when}", LOOP, _blocks(choice.do, fills)) for choice in node.select)
        return Block("one of", CHOICE, tuple(choices))
    assert isinstance(node, Branch)
    depth = f", at most {node.depth} tiles in flight" if node.depth is not None else ""
    children = (_joined(_blocks(child, fills), node.kind == "parallel") for child in node.children)
    return Block(node.kind + depth, BRANCH, tuple(children), beside=node.kind == "parallel")


def _joined(blocks: tuple[Block, ...], titled: bool) -> Block:
    """One block of a branch's child."""
    return blocks[0] if len(blocks) == 1 else Block("in order" if titled else "", LOOP, blocks)


def _compute(node: Compute) -> str:
    text = f"{', '.join(node.compute)} on {node.on}"
    if node.spatial:
        text += f" ({', '.join(f'{rank} over {dim}' for rank, dim in node.spatial.items())})"
    if node.temporal:
        text += f", then {', '.join(node.temporal)}"
    if node.issue == "chained":
        text += ", chained"
    if node.lag:
        text += f", {node.lag} {'tile' if node.lag == 1 else 'tiles'} behind"
    return text + (f", spread over {node.spread}" if node.spread else "")


def _levels(levels: Mapping[str, Mapping[str, Kept]]) -> str:
    return "; ".join(
        f"in {level}: {', '.join(_kept(name, kept) for name, kept in entries.items())}"
        for level, entries in levels.items()
    )


def _kept(name: str, kept: Kept) -> str:
    text = name if kept.tensors == (name,) else f"{name} = {'+'.join(kept.tensors)}"
    buffers = str(kept.buffers)
    options = [] if buffers == "1" else ["rolling" if buffers == "rolling" else f"{buffers} buffers"]
    options += ["spills"] * (kept.overflow == "spill") + [f"if {kept.when}"] * (kept.when is not None)
    return f"{text} ({', '.join(options)})" if options else text
