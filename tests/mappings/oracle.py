"""A slow interpreter of small mappings, against which the lowering is tested.

It reads the YAML data of a nest, walks every iteration of every loop in order, and keeps which tile each hold and each
unit's registers contain at the moment. A transfer is counted when a tile is needed that is not there. An Einsum runs
in the first tile in which its inputs are complete and its points have not been computed yet; complete means that all
points that contribute to an element have run. Nothing here knows reuse factors, classes of tiles, or gates.

Under a mask of two ranks a tile without a kept point is passed over. A rank of the mask that no loop cuts has in a tile
the coordinates that the tile's kept points need. What a hold has of such a rank it keeps, and takes only what is new.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, product
from typing import Any

from einsum.access import Access
from einsum.cascade import Cascade
from einsum.einsum import Einsum

Box = dict[str, Sequence[int]]
"""Base rank -> its coordinates, a range or a tuple."""
Identity = tuple[Any, ...]
Elements = frozenset[Any]
Keeps = Callable[[Mapping[str, int]], bool]
BRANCHES = ("sequence", "parallel", "pipeline")


class Lost(Exception):
    """A value was read from a hold whose tile had been replaced since it was computed."""


class Stuck(Exception):
    """Points of an Einsum were never computed: their inputs were not complete when their turn came."""


@dataclass
class Tally:
    """Words by (level, tensor), cycles by unit, operations by (unit, kind)."""

    read: Counter[tuple[str, str]] = field(default_factory=Counter)
    write: Counter[tuple[str, str]] = field(default_factory=Counter)
    cycles: Counter[str] = field(default_factory=Counter)
    operations: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(eq=False)
class Place:
    """Somewhere tiles stay: a hold of a level, or (with no level) the registers of one leaf.

    producers  Einsums computed below it
    now        identity and elements of the tiles that are there: one for each set of ranks that the loops have cut
    written    whether a result was put there, rather than an operand
    seen       elements of all tiles that results were put into
    parent     where the tile goes when another one takes its place; None when nothing further out needs it
    """

    level: str | None
    tensor: str
    producers: frozenset[str] = frozenset()
    now: dict[frozenset[str], tuple[Identity, Elements]] = field(default_factory=dict)
    written: bool = False
    seen: set[Any] = field(default_factory=set)
    parent: Place | None = None


Chain = list[tuple[Place, Box]]


class Oracle:
    """Runs one nest over one cascade with bound extents and variables."""

    def __init__(
        self,
        cascade: Cascade,
        nest: list[Any],
        values: Mapping[str, int],
        units: Mapping[str, Mapping[str, Any]],
        keeps: Keeps | None = None,
        over: tuple[str, str] = ("p", "m"),
    ) -> None:
        """`units`: unit -> its `dims` and the cycles of its `ops`; the outermost level is called DRAM.

        keeps  whether a mask keeps a point of the two base ranks `over`
        """
        self.cascade = cascade
        self.keeps = keeps
        self.over = over
        self.values = dict(values)
        self.units = units
        self.tally = Tally()
        self.sizes = {base: int(part.size.evaluate(self.values)) for base, part in cascade.partitions.items()}
        self.halves = {name: base for base, part in cascade.partitions.items() for name in (part.outer, part.inner)}
        self.outer = {part.outer for part in cascade.partitions.values()}
        self.whole: Box = {
            name: range(int(rank.extent.evaluate(self.values)))
            for name, rank in cascade.ranks.items()
            if name not in self.halves
        }
        for base, all_of_it in self.whole.items():
            if base in cascade.partitions:
                self.values[cascade.partitions[base].outer.upper()] = -(-len(all_of_it) // self.sizes[base])
        self.outside = {name for name, tensor in cascade.tensors.items() if tensor.kind != "intermediate"}
        self.roots = {name: Place("DRAM", name) for name in self.outside}
        self.places: dict[tuple[Any, ...], Place] = {}
        self.known_elements: dict[tuple[str, tuple[Sequence[int], ...]], Elements] = {}
        self.known_latest: dict[str, set[str]] = {}
        self.done: dict[str, set[tuple[int, ...]]] = {einsum.name: set() for einsum in cascade.einsums}
        self.due: Counter[tuple[str, tuple[int, ...]]] = Counter()
        for einsum in cascade.einsums:
            for point in self.points(einsum, self.whole):
                self.due[einsum.name, self.element(einsum.output, einsum, point)] += 1
        self.made: Counter[tuple[str, tuple[int, ...]]] = Counter()
        self._walk(nest, self.whole, [], ("nest",), frozenset())
        self._finish()

    # What an access touches.

    def points(self, einsum: Einsum, box: Box) -> list[tuple[int, ...]]:
        """Coordinates of the Einsum's ranks in a box, those that the mask keeps."""
        bases = list(dict.fromkeys(self.halves.get(rank, rank) for rank in einsum.ranks))
        found = []
        masked = self.keeps is not None and set(self.over) <= set(bases)
        for coordinates in product(*(box[base] for base in bases)):
            at = dict(zip(bases, coordinates, strict=True))
            if masked and not self.keeps(at):  # type: ignore[misc]
                continue
            found.append(tuple(self._coordinate(rank, at) for rank in einsum.ranks))
        return list(dict.fromkeys(found))

    def _coordinate(self, rank: str, at: Mapping[str, int]) -> int:
        if rank not in self.halves:
            return at[rank]
        base = self.halves[rank]
        return at[base] // self.sizes[base] if rank in self.outer else at[base] % self.sizes[base]

    def element(self, access: Access, einsum: Einsum, point: tuple[int, ...]) -> tuple[int, ...]:
        """The element of the tensor that an access touches at a point."""
        at = dict(zip(einsum.ranks, point, strict=True))
        return tuple(
            int(sum(factor.evaluate(self.values) * at[rank] for rank, factor in index.terms.items()))
            + int(index.offset.evaluate(self.values))
            for index in access.indices
        )

    def latest(self, tensor: str) -> set[str]:
        """Iterative ranks along which only the latest value of a tensor exists."""
        if tensor not in self.known_latest:
            outputs = [einsum.output for einsum in self.cascade.einsums if einsum.name == tensor]
            steps = [index.step for output in outputs for index in output.indices]
            self.known_latest[tensor] = {step[0] for step in steps if step is not None and step[1] != 0}
        return self.known_latest[tensor]

    def tile(
        self, access: Access, box: Box, needed: Box, *, state: bool
    ) -> tuple[frozenset[str], Identity, Elements]:
        """Its ranks that are cut, what tells one tile of a tensor from another, and the elements of it in `needed`.

        `state`: a running value is one tile.
        """
        dropped = self.latest(access.tensor)
        ranks = tuple(rank for rank in access.ranks if not (state and rank in dropped))
        lasting = [rank for rank in ranks if rank not in dropped]
        bases = {self.halves.get(rank, rank) for rank in lasting}
        cut = frozenset(base for base in bases if box[base] != self.whole[base])
        identity = tuple(
            (rank, *self._range(rank, ranks, box)) for rank in lasting if self.halves.get(rank, rank) in cut
        )
        if not state:
            identity = (*identity, *((rank, *self._range(rank, ranks, box)) for rank in ranks if rank in dropped))
        elements = self._elements(access, needed, dropped)
        at_once = () if state else tuple((rank, *self._range(rank, ranks, needed)) for rank in ranks if rank in dropped)
        return cut, identity, frozenset((at_once, element) for element in elements) if at_once else elements

    def _range(self, rank: str, ranks: Iterable[str], box: Box) -> tuple[int, int]:
        base = self.halves.get(rank, rank)
        first, end = box[base][0], box[base][-1] + 1
        partner = any(other != rank and self.halves.get(other) == base for other in ranks)
        if rank in self.outer and not partner:
            return first // self.sizes[base], -(-end // self.sizes[base])
        return first, end

    def _elements(self, access: Access, box: Box, dropped: set[str]) -> Elements:
        """Elements that an access touches, found one by one."""
        key = str(access), tuple(box[self.halves.get(rank, rank)] for rank in access.ranks)
        if key not in self.known_elements:
            self.known_elements[key] = frozenset(self._touched(access, box, dropped))
        return self.known_elements[key]

    def _touched(self, access: Access, box: Box, dropped: set[str]) -> set[tuple[int, ...]]:
        bases = list(dict.fromkeys(self.halves.get(rank, rank) for rank in access.ranks))
        indices = [index for index in access.indices if not set(index.terms) & dropped and index.terms]
        touched = set()
        for coordinates in product(*(box[base] for base in bases)):
            at = dict(zip(bases, coordinates, strict=True))
            touched.add(
                tuple(
                    sum(f.evaluate(self.values) * self._coordinate(rank, at) for rank, f in index.terms.items())
                    for index in indices
                )
            )
        return touched

    # The walk.

    def _chunks(self, name: str, chunk: int, box: Box) -> Iterator[Box]:
        base = self.halves.get(name, name)
        step = chunk * self.sizes[base] if name in self.outer else chunk
        for start in range(0, len(box[base]), step):
            yield {**box, base: box[base][start : start + step]}

    def _walk(
        self, nodes: list[Any], box: Box, holds: Chain, key: tuple[Any, ...], looped: frozenset[str]
    ) -> None:
        for number, node in enumerate(nodes):
            here = (*key, number)
            if "for" in node:
                boxes: Iterable[Box] = [box]
                for name, chunk in node["for"].items():
                    boxes = [cut for outer in boxes for cut in self._chunks(name, chunk, outer)]
                    looped |= {self.halves.get(name, name)}
                for inside in boxes:
                    self._walk(nodes[number + 1 :], inside, holds, (*here, "inside"), looped)
                return
            if "keep" in node:
                added = [
                    (self._place((*here, level, tensor), level, tensor, nodes[number + 1 :]), box)
                    for level, tensors in node["keep"].items()
                    for tensor in tensors
                ]
                holds = [*holds, *added]
            elif "compute" in node:
                self._compute(node, box, holds, here, looped)
            else:
                kind = next(kind for kind in BRANCHES if kind in node)
                for child, inner in enumerate(node[kind]):
                    self._walk(inner if isinstance(inner, list) else [inner], box, holds, (*here, child), looped)

    def _place(self, key: tuple[Any, ...], level: str | None, tensor: str, below: list[Any]) -> Place:
        if key not in self.places:
            self.places[key] = Place(level, tensor, frozenset(_computed(below)))
        return self.places[key]

    # One leaf in one tile.

    def _compute(
        self, node: dict[str, Any], tile: Box, holds: Chain, key: tuple[Any, ...], looped: frozenset[str]
    ) -> None:
        names = node["compute"] if isinstance(node["compute"], list) else [node["compute"]]
        einsums = [self.cascade.einsum(name) for name in names]
        uncut = self._uncut(einsums[0], tile, looped)
        if uncut is None:
            return
        box = {**tile, **uncut}
        if not self._ready(einsums, names, box):
            return
        unit = self.units[node["on"]]
        self._count_points(einsums, node["on"], box)
        cycles = [sum(unit["ops"][kind] * count for kind, count in einsum.ops.items()) for einsum in einsums]
        steps = list(self._steps(einsums[0], node, unit, box))
        self._forget(einsums, steps, key)
        for inside in steps:
            self.tally.cycles[node["on"]] += sum(cycles)
            moved: set[tuple[str, frozenset[str]]] = set()
            for einsum in einsums:
                for access in einsum.inputs:
                    ranks = access.tensor, frozenset(access.ranks) - self.latest(access.tensor)
                    if ranks in moved or (access.tensor in names and not self._stored(access.tensor, holds)):
                        continue
                    moved.add(ranks)
                    self._fetch(access, self._piece(access, inside, steps, tile), holds, key, uncut)
            for einsum in einsums:
                self._put(einsum, self._piece(einsum.output, inside, steps, tile), holds, key, uncut)
        self._forget(einsums, steps, key)

    def _uncut(self, einsum: Einsum, tile: Box, looped: frozenset[str]) -> Box | None:
        """What a tile needs of the mask's ranks that no loop cuts; None for a tile without any kept point."""
        if self.keeps is None:
            return {}
        row, column = self.over
        if not any(self.keeps({row: r, column: c}) for r in tile[row] for c in tile[column]):
            return None
        iterated = {self.halves.get(rank, rank) for rank in einsum.ranks}
        found: Box = {}
        for rank, other in ((row, column), (column, row)):
            if rank not in looped and rank in iterated:
                # Gated work does at once what the tiles that it skips need.
                across = tile[other] if other in iterated else self.whole[other]
                found[rank] = tuple(
                    at for at in self.whole[rank] if any(self.keeps({rank: at, other: c}) for c in across)
                )
        return found

    def _in_pieces(self, access: Access, steps: list[Box]) -> bool:
        """Whether parts of a tensor come to the elements one after the other in the steps of a tile."""
        ranks = [self.halves.get(rank, rank) for rank in access.ranks]
        return any(step[rank] != steps[0][rank] for step in steps for rank in ranks)

    def _piece(self, access: Access, inside: Box, steps: list[Box], tile: Box) -> tuple[Box, Box]:
        """What tells the elements' part of a tensor from others, and what is in it.

        Of a tile that is taken in one piece the elements keep what they have, as a hold does.
        """
        return (inside if self.keeps is None or self._in_pieces(access, steps) else tile), inside

    def _forget(self, einsums: list[Einsum], steps: list[Box], key: tuple[Any, ...]) -> None:
        """Under a mask, elements that take a tile in several pieces share none of them with the next tile."""
        for einsum in einsums if self.keeps else ():
            known = [("operand", str(access), access) for access in einsum.inputs]
            for kind, name, access in [*known, ("result", einsum.name, einsum.output)]:
                place = self.places.get((*key, kind, name))
                if place is not None and self._in_pieces(access, steps):
                    self._flush(place)
                    place.now = {}

    def _stored(self, tensor: str, holds: Chain) -> bool:
        return bool(self.latest(tensor)) and any(tensor == place.tensor for place, _ in holds)

    def _ready(self, einsums: list[Einsum], names: list[str], box: Box) -> bool:
        points = {einsum.name: self.points(einsum, box) for einsum in einsums}
        if all(point in self.done[name] for name, all_points in points.items() for point in all_points):
            return False
        for einsum in einsums:
            for access in einsum.inputs:
                if access.tensor in names and not self.latest(access.tensor):
                    continue
                for point in points[einsum.name]:
                    element = access.tensor, self.element(access, einsum, point)
                    if self.made[element] < self.due[element]:
                        return False
        return True

    def _count_points(self, einsums: list[Einsum], unit: str, box: Box) -> None:
        for einsum in einsums:
            for point in self.points(einsum, box):
                assert point not in self.done[einsum.name], f"{einsum.name} is computed twice at {point}"
                self.done[einsum.name].add(point)
                self.made[einsum.name, self.element(einsum.output, einsum, point)] += 1
                for kind, count in einsum.ops.items():
                    self.tally.operations[unit, kind] += count

    def _steps(self, einsum: Einsum, node: dict[str, Any], unit: Mapping[str, Any], box: Box) -> Iterator[Box]:
        """Boxes of the points that run at the same time, in order: folds of the laid-out ranks, then the others."""
        spatial = node.get("spatial", {})
        rest = node.get("temporal", [rank for rank in einsum.ranks if rank not in spatial])
        loops = [(rank, unit["dims"][dim]) for rank, dim in spatial.items()] + [(rank, 1) for rank in rest]
        boxes: Iterable[Box] = [box]
        for rank, chunk in loops:
            boxes = [cut for outer in boxes for cut in self._chunks(rank, chunk, outer)]
        return iter(boxes)

    # Tiles come and go.

    def _chain(self, tensor: str, holds: Chain) -> Chain:
        found = [(place, box) for place, box in holds if place.tensor == tensor]
        return [(self.roots[tensor], self.whole), *found] if tensor in self.outside else found

    def _fetch(
        self, access: Access, piece: tuple[Box, Box], holds: Chain, key: tuple[Any, ...], uncut: Box
    ) -> None:
        """Bring an operand's tile into every hold on the way to the elements."""
        chain = self._chain(access.tensor, holds)
        if not chain:
            return
        registers = self._place((*key, "operand", str(access)), None, access.tensor, [])
        for place, box in chain:
            _, identity, elements = self.tile(access, box, piece[1] if self.keeps else box, state=True)
            made = access.tensor in place.producers and not self.latest(access.tensor)
            if made and not any(
                identity == now and (elements <= there if self.keeps else len(elements) == len(there))
                for now, there in place.now.values()
            ):
                raise Lost(access.tensor)
        tiles = [(place, *self.tile(access, box, {**box, **uncut}, state=True)) for place, box in chain]
        tiles.append((registers, *self.tile(access, *piece, state=False)))
        for (parent, *_), (place, cut, identity, elements) in pairwise(tiles):
            if access.tensor in place.producers:
                continue
            now, there = place.now.get(cut, (None, frozenset()))
            there = there if now == identity else frozenset()
            place.now[cut] = identity, there | elements
            self._move(access.tensor, len(elements - there), source=parent, to=place)

    def _put(
        self, einsum: Einsum, piece: tuple[Box, Box], holds: Chain, key: tuple[Any, ...], uncut: Box
    ) -> None:
        """Write a result's tile into every hold on the way out, as far as somebody needs it."""
        name = einsum.name
        chain = self._chain(name, holds)
        if not chain:
            return
        registers = self._place((*key, "result", name), None, name, [])
        state = bool(self.latest(name))
        for first, box in chain[:1]:
            cut, identity, elements = self.tile(einsum.output, box, {**box, **uncut}, state=state)
            now, there = first.now.get(cut, (None, frozenset()))
            first.now = {cut: (identity, elements | there if now == identity else elements)}
        tiles = [(place, *self.tile(einsum.output, box, {**box, **uncut}, state=state)) for place, box in chain]
        tiles.append((registers, *self.tile(einsum.output, *piece, state=False)))
        for (parent, *_), (place, cut, identity, elements) in pairwise(tiles):
            running = place is not registers and state
            now, there = place.now.get(cut, (None, frozenset()))
            if now == identity and elements <= there:
                continue
            if now != identity:
                self._flush(place)
                there = frozenset()
            place.parent = parent if place is registers or self._needed(name, place) else None
            again = (elements - there) & place.seen
            if again and (einsum.reduced or running):
                self._move(name, len(again), source=parent, to=place)
                if place.parent is None:  # a state that nobody else reads leaves only to come back
                    self._move(name, len(again), source=place, to=parent)
            place.seen |= elements
            place.now, place.written = {cut: (identity, there | elements)}, True

    def _needed(self, tensor: str, place: Place) -> bool:
        """Whether a tile has to leave a hold: it is a result, a state to come back to, or read further out."""
        readers = {e.name for e in self.cascade.einsums for access in e.inputs if access.tensor == tensor}
        return tensor in self.outside or not readers <= place.producers

    def _flush(self, place: Place) -> None:
        if place.written and place.parent is not None:
            for _, elements in place.now.values():
                self._move(place.tensor, len(elements), source=place, to=place.parent)

    def _move(self, tensor: str, words: int, *, source: Place, to: Place) -> None:
        if source.level is not None and source.level not in self.units:
            self.tally.read[source.level, tensor] += words
        if to.level is not None and to.level not in self.units:
            self.tally.write[to.level, tensor] += words

    def _finish(self) -> None:
        for place in self.places.values():
            self._flush(place)
        for einsum in self.cascade.einsums:
            uncut = self._uncut(einsum, self.whole, frozenset())
            if uncut is None or not self.done[einsum.name].issuperset(self.points(einsum, {**self.whole, **uncut})):
                raise Stuck(einsum.name)


def _computed(nodes: Any) -> Iterator[str]:
    """Names of all Einsums in a part of a nest."""
    if isinstance(nodes, list):
        for node in nodes:
            yield from _computed(node)
    elif isinstance(nodes, dict):
        if "compute" in nodes:
            yield from [nodes["compute"]] if isinstance(nodes["compute"], str) else nodes["compute"]
        for kind in BRANCHES:
            yield from _computed(nodes.get(kind, []))
