"""A mapping's tree bound to numbers: phases of leaves, each under its loops and held tensors.

Binding evaluates every expression of the tree in an environment whose values may be arrays (design points), takes the
alternatives of `select` and `when` (which must agree over the points of one call), and splits the tree into phases:
the children of a sequence that has no loop around it run one after another and share no tile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from einsum.cascade import Cascade
from einsum.errors import SpecError, join_key, nearest
from einsum.expressions import Expression
from einsum.symbols import as_array, as_floats
from mappings.program import Array
from mappings.schema import Branch, Compute, Grid, Keep, Kept, Loops, Node, Select, Stage, Stall
from mappings.tiles import Loop


@dataclass(frozen=True, eq=False)
class Hold:
    """One allocation at a level: tensors whose tile, as the loops above cut it, stays there.

    buffers  copies of the tile that take capacity, (points, 1)
    rolling  replaced piece by piece: loads overlap with use although there is one copy
    staged   passes through: takes capacity, but is not stored and read again
    """

    level: str
    name: str
    tensors: tuple[str, ...]
    buffers: Array
    rolling: bool
    spills: bool
    staged: bool
    loops: tuple[Loop, ...]
    key: str


@dataclass(frozen=True, eq=False)
class Leaf:
    """Einsums computed together on one unit, under loops and holds (outermost first)."""

    einsums: tuple[str, ...]
    unit: str
    spatial: Mapping[str, str]
    temporal: tuple[str, ...] | None
    chained: bool
    spread: str | None
    lag: int
    loops: tuple[Loop, ...]
    holds: tuple[Hold, ...]
    key: str

    @property
    def name(self) -> str:
        """The Einsums' names, joined."""
        return "+".join(self.einsums)


@dataclass(frozen=True, eq=False)
class Pause:
    """A stall of so many cycles, (points, 1)."""

    name: str
    cycles: Array
    unit: str | None
    loops: tuple[Loop, ...]


@dataclass(frozen=True, eq=False)
class Block:
    """Parts that run in sequence, in parallel or as a pipeline of at most `depth` tiles."""

    kind: Literal["sequence", "parallel", "pipeline"]
    parts: tuple[Part, ...]
    loops: tuple[Loop, ...]
    depth: Array | None = None


Part = Leaf | Pause | Block


@dataclass(frozen=True)
class GridForm:
    """What a grid says of its instances: how many a copy holds, and on a GPU the warps of a block and whether some of
    them only load; None where it does not say. Each is (points, 1)."""

    slots: Array | None = None
    warps: Array | None = None
    specialized: Array | None = None

    def over(self, outer: GridForm) -> GridForm:
        """This form, and what it leaves open from a grid around it."""
        return GridForm(*(own if own is not None else given for own, given in zip(self._all, outer._all, strict=True)))

    @property
    def _all(self) -> tuple[Array | None, Array | None, Array | None]:
        return self.slots, self.warps, self.specialized


@dataclass(frozen=True)
class PhaseNest:
    """One phase: what runs for each tile of the loops that enclose all of it."""

    name: str
    body: Part
    tile_loops: tuple[Loop, ...]
    leaves: tuple[Leaf, ...]
    holds: tuple[Hold, ...]
    form: GridForm

    @property
    def slots(self) -> Array:
        """Instances of the grid that one copy of the private parts holds at a time."""
        return np.ones((1, 1)) if self.form.slots is None else self.form.slots


