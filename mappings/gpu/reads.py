"""What the thread blocks of a launch read: of the memory, together in the L2, and which of them wait for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from architectures.gpu import Gpu
from mappings.gpu.blocks import Blocks
from mappings.gpu.cache import (
    Access,
    abreast,
    as_key,
    dirty_bytes,
    fetched_bytes,
    joint_share,
    leading_share,
    merged,
    wave_bytes,
)
from mappings.gpu.kernel import GridLaunch, GridStep
from mappings.program import Array

SAMPLED_WAVES = 12
"""Waves of a grid whose reads are followed block by block; later ones go on alike."""
Places = tuple[str, ...]
"""The expressions by which blocks find what they read: two tensors with the same are read alike."""


class Reads:
    """Loads and stores of one launch's blocks, `in_flight` of them at a time; `totals`: trips of each loop.

    fresh  load -> the part of what blocks ask for that they wait for the memory for; filled by `dram_bytes`
    """

    def __init__(self, launch: GridLaunch, blocks: Blocks, gpu: Gpu, totals: Array, in_flight: int) -> None:
        self.launch, self.blocks, self.gpu, self.totals, self.in_flight = launch, blocks, gpu, totals, in_flight
        self.fresh: dict[str, float] = {}
        self._sampled = min(blocks.count, SAMPLED_WAVES * in_flight)
        self._accesses: dict[Places, Access] = {}
        self._moved: dict[int, float] = {}
        self._led: dict[tuple[Places, ...], float | None] = {}
        self._joint: dict[Places, float] = {}

    def joint(self, step: GridStep) -> float:
        """The part of what blocks ask for in a load that others of their group of multiprocessors ask for too."""
        place = _places(step)
        if place not in self._joint:
            gpu = self.gpu
            groups = int(gpu.request_groups)
            self._joint[place] = joint_share(self.access(step), gpu.multiprocessors, groups, self.in_flight)
        return self._joint[place]

    def _leading(self, group: Sequence[GridStep]) -> float | None:
        key = tuple(_places(step) for step in group)
        if key not in self._led:
            self._led[key] = leading_share(merged([self.access(step) for step in group]), self.in_flight)
        return self._led[key]

    def access(self, step: GridStep) -> Access:
        """What the first blocks read in a load: as many waves of them as tell how the others go on."""
        place = _places(step)
        if place not in self._accesses:
            first, last, row_bytes, *same = (
                self.blocks.first(value, self._sampled) for value in (*step.rows, step.row_bytes, *(step.same or ()))
            )
            key, shared = as_key(same, self._sampled), step.same is not None
            self._accesses[place] = Access(first, last, row_bytes, key, shared)
        return self._accesses[place]

    def moved_bytes(self, step: GridStep) -> float:
        """Bytes that all blocks move in a load or store."""
        if id(step) not in self._moved:
            env = self.blocks.env
            first, last = (np.asarray(bound.evaluate(env), dtype=np.float64) for bound in step.rows)
            rows = np.maximum(last - first, 0.0) * np.asarray(step.row_bytes.evaluate(env), dtype=np.float64)
            self._moved[id(step)] = float(rows.mean()) * self.blocks.count
        return self._moved[id(step)]

    def dram_bytes(self) -> tuple[dict[int, float], float]:
        """Bytes that each load and store moves to or from memory, and the part of the writes that stays in the L2.

        What is added to memory is fetched like what is loaded, and written as often as it is fetched.
        """
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
        fetched = fetched_bytes(
            [merged([self.access(step) for step in group if not step.again]) for group in shared.values()],
            self.in_flight, self.gpu.l2_usable, own * self._sampled / self.blocks.count,
        )  # fmt: skip
        totals = {name: part * self.blocks.count / self._sampled for name, part in zip(shared, fetched, strict=True)}
        for (name, group), part in zip(shared.items(), fetched, strict=True):
            leading = self._leading(group)
            if leading is None:
                once = abreast(merged([self.access(step) for step in group if not step.again]))
                leading = min(1.0, part / max(wave_bytes(once, self.in_flight), 1.0))
            self.fresh[name] = leading
        moved: dict[int, float] = {}
        for name, group in by_tensor.items():
            first = sum(sizes[id(step)] for step in group if not step.again)
            # A block reads again what it and its neighbours have read in between: the L2 has kept its share of that.
            live = max(first, own) / self.blocks.count * self.in_flight
            whole, none = self.gpu.l2_kept_whole, self.gpu.l2_kept_none
            lost = min(1.0, max(0.0, (live - whole) / (none - whole)))
            for step in group:
                share = lost if step.again else totals.get(name, first) / max(first, 1.0)
                moved[id(step)] = sizes[id(step)] * share
        moved |= {id(step): sizes[id(step)] for step in stores if not step.adds}
        written = sum(moved[id(step)] for step in stores)
        read = sum(moved[id(step)] for step in (*loads, *adding))
        gpu = self.gpu
        dirty = dirty_bytes(written, read, gpu.l2_capacity, gpu.l2_dirty_share, gpu.l2_mixed_share)
        return moved, dirty / written if written else 0.0


def _places(step: GridStep) -> Places:
    return tuple(str(part) for part in (*step.rows, step.row_bytes, step.same is None, *(step.same or ())))
