"""What the thread blocks of a launch read: of the memory, together in the L2, and which of them wait for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

from architectures.gpu import Gpu
from mappings.gpu.blocks import Blocks
from mappings.gpu.cache import (
    Access,
    abreast,
    as_key,
    dirty_bytes,
    distinct_bytes,
    joint_share,
    leading_share,
    merged,
    wave_bytes,
)
from mappings.gpu.kernel import GridLaunch, GridStep
from mappings.gpu.reuse import Kept, lost_parts
from mappings.program import Array

PLACES = 8
"""Of a launch's walk over a tensor, at which it is looked whether the L2 has it."""
SAMPLED_WAVES = 12
"""Waves of a grid whose reads are followed block by block; later ones go on alike."""
Places = tuple[str, ...]
"""The expressions by which blocks find what they read: two tensors with the same are read alike."""


@dataclass(frozen=True)
class Alike:
    """What calls of a launch agree in that read alike: tiles often differ in warps and stages only."""

    launch: GridLaunch = field(compare=False)
    place: int
    gpu: Gpu
    totals: tuple[float, ...]
    in_flight: int
    values: tuple[Any, ...]

    @classmethod
    def of(cls, launch: GridLaunch, blocks: Blocks, gpu: Gpu, totals: Array, in_flight: int) -> Alike:
        """A launch stands for itself only, since its steps do."""
        values = [blocks.env[name] for name in launch.moved_by]
        known = tuple(value.tobytes() if isinstance(value, np.ndarray) else value for value in values)
        return cls(launch, id(launch), gpu, tuple(totals.tolist()), in_flight, (*blocks.shape, *known))


@dataclass(frozen=True)
class Left:
    """What launches leave in the L2.

    dirty  tensor -> bytes that are written and have not reached memory
    used   tensor -> its last use
    """

    dirty: Mapping[str, float] = field(default_factory=dict)
    used: Mapping[str, Use] = field(default_factory=dict)


@dataclass(frozen=True)
class Use:
    """A launch's use of a tensor of `size` bytes.

    waves    of its blocks, which store at their end; 0 if they load, all the time
    passing  bytes, copies included, that the launch used, and each of those since
    """

    size: float
    waves: int
    passing: tuple[float, ...]

    def gone(self, size: float, passing: float, kept: Kept) -> float:
        """The part of `size` bytes that is no longer there for a launch which uses `passing` bytes itself.

        Launches walk over a tensor in the same order: the rest of one and the begin of the other lie in between.
        """
        reached = (np.arange(PLACES) + 0.5) / PLACES
        left = 1 - (np.ceil(reached * self.waves) / self.waves if self.waves else reached)
        first, *since = self.passing
        lost = float(kept.lost(left * first + sum(since) + reached * passing).mean())
        return 1 - (1 - lost) * min(1.0, self.size / max(size, 1.0))


@dataclass
class Found:
    """What was found out about reads; steps are told apart by their ids."""

    moved: dict[Places, float] = field(default_factory=dict)
    joint: dict[Places, float] = field(default_factory=dict)
    fresh: dict[str, float] = field(default_factory=dict)
    dram: dict[int, float] = field(default_factory=dict)
    least: dict[str, float] = field(default_factory=dict)
    passing: float = 0.0


@lru_cache(maxsize=1024)
def _found(alike: Alike) -> Found:
    return Found()