class Binder:
    """Binds the nest of one mapping to an environment."""

    def __init__(self, cascade: Cascade, env: Mapping[str, Any], points: int, levels: Mapping[str, bool]) -> None:
        """`levels`: every memory and every unit with registers that may hold tensors -> whether it is a memory."""
        self.cascade = cascade
        self.env = env
        self.points = points
        self.levels = levels
        self.forms: dict[Loop, GridForm] = {}
        self.inner_of = {part.inner: base for base, part in cascade.partitions.items()}
        self.outer_of = {part.outer: base for base, part in cascade.partitions.items()}

    def phases(self, nest: Sequence[Node], key: str) -> tuple[PhaseNest, ...]:
        """The phases of a nest, in order. SpecError names the key path of a mistake."""
        return tuple(self._phase(part) for part in _split(self._walk(tuple(nest), (), (), key)))

    def _phase(self, body: Part) -> PhaseNest:
        leaves = tuple(_leaves(body))
        if not leaves:
            raise SpecError("a phase computes nothing: a stall has to stand in a sequence inside the loops", key="nest")
        holds: list[Hold] = []
        for leaf in leaves:
            holds += [hold for hold in leaf.holds if hold not in holds]
        names = [leaf.name for leaf in leaves]
        title = ", ".join(names) if len(names) <= 4 else f"{names[0]} ... {names[-1]}"
        grid = [loop.grid for loop in body.loops]
        if grid != sorted(grid, reverse=True):
            raise SpecError("the loops of a grid have to be outside all others", key="nest")
        form = GridForm()
        for loop in body.loops[: sum(grid)]:
            form = self.forms.get(loop, GridForm()).over(form)
        return PhaseNest(title, body, body.loops, leaves, tuple(holds), form)

    def _walk(self, nodes: tuple[Node, ...], loops: tuple[Loop, ...], holds: tuple[Hold, ...], key: str) -> Part:
        parts: list[Part] = []
        pending = [(node, join_key(key, index) or key) for index, node in enumerate(nodes)]
        while pending:
            node, here = pending.pop(0)
            if isinstance(node, Loops):
                loops += self._loops(node, "for", here)
            elif isinstance(node, Grid):
                loops += self._grid(node, here)
            elif isinstance(node, (Keep, Stage)):
                holds += self._holds(node, loops, here)
            elif isinstance(node, Select):
                chosen, at = self._choose(node, here)
                pending = [(inner, join_key(at, index) or at) for index, inner in enumerate(chosen)] + pending
            elif isinstance(node, Branch):
                place = join_key(here, node.kind) or here
                inside = tuple(
                    self._walk(child, loops, holds, join_key(place, index) or place)
                    for index, child in enumerate(node.children)
                )
                depth = None if node.depth is None else self._whole(node.depth, join_key(here, "depth"))
                parts.append(Block(node.kind, inside, loops, depth) if len(inside) > 1 else inside[0])
            elif isinstance(node, Stall):
                cycles = self._number(node.stall, join_key(here, "stall"), least=0)
                parts.append(Pause(f"stall {here}", cycles, node.on, loops))
            else:
                parts.append(self._leaf(node, loops, holds, here))
        if not parts:
            raise SpecError("the nest computes nothing: it has no 'compute'", key=key)
        first = parts[0]
        return first if len(parts) == 1 else Block("sequence", tuple(parts), first.loops)

    def _loops(self, node: Loops | Grid, kind: str, key: str) -> tuple[Loop, ...]:
        return tuple(
            self._loop(name, chunk, kind == "grid", join_key(key, kind, name)) for name, chunk in node.ranks.items()
        )

    def _grid(self, node: Grid, key: str) -> tuple[Loop, ...]:
        for rank in node.backward:
            if rank not in node.ranks:
                message = f"the grid has no rank '{rank}'{nearest(rank, node.ranks)}"
                raise SpecError(message, key=join_key(key, "backward"))
        loops = tuple(replace(loop, backward=loop.name in node.backward) for loop in self._loops(node, "grid", key))
        special = join_key(key, "specialized")
        if loops:
            self.forms[loops[-1]] = GridForm(
                None if node.slots is None else self._whole(node.slots, join_key(key, "slots")),
                None if node.warps is None else self._whole(node.warps, join_key(key, "warps")),
                None if node.specialized is None else self._number(node.specialized, special, least=0),
            )
        return loops

    def _loop(self, name: str, chunk: Expression, grid: bool, key: str | None) -> Loop:
        known = {*self.cascade.ranks, *self.cascade.partitions, *self.inner_of, *self.outer_of}
        if name not in known:
            raise SpecError(f"cascade '{self.cascade.name}' has no rank '{name}'{nearest(name, known)}", key=key)
        size = self._whole(chunk, key)
        if name in self.outer_of:
            base = self.outer_of[name]
            return Loop(name, base, size * self.partition_size(base), grid)
        return Loop(name, self.inner_of.get(name, name), size, grid)

    def partition_size(self, base: str) -> Array:
        """Coordinates of one chunk of a partitioned rank, (points, 1)."""
        part = self.cascade.partitions[base]
        return self._number(part.size, f"variables.{part.size}", least=1)

    def _holds(self, node: Keep | Stage, loops: tuple[Loop, ...], key: str) -> tuple[Hold, ...]:
        levels, kind = (node.keep, "keep") if isinstance(node, Keep) else (node.stage, "stage")
        holds = []
        for level, entries in levels.items():
            here = join_key(key, kind, level)
            if level not in self.levels:
                raise SpecError(
                    f"the architecture has no memory or unit '{level}'{nearest(level, self.levels)}", key=here
                )
            for name, kept in entries.items():
                place = join_key(here, name) or ""
                if kept.when is None or self._truth(kept.when, join_key(place, "when")):
                    holds.append(self._hold(level, name, kept, loops, isinstance(node, Stage), place))
        return tuple(holds)

    def _hold(self, level: str, name: str, kept: Kept, loops: tuple[Loop, ...], staged: bool, key: str) -> Hold:
        for tensor in kept.tensors:
            if tensor not in self.cascade.tensors:
                raise SpecError(
                    f"cascade '{self.cascade.name}' has no tensor '{tensor}'{nearest(tensor, self.cascade.tensors)}",
                    key=key,
                )
        rolling = kept.buffers == "rolling"
        buffers = (
            np.ones((self.points, 1))
            if isinstance(kept.buffers, str)
            else self._whole(kept.buffers, join_key(key, "buffers"))
        )
        return Hold(level, name, kept.tensors, buffers, rolling, kept.overflow == "spill", staged, loops, key)

    def _leaf(self, node: Compute, loops: tuple[Loop, ...], holds: tuple[Hold, ...], key: str) -> Leaf:
        names = [einsum.name for einsum in self.cascade.einsums]
        for name in node.compute:
            if name not in names:
                message = f"cascade '{self.cascade.name}' has no Einsum '{name}'{nearest(name, names)}"
                raise SpecError(message, key=join_key(key, "compute"))
        return Leaf(
            node.compute,
            node.on,
            dict(node.spatial),
            node.temporal,
            node.issue == "chained",
            node.spread,
            node.lag,
            loops,
            holds,
            key,
        )

    def _choose(self, node: Select, key: str) -> tuple[tuple[Node, ...], str]:
        for index, choice in enumerate(node.select):
            here = join_key(key, "select", index) or key
            if self._truth(choice.when, join_key(here, "when")):
                return choice.do, join_key(here, "do") or here
        conditions = "; ".join(str(choice.when) for choice in node.select)
        raise SpecError(f"none of the alternatives applies: {conditions}", key=join_key(key, "select"))

    def _truth(self, condition: Expression, key: str | None) -> bool:
        try:
            value = as_array(condition.evaluate(self.env))
        except SpecError as error:
            raise error.located(key=key) from None
        if value.dtype.kind not in "biuf":
            raise SpecError(f"expected a condition, '{condition}' is {value.flat[0]!r}", key=key)
        truth = value != 0
        if truth.all():
            return True
        if truth.any():
            raise StructureVaries(condition)
        return False

    def _number(self, expression: Expression, key: str | None, *, least: float) -> Array:
        try:
            value = expression.evaluate(self.env)
        except SpecError as error:
            raise error.located(key=key) from None
        return as_points(value, self.points, key, least, str(expression))

    def _whole(self, expression: Expression, key: str | None) -> Array:
        """A number of things, at least 1."""
        number = self._number(expression, key, least=1)
        if (number != np.floor(number)).any():
            raise SpecError(f"expected a whole number, '{expression}' is {number.max():g}", key=key)
        return number


