"""Value classes: which tensors of a cascade are versions of one another, element by element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bounds.loops import WholeAccess
from einsum.access import Access as CascadeAccess
from einsum.cascade import Cascade
from einsum.einsum import Einsum


@dataclass(frozen=True)
class Place:
    """Where a tensor stands in its class: dimension `order[k]` of the tensor is dimension k of the class.

    needs: statements whose sums an element is made of.
    """

    name: str
    order: tuple[int, ...]
    needs: frozenset[str]


class Classes:
    """The classes of a cascade, found by following Einsums without a reduction from inputs and statements."""

    def __init__(self, cascade: Cascade, whole: Callable[[CascadeAccess], WholeAccess]) -> None:
        self._cascade, self._whole = cascade, whole
        self._places: dict[str, Place] = {}

    def find(self, statements: set[str]) -> None:
        """Give inputs and the outputs of statements classes of their own, then follow until nothing changes."""
        for tensor in self._cascade.inputs:
            rank_count = len(self._whole(self._cascade.access(tensor.name)).dimensions)
            self._places[tensor.name] = Place(tensor.name, tuple(range(rank_count)), frozenset())
        for einsum in self._cascade.einsums:
            if einsum.name in statements:
                count = len(self._whole(einsum.output).dimensions)
                self._places[einsum.name] = Place(einsum.name, tuple(range(count)), frozenset([einsum.name]))
        maps = [e for e in self._cascade.einsums if e.name not in statements and not e.reduced]
        while sum(self._follow(einsum) for einsum in maps):
            pass

    def place(self, tensor: str) -> Place | None:
        """The tensor's place; None for statistics."""
        return self._places.get(tensor)

    def members(self) -> dict[str, list[str]]:
        """Class -> its tensors."""
        found: dict[str, list[str]] = {}
        for tensor, place in self._places.items():
            found.setdefault(place.name, []).append(tensor)
        return found

    def used_elsewhere(self, name: str) -> bool:
        """Whether an Einsum outside the class reads a member."""
        return any(
            place.name == name and any(not self._inside(e, name) for e in self._cascade.consumers(tensor))
            for tensor, place in self._places.items()
        )

    def _inside(self, einsum: Einsum, name: str) -> bool:
        place = self._places.get(einsum.name)
        return place is not None and place.name == name

    def _follow(self, einsum: Einsum) -> bool:
        """Put the output of a map into the class of its operands of the same ranks; whether anything changed."""
        output = self._whole(einsum.output)
        if not output.plain or not output.dimensions:
            return False
        same: list[tuple[WholeAccess, Place]] = []
        for access in einsum.inputs:
            place, operand = self._places.get(access.tensor), self._whole(access)
            if place is not None and operand.plain and set(operand.loops) == set(output.loops):
                same.append((operand, place))
        made = [(operand, place) for operand, place in same if place.needs]
        if not (made or same):
            return False
        chosen = made or same[:1]
        changed = self._merge(chosen)
        operand, _ = chosen[0]
        place = self._places[operand.tensor]
        # The loop of class dimension k is the operand's loop there; find it among the output's dimensions.
        order = tuple(output.loops.index(operand.loops[position]) for position in place.order)
        needs = frozenset().union(*(self._places[operand.tensor].needs for operand, _ in chosen))
        new = Place(place.name, order, needs | self._needs(einsum.name))
        if self._places.get(einsum.name) == new:
            return changed
        self._places[einsum.name] = new
        return True

    def _needs(self, tensor: str) -> frozenset[str]:
        place = self._places.get(tensor)
        return place.needs if place else frozenset()

    def _merge(self, chosen: list[tuple[WholeAccess, Place]]) -> bool:
        """Join the classes of several operands into the first one's."""
        first, place = chosen[0]
        changed = False
        for operand, other in chosen[1:]:
            if other.name == place.name:
                continue
            changed = True
            # Loop of each dimension of the class that stays -> dimension of the class that goes.
            loops = [first.loops[position] for position in place.order]
            gone = [operand.loops[position] for position in other.order]
            turn = [gone.index(loop) for loop in loops]
            for tensor, old in list(self._places.items()):
                if old.name == other.name:
                    self._places[tensor] = Place(place.name, tuple(old.order[k] for k in turn), old.needs)
        return changed