class Reads:
    """Loads and stores of one launch's blocks, `in_flight` of them at a time; `totals`: trips of each loop.

    before    what launches before this one left in the L2
    left      what is in the L2 at its end
    retained  the part of what this one writes that reaches memory later
    pushed    tensor -> dirty bytes of `before` that reach memory for each byte that this launch moves to or from it
    All but `before` are filled by `dram_bytes`.
    """

    def __init__(
        self, launch: GridLaunch, blocks: Blocks, gpu: Gpu, totals: Array, in_flight: int, before: Left
    ) -> None:
        self.launch, self.blocks, self.gpu, self.totals, self.in_flight = launch, blocks, gpu, totals, in_flight
        self.before, self.left, self.retained = before, Left(), 0.0
        self.pushed: dict[str, float] = {}
        self.fresh: dict[str, float] = {}
        self._sampled = min(blocks.count, SAMPLED_WAVES * in_flight)
        self._accesses: dict[tuple[Places, int], Access] = {}
        self._least: dict[tuple[Places, ...], float] = {}
        self._led: dict[tuple[Places, ...], float | None] = {}
        self._found = _found(Alike.of(launch, blocks, gpu, totals, in_flight))

    def joint(self, step: GridStep) -> float:
        """The part of what blocks ask for in a load that others of their group of multiprocessors ask for too."""
        place = _places(step)
        if place not in self._found.joint:
            gpu = self.gpu
            groups = int(gpu.request_groups)
            self._found.joint[place] = joint_share(self.access(step), gpu.multiprocessors, groups, self.in_flight)
        return self._found.joint[place]

    def _leading(self, group: Sequence[GridStep]) -> float | None:
        key = tuple(_places(step) for step in group)
        if key not in self._led:
            self._led[key] = leading_share(merged([self.access(step) for step in group]), self.in_flight)
        return self._led[key]

    def access(self, step: GridStep, blocks: int | None = None) -> Access:
        """What the first blocks read in a load: so many of them, or as many waves as tell how the others go on."""
        place, blocks = _places(step), blocks or self._sampled
        if (place, blocks) not in self._accesses:
            values = [self.blocks.ranges(value, blocks) for value in (*step.rows, step.row_bytes, *(step.same or ()))]
            ranges = max(value.shape[0] for value in values)
            first, last, row_bytes, *same = (np.broadcast_to(value, (ranges, blocks)).reshape(-1) for value in values)
            key, shared = as_key(same, ranges * blocks), step.same is not None
            self._accesses[place, blocks] = Access(first, last, row_bytes, key, shared, ranges)
        return self._accesses[place, blocks]

    def _merged(self, group: Sequence[GridStep], blocks: int) -> Access:
        return merged([self.access(step, blocks) for step in group if not step.again])

    def _distinct(self, group: Sequence[GridStep]) -> float:
        """Bytes of a tensor that blocks read at all."""
        key = tuple(_places(step) for step in group if not step.again)
        if key not in self._least:
            first = [step for step in group if not step.again]
            if len(first) == 1 and first[0].same is not None:
                self._least[key] = self._of_one(first[0])
            else:
                self._least[key] = distinct_bytes(self._merged(group, self.blocks.count))
        return self._least[key]

    def _of_one(self, step: GridStep) -> float:
        """Bytes that blocks read at all in a load; where they agree in rows, or in what the rows are of, as one."""
        bounds, same = (
            np.broadcast_arrays(
                np.zeros(1), *(np.asarray(value.evaluate(self.blocks.env), np.float64) for value in values)
            )[1:]
            for values in ((*step.rows, step.row_bytes), step.same or ())
        )
        parts = 1
        if not same or all(1 in sizes for sizes in zip(bounds[0].shape[::-1], same[0].shape[::-1], strict=False)):
            parts = np.unique(as_key([value.reshape(-1) for value in same], same[0].size)).size if same else 1
            same = same[:0]
        first, last, row_bytes, *of = (value.reshape(-1) for value in np.broadcast_arrays(*bounds, *same))
        return float(parts * distinct_bytes(Access(first, last, row_bytes, as_key(of, first.size), True)))

    def moved_bytes(self, step: GridStep) -> float:
        """Bytes that all blocks move in a load or store."""
        rows = _rows(step)
        if rows not in self._found.moved:
            env = self.blocks.env
            first, last = (np.asarray(bound.evaluate(env), dtype=np.float64) for bound in step.rows)
            moved = np.maximum(last - first, 0.0) * np.asarray(step.row_bytes.evaluate(env), dtype=np.float64)
            ranges = moved.shape[0] if moved.ndim > len(self.blocks.shape) else 1
            self._found.moved[rows] = float(moved.mean()) * ranges * self.blocks.count
        return self._found.moved[rows]

    def dram_bytes(self) -> dict[int, float]:
        """Bytes that each load and store moves to or from memory, now or later.

        What is added to memory is fetched like what is loaded, and written as often as it is fetched.
        """
        if not self._found.dram:
            self._found.dram = self._dram_bytes()
        found, gpu = self._found, self.gpu
        kept = Kept(gpu.l2_capacity, gpu.l2_ways, gpu.l2_parts)
        steps = [step for loop in self.launch.loops for step in loop.steps if id(step) in found.dram]
        tensors = {step.name: str(step.load or step.store) for step in steps}
        gone = {
            name: self.before.used[tensors[name]].gone(size, found.passing, kept)
            for name, size in found.least.items() if tensors[name] in self.before.used
        }  # fmt: skip
        moved = dict(found.dram)
        for name, part in gone.items():
            group = [step for step in steps if step.name == name and not step.again]
            asked = sum(moved[id(step)] for step in group)
            for step in group:
                moved[id(step)] *= 1 - (1 - part) * min(1.0, found.least[name] / max(asked, 1.0))
        self.fresh = found.fresh | {name: found.fresh.get(name, 1.0) * part for name, part in gone.items()}
        stores = [step for step in steps if step.store]
        written = sum(moved[id(step)] for step in stores)
        total = sum(moved.values())
        read = total - sum(moved[id(step)] for step in stores if not step.adds)
        own_dirty = dirty_bytes(written, read, gpu.l2_capacity, gpu.l2_dirty_share, gpu.l2_mixed_share)
        self.retained = own_dirty / written if written else 0.0
        # What was dirty before goes as new lines come.
        pushed = min(1.0, total / (gpu.l2_mixed_share * gpu.l2_capacity))
        dirty = {name: size * (1 - pushed) for name, size in self.before.dirty.items()}
        self.pushed = {name: size * pushed / max(total, 1.0) for name, size in self.before.dirty.items()}
        for step in stores:
            dirty[str(step.store)] = dirty.get(str(step.store), 0.0) + moved[id(step)] * self.retained
        used = {name: replace(use, passing=(*use.passing, found.passing)) for name, use in self.before.used.items()}
        used |= {tensors[name]: Use(size, 0, (found.passing,)) for name, size in found.least.items()}
        waves = -(-self.blocks.count // max(self.in_flight, 1))
        used |= {str(step.store): Use(found.dram[id(step)], waves, (found.passing,)) for step in stores}
        self.left = Left(dirty, used)
        return moved

    def _dram_bytes(self) -> dict[int, float]:
        walked = [loop for loop, trips in zip(self.launch.loops, self.totals, strict=True) if trips > 0]
        steps = [step for loop in walked for step in loop.steps]
        loads = [step for step in steps if step.kind == "load" and not step.hot]
        stores = [step for step in steps if step.kind == "store"]
        by_tensor: dict[str, list[GridStep]] = {}
        adding = [step for step in stores if step.adds]
        for step in (*loads, *adding):
            by_tensor.setdefault(step.name, []).append(step)
        sizes = {id(step): self.moved_bytes(step) for step in (*loads, *stores)}
        shared = {name: group for name, group in by_tensor.items() if any(step.same for step in group)}
        own = sum(
            sizes[id(step)] for name in by_tensor.keys() - shared.keys() for step in by_tensor[name] if not step.again
        )
        own += sum(sizes[id(step)] for step in stores if not step.adds)
        gpu = self.gpu
        kept = Kept(gpu.l2_capacity, gpu.l2_ways, gpu.l2_parts)
        accesses = [self._merged(group, self._sampled) for group in shared.values()]
        lost_parts_of = lost_parts(accesses, self.in_flight, kept, own * self._sampled / self.blocks.count)
        totals = {}
        found = self._found
        found.passing = sum(sizes[id(step)] for step in stores if not step.adds) * kept.copies(1)
        lost_of = dict(zip(shared, lost_parts_of, strict=True))
        for name, group in by_tensor.items():
            asked = sum(sizes[id(step)] for step in group if not step.again)
            found.least[name] = self._distinct(group) if name in shared else asked
            found.passing += found.least[name] * kept.copies(asked / max(found.least[name], 1.0))
            totals[name] = found.least[name] + lost_of.get(name, 0.0) * max(0.0, asked - found.least[name])
        for name, group in shared.items():
            leading = self._leading(group)
            if leading is None:
                once = abreast(self._merged(group, self._sampled))
                fetched = totals[name] * self._sampled / self.blocks.count
                leading = min(1.0, fetched / max(wave_bytes(once, self.in_flight), 1.0))
            found.fresh[name] = leading
        moved: dict[int, float] = {}
        for name, group in by_tensor.items():
            first = sum(sizes[id(step)] for step in group if not step.again)
            # A block reads again what it and its neighbours have read in between: the L2 has kept its share of that.
            live = max(first, own) / self.blocks.count * self.in_flight
            whole, none = gpu.l2_kept_whole, gpu.l2_kept_none
            lost = min(1.0, max(0.0, (live - whole) / (none - whole)))
            for step in group:
                share = lost if step.again else totals.get(name, first) / max(first, 1.0)
                moved[id(step)] = sizes[id(step)] * share
        return moved | {id(step): sizes[id(step)] for step in stores if not step.adds}


def _places(step: GridStep) -> Places:
    return (*_rows(step), str(step.same is None), *(str(part) for part in step.same or ()))


def _rows(step: GridStep) -> Places:
    return step.rows[0].text, step.rows[1].text, step.row_bytes.text