class StructureVaries(Exception):
    """A condition differs between the design points of one call: they have to be evaluated in groups."""

    def __init__(self, condition: Expression) -> None:
        super().__init__(str(condition))
        self.condition = condition


def as_points(value: Any, points: int, key: str | None, least: float, text: str) -> Array:
    """A number or an array over design points as a (points, 1) array; SpecError below `least` or for text."""
    if isinstance(value, str) or as_array(value).dtype.kind not in "biuf":
        raise SpecError(f"expected a number, '{text}' is {value!r:.60}", key=key)
    array = np.broadcast_to(as_floats(value).reshape(-1, 1), (points, 1))
    if (array < least).any():
        found = f"{array.min():g}"
        origin = f"'{text}' is {found}" if text != found else f"found {found}"
        raise SpecError(f"expected at least {least:g}, {origin}", key=key)
    return array


def _split(body: Part) -> list[Part]:
    """The phases of a body: children of sequences that no loop encloses."""
    if isinstance(body, Block) and body.kind == "sequence" and not body.loops:
        return [phase for part in body.parts for phase in _split(part)]
    return [body]


def _leaves(part: Part) -> list[Leaf]:
    if isinstance(part, Leaf):
        return [part]
    return [leaf for inner in part.parts for leaf in _leaves(inner)] if isinstance(part, Block) else []
