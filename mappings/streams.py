"""One phase as a stream: fill, compute and drain steps with their dependences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import numpy as np

from architectures import EvaluatedArchitecture
from einsum.access import Access
from einsum.errors import SpecError
from mappings.accounts import Account, Ledger, memory_steps
from mappings.leaves import LeafWork
from mappings.masked import Space
from mappings.movement import column, inner_loops, visits
from mappings.nest import Hold, Leaf, Pause, PhaseNest
from mappings.operands import Homes, is_previous
from mappings.ordering import Ordering
from mappings.program import Array, Dependence, Step
from mappings.tiles import Loop, Side


class StreamLowering:
    """Lowers one phase over one tile space."""

    def __init__(
        self,
        phase: PhaseNest,
        homes: Homes,
        machine: EvaluatedArchitecture,
        space: Space,
        tensor_bytes: Mapping[str, Array],
        spilled: Mapping[Hold, Array],
    ) -> None:
        """`spilled`: the part of a hold that does not fit; see `capacity.spilled_shares`."""
        self.phase = phase
        self.homes = homes
        self.machine = machine
        self.space = space
        self.ledger = Ledger(machine, tensor_bytes, spilled)
        self._named: set[str] = set()

    def steps(self) -> tuple[Step, ...]:
        """All steps of the phase, every one after those that come before it in a tile."""
        fills, fill_names = self._fills()
        ordering = Ordering(self.phase, self.homes, self.space)
        computed: list[Step] = []
        for leaf in self.phase.leaves:
            work = LeafWork(leaf, self.homes, self.machine, self.space, self.ledger)
            after = ordering.before(leaf) + tuple(
                Dependence(name) for hold, tensor in work.sources for name in fill_names.get((hold, tensor), ())
            )
            computed += work.steps(after)
        for pause in ordering.pauses:
            computed.append(self._pause(pause, ordering.before(pause)))
        return (*fills, *computed, *self._drains())

    def _pause(self, pause: Pause, after: tuple[Dependence, ...]) -> Step:
        if pause.unit is not None:
            try:
                self.machine.unit(pause.unit)
            except SpecError as error:
                raise error.located(key=pause.name.removeprefix("stall ")) from None
        clock = self.machine.clock_hz if pause.unit is None else self.machine.units[pause.unit].clock_hz
        return Step(pause.name, None, 0.0, pause.cycles / column(clock), after)

    def depth(self, hold: Hold) -> int:
        """Tile loops above a hold."""
        return sum(loop in self.phase.tile_loops for loop in hold.loops)

    def _is_state(self, hold: Hold, tensor: str) -> bool:
        """Whether a hold carries a running value into the next iteration of a loop that encloses the hold."""
        names = self._iterated(tensor)
        reads = (access for leaf in self._in_scope(hold, self.phase.leaves) for access in self._reads(leaf, tensor))
        return any(loop.name in names for loop in hold.loops) and any(
            is_previous(self.homes.ranks, access) for access in reads
        )

    def _iterated(self, tensor: str) -> frozenset[str]:
        """Loop names that step along the iterative ranks of a tensor."""
        ranks = self.homes.ranks
        return frozenset(name for rank in ranks.iterative(tensor) for name in ranks.names_moving(rank))

    def _reads(self, leaf: Leaf, tensor: str) -> list[Access]:
        accesses = (access for name in leaf.einsums for access in self.homes.einsum(name).inputs)
        return [access for access in accesses if access.tensor == tensor]

    def _moved(self, hold: Hold, tensor: str, side: Side, users: Sequence[Leaf]) -> tuple[Array, Array]:
        """(words, words of tiles seen for the first time) that pass between a hold and its parent, per tile.

        In loops that none of the users iterates, they pass only in the iteration in which the users run.
        """
        space, gather = self.space.within(hold.loops)
        depth = sum(loop in space.loops for loop in hold.loops)
        inner = inner_loops([loop for loop in hold.loops if loop not in space.loops], space.sizes[-1])
        gates = self._gates(hold, users)
        gated = {place: gates[loop] for place, loop in enumerate(space.loops) if loop in gates}
        state = self._iterated(tensor) if self._is_state(hold, tensor) else frozenset()
        every, distinct = np.zeros((1, 1)), np.zeros((1, 1))
        for shapes in self.homes.tiles(tensor, users, hold.loops):
            moved_by = shapes[0].moved_by - state
            count = visits(moved_by, space, depth, inner, frozenset(gated), side)
            ranks = self.homes.ranks
            words = [ranks.moved_words(shape, count.sizes, inner) for shape in shapes]
            most = reduce(np.maximum, words) * space.gated(gated)
            every, distinct = every + gather(most * count.all), distinct + gather(most * count.distinct)
        return every, distinct

    def _gates(self, hold: Hold, users: Sequence[Leaf]) -> dict[Loop, Side]:
        """Loops around a hold that gate all of its users in the same way."""
        sides = [{gate.loop: gate.side for gate in self.homes.gates(user)} for user in users]
        return {
            loop: sides[0][loop]
            for loop in hold.loops
            if all(loop in gates and gates[loop] == sides[0].get(loop) for gates in sides)
        }

    def _in_scope(self, hold: Hold, leaves: Sequence[Leaf]) -> list[Leaf]:
        return [leaf for leaf in leaves if hold in leaf.holds]

    def _fills(self) -> tuple[list[Step], dict[tuple[Hold, str], list[str]]]:
        """Steps that load tiles into holds from further out, and their names."""
        steps: list[Step] = []
        names: dict[tuple[Hold, str], list[str]] = {}
        for hold in self.phase.holds:
            for tensor in () if hold.staged else hold.tensors:
                readers = self._in_scope(hold, [r for r in self.homes.consumers(tensor) if r in self.phase.leaves])
                if not readers or self._in_scope(hold, self.homes.producers(tensor)):
                    continue
                chain = self.homes.chain(readers[0], tensor)
                chain = chain[: chain.index(hold) + 1]
                if len(chain) < 2 or self._loaded_before(hold, tensor):
                    continue
                account = Account()
                words = self._moved(hold, tensor, "first", readers)[0] * self.ledger.kept(hold)
                self.ledger.access(account, chain[:-1], tensor, words, 0.0)
                self.ledger.access_own(account, hold, tensor, 0.0, words)
                made = self._steps(f"load {tensor} into {hold.level}", account, self._buffered(hold, readers))
                names.setdefault((hold, tensor), []).extend(step.name for step in made)
                steps += made
        return steps, names

    def _loaded_before(self, hold: Hold, tensor: str) -> bool:
        """Whether an earlier phase under the same hold has loaded the tensor already."""
        for phase in self.homes.phases:
            if phase is self.phase:
                return False
            if any(hold in leaf.holds for leaf in self.homes.consumers(tensor) if leaf in phase.leaves):
                return True
        return False

    def _drains(self) -> list[Step]:
        """Steps that write tiles of holds back further out, and reload partial results."""
        steps: list[Step] = []
        cascade = self.homes.cascade
        for hold in self.phase.holds:
            for tensor in () if hold.staged else hold.tensors:
                makers = self._in_scope(hold, [m for m in self.homes.producers(tensor) if m in self.phase.leaves])
                if not makers:
                    continue
                outside = [leaf for leaf in self.homes.consumers(tensor) if hold not in leaf.holds]
                final = cascade.tensors[tensor].kind == "output" or bool(outside)
                state = self._is_state(hold, tensor)
                if not final and not state:
                    continue
                chain = self.homes.chain(makers[0], tensor)
                chain = chain[: chain.index(hold) + 1]
                if len(chain) < 2 and not state:
                    continue
                every, distinct = self._moved(hold, tensor, "last", makers)
                if not final:
                    every, distinct = every - distinct, np.zeros_like(distinct)
                    if len(chain) < 2 and every.any():
                        raise SpecError(
                            f"the state '{tensor}' leaves {hold.level} before the next iteration that updates it, and "
                            f"no memory further out holds it; keep it outside the loop, or in {self.homes.root.level}",
                            key=hold.key,
                        )
                    if not every.any():
                        continue
                kept = self.ledger.kept(hold)
                account = Account()
                self.ledger.access(account, chain[:-1], tensor, (every - distinct) * kept, every * kept)
                self.ledger.access_own(account, hold, tensor, every * kept, (every - distinct) * kept)
                after = tuple(Dependence(maker.name) for maker in makers)
                steps += self._steps(f"store {tensor} from {hold.level}", account, after)
        return steps

    def _steps(self, name: str, account: Account, after: tuple[Dependence, ...]) -> list[Step]:
        """Steps of a transfer: one for each port that limits it; the first carries the account."""
        if name in self._named:
            name = f"{name} ({len(self._named)})"  # the same tensor in another hold of the same level
        self._named.add(name)
        steps = memory_steps(name, account, self.machine, after) or [Step(name, None, 0.0, 0.0, after)]
        first = steps[0]
        carrier = Step(
            first.name, first.resource, first.busy_s, first.latency_s, first.after, account.traffic(), account.actions
        )
        return [carrier, *steps[1:]]

    def _buffered(self, hold: Hold, readers: Sequence[Leaf]) -> tuple[Dependence, ...]:
        """A load waits until the tile that it replaces has been used: `buffers` tiles of the hold back."""
        if any(loop not in self.phase.tile_loops for loop in hold.loops):
            return ()  # inside one tile; the whole tile's accesses are one step
        inside = np.ones((self.space.counts.shape[0], 1))
        for state in self.space.states[self.depth(hold) :]:
            inside = inside * state.trips.max(axis=1, keepdims=True)
        ahead = 1.0 if hold.rolling else hold.buffers - 1
        distance = (ahead * inside + 1)[:, 0]
        if not hold.rolling and (hold.buffers < 1).any():
            raise SpecError(f"expected at least one buffer for '{hold.name}'", key=hold.key)
        return tuple(Dependence(reader.name, distance) for reader in readers)
