"""One phase of a nest as a launch of a grid of thread blocks, in the form that kernels are described in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from architectures import EvaluatedArchitecture
from architectures.gpu import Gpu
from einsum.errors import SpecError
from einsum.expressions import Expression
from mappings.capacity import tensor_words
from mappings.gpu.block_moves import COPY_BYTES, BlockMoves
from mappings.gpu.block_parts import BlockPart, BlockParts, Transfer
from mappings.gpu.block_registers import BlockRegisters
from mappings.gpu.block_steps import BlockSteps
from mappings.gpu.grid_blocks import GridBlocks, Walk
from mappings.gpu.kernel import ZERO, GridLaunch, GridLoop, GridStep
from mappings.mask import Mask
from mappings.nest import Block, Hold, Part, Pause, PhaseNest
from mappings.operands import Homes
from mappings.program import Array
from mappings.tiles import Loop

Values = NDArray[np.float64]


class NestLaunch:
    """A phase on its way to a launch."""

    def __init__(
        self,
        phase: PhaseNest,
        homes: Homes,
        machine: EvaluatedArchitecture,
        gpu: Gpu,
        extents: Mapping[str, Array],
        tensor_bytes: Mapping[str, float],
        mask: Mask | None,
        name: str,
    ) -> None:
        """`name` starts the names of the launch's arrays."""
        self.phase, self.homes, self.gpu = phase, homes, gpu
        self.extents, self.tensor_bytes, self.name = extents, tensor_bytes, name
        self.arrays: dict[str, Any] = {}
        self.warps = int(phase.form.warps.flat[0]) if phase.form.warps is not None else 0
        self.specialized = phase.form.specialized is not None and bool(phase.form.specialized.flat[0])
        self._check()
        outside = frozenset(
            name for name in homes.cascade.tensors if any(_outside(hold, phase) for hold in self._holds(name))
        ) | {name for name, tensor in homes.cascade.tensors.items() if tensor.kind == "output"}
        self.parts = BlockParts(phase, homes, outside)
        whole = {rank: int(extent.flat[0]) for rank, extent in extents.items()}
        self.blocks = GridBlocks.of(self.parts.grid, whole)
        self.mask = mask if self._masked() else None
        self.walk = self._walk(whole)
        self.alive = self._alive()
        self.moves = BlockMoves(self.parts, self.blocks, self.walk, extents, tensor_bytes)
        pipelined = self._depth() > 1
        self.steps = BlockSteps(
            self.parts, machine, gpu, self.warps, self.tile, tensor_bytes, self.specialized, pipelined
        )

        if any(self.moves.alone(each) for part in self.parts.parts for each in (*part.loads, *part.stores)):
            self.steps.threads = replace(self.steps.threads, side=1)
        self.registers = BlockRegisters(self.steps, self.moves, self._inside("registers"), self.tile)

    def launch(self) -> GridLaunch:
        """The launch; its arrays are in `arrays`, (1, 1, blocks) each."""
        loops: list[GridLoop] = []
        for part in self.parts.parts:
            loops += self._loops(part, last=part is self.parts.parts[-1])
        stages = [self.moves.stages(load) for part in self.parts.parts for load in part.loads]
        return GridLaunch(
            launch=self.phase.name,
            grid={"x": _number(self.blocks.count)},
            warps=_number(self.warps),
            registers=_number(self.registers.taken()),
            shared=_number(sum(map(self._hold_bytes, self._inside("shared")), self.steps.exchanged_bytes())),
            stages=_number(min((count for count in stages if count > 1), default=1)),
            teams=_number(self._teams()),
            overlap=_number(self._overlap()),
            free=_number(int(self.specialized)),
            loops=tuple(loops),
        )

    def tile(self, loops: Sequence[Loop]) -> dict[str, Array]:
        """Coordinates of every base rank in one iteration of some loops: whole chunks, since a block computes those."""
        sizes = dict(self.extents)
        for loop in loops:
            sizes[loop.rank] = loop.chunk[:1]
        return sizes

    def _holds(self, tensor: str) -> list[Hold]:
        return [hold for hold in self.phase.holds if tensor in hold.tensors]

    def _inside(self, level: str) -> list[Hold]:
        return [hold for hold in self.phase.holds if hold.level == level and not _outside(hold, self.phase)]

    def _check(self) -> None:
        """SpecError for what a thread block cannot do."""
        if not self.warps:
            raise SpecError("a grid on a GPU has to say how many 'warps' a thread block has", key="nest")
        if self.phase.form.slots is not None:
            raise SpecError(
                "on a GPU the blocks that a multiprocessor holds follow from what a block takes; leave 'slots' out",
                key="nest",
            )
        for leaf in self.phase.leaves:
            if leaf.spatial or leaf.temporal is not None or leaf.spread is not None or leaf.lag:
                raise SpecError(
                    f"{leaf.name}: how a tile lies in the threads of a GPU follows from its instructions; leave "
                    "'spatial', 'temporal', 'spread' and 'lag' out",
                    key=leaf.key,
                )
        for part in _parts(self.phase.body):
            if isinstance(part, Pause):
                raise SpecError("a thread block has no stall", key=part.name.removeprefix("stall "))
            if isinstance(part, Block) and part.kind == "parallel":
                raise SpecError("the Einsums of a thread block run in a sequence or as a pipeline", key="nest")

    def _masked(self) -> bool:
        names = (name for leaf in self.phase.leaves for name in leaf.einsums)
        return any(self.homes.einsum(name).conditions for name in names)

    def _columns(self) -> list[Loop]:
        """Loops of the blocks over the columns of the mask."""
        assert self.mask is not None
        loops = dict.fromkeys(loop for leaf in self.phase.leaves for loop in self.parts.counted(leaf.loops))
        return [loop for loop in loops if loop.rank == self.mask.column]

    def _walk(self, extents: Mapping[str, int]) -> Walk | None:
        """What the blocks visit of the mask's columns, where they walk over them."""
        if self.mask is None:
            return None
        columns = self._columns()
        chunks = {int(loop.chunk.flat[0]) for loop in columns}
        if not columns:
            return None
        walked = {loop.rank for leaf in self.phase.leaves for loop in self.parts.counted(leaf.loops)}
        if len(chunks) > 1 or self.mask.row in walked or self.blocks.several(self.mask.column):
            raise SpecError(
                f"under a mask a thread block has a part of '{self.mask.row}' and walks over '{self.mask.column}' in "
                "chunks of one size",
                key="nest",
            )
        return Walk.of(self.blocks, self.mask, chunks.pop(), extents[self.mask.column])

    def _alive(self) -> Values:
        """1 for blocks that have anything to do, 0 for those whose part of rows and columns a mask leaves out."""
        mask, blocks = self.mask, self.blocks
        if mask is None or self.walk is not None or not (blocks.several(mask.row) and blocks.several(mask.column)):
            return np.ones(1)
        visited = mask.visited(
            blocks.start[mask.row], blocks.size[mask.row], blocks.start[mask.column], blocks.size[mask.column]
        )
        return visited.astype(np.float64)

    def _loops(self, part: BlockPart, last: bool) -> list[GridLoop]:
        """A part as loops: one, or under a mask those over whole chunks and over chunks at its edges."""
        if not part.path:
            steps = self._steps(part, None, np.ones(1), self.mask is not None, overhead=last)
            skipped = (self.alive == 0).any()
            loop = skipped or self._one_trip(part)
            return [GridLoop(trips=self._values(self.alive), steps=steps) if loop else GridLoop(steps=steps)]
        if self.walk is None or not any(loop.rank == self.walk.rank for loop in part.path):
            trips = self.moves.trips(part.path) * self.alive
            steps = self._steps(part, None, trips, self.mask is not None)
            return [GridLoop(trips=self._values(trips), together=self._together(part), steps=steps)]
        others = self.moves.trips([loop for loop in part.path if loop.rank != self.walk.rank])
        found = []
        for run in self.walk.parts():
            trips = others * (run[1] - run[0])
            steps = self._steps(part, run, trips, run[2])
            found.append(GridLoop(trips=self._values(trips), together=self._together(part), steps=steps))
        return found

    def _one_trip(self, part: BlockPart) -> bool:
        """Whether a part of a block without products is a loop over rows that has one trip."""
        loops = [loop for leaf in part.leaves for loop in leaf.loops if not loop.grid]
        return bool(loops) and not self.steps.products.sizes

    def _together(self, part: BlockPart) -> bool:
        """Whether nothing that takes time stands between the products of a trip: the wait for the first one's operands
        is then one for all (read off the loops of linear attention)."""
        products = [k for k, leaf in enumerate(part.leaves) if any(e in self.steps.products for e in leaf.einsums)]
        between = part.leaves[products[0] : products[-1]] if products else []
        return all(leaf.unit == "tensor" for leaf in between)

    def _steps(
        self, part: BlockPart, run: Any, trips: Values, masked: bool, overhead: bool = False
    ) -> tuple[GridStep, ...]:
        # Loads that run ahead are asked for when the tile is done; what is loaded at once comes first.
        ahead = [load for load in part.loads if self.moves.stages(load) > 1]
        loads = [step for load in part.loads if load not in ahead for step in self._load(load, run)]
        later = [step for load in ahead for step in self._load(load, run)]
        stores = [self._store(store, run) for store in part.stores]
        mean = max(float(np.mean(trips)), 1e-9)
        copied = [self.moves.copies(each, run) / mean * self._effort(each) for each in (*part.loads, *part.stores)]
        average = max(float(np.mean(self.moves.trips(part.path))), 1e-9)
        counts = {leaf: float(np.mean(self.moves.trips(self.parts.path(leaf)))) / average for leaf in part.leaves}
        done = self.steps.computed(part, sum(copied[: len(part.loads)]), sum(copied), counts, masked, overhead)
        alone = [each for each in part.loads if part.path and self.moves.alone(each)]
        if alone and self.steps.products.sizes:
            done.append(self.steps.number_by_number(self.moves.per_trip(part, alone), self.registers.lacking()))
        return (*loads, *done, *later, *stores)

    def _effort(self, transfer: Transfer) -> float:
        """Instructions that a move takes, over those of a copy of 16 bytes."""
        return 1.0 if self.moves.copy_bytes(transfer) == COPY_BYTES else self.steps.alone()

    def _load(self, load: Transfer, run: Any) -> list[GridStep]:
        first, last, row_bytes, _ = self.moves.span(load, run)
        again = self.moves.again(load, run) - 1
        first, last = first * self.alive, last * self.alive
        hot = self._hot(load.tensor)
        name, before = self._read_before(load)
        common: dict[str, Any] = {
            "load": name,
            "asynchronous": _number(int(self.moves.stages(load) > 1)),
            "batches": _number(self.moves.batches(load, self.steps.products, self.mask is not None)),
        }
        made = [
            GridStep(rows=(self._values(first), self._values(last)), row_bytes=self._values(row_bytes),
                     same=None if before else self._same(load), piece=_number(self.moves.piece(load, load.path)),
                     hot=hot, again=before, **common)
        ]  # fmt: skip
        if (again > 0).any():
            once = (last - first) * row_bytes
            rows = ZERO, self._values(again)
            made.append(GridStep(rows=rows, row_bytes=self._values(once), again=True, hot=hot, **common))
        return made

    def _read_before(self, load: Transfer) -> tuple[str, bool]:
        """What a load is called, and whether the block has read the same in an earlier part.

        Two ways to cut one tensor are two loads, whose bytes are not told to overlap.
        """
        earlier = [other for part in self.parts.parts for other in part.loads if other.tensor == load.tensor]
        earlier = earlier[: earlier.index(load)]
        other_cut = any(set(other.shape.dimensions) != set(load.shape.dimensions) for other in earlier)
        same_cut = any(set(other.shape.dimensions) == set(load.shape.dimensions) for other in earlier)
        return (str(load.access) if other_cut and not same_cut else load.tensor), same_cut

    def _store(self, store: Transfer, run: Any) -> GridStep:
        first, last, row_bytes, _ = self.moves.span(store, run)
        return GridStep(
            store=store.tensor,
            rows=(self._values(first * self.alive), self._values(last * self.alive)),
            row_bytes=self._values(row_bytes),
            piece=_number(self.moves.piece(store, (*store.path, *self.parts.grid))),
        )

    def _same(self, load: Transfer) -> tuple[Expression, ...] | None:
        """What tells blocks apart that read different bytes; None where no two read the same."""
        cut = [rank for rank in self.blocks.chunk if self.blocks.several(rank)]
        affine = {base for d in load.shape.dimensions if len(d.terms) > 1 for _, _, base in d.terms}
        own = {base for dimension in load.shape.dimensions for _, _, base in dimension.terms}
        if all(rank in own and rank not in affine for rank in cut):
            return None
        key = self.blocks.key([rank for rank in cut if rank in own and rank not in affine])
        return (self._values(key.astype(np.float64)),)

    def _hot(self, tensor: str) -> bool:
        """Whether a value that another launch made is still in the L2: it says so, or is small enough."""
        if self.homes.cascade.tensors[tensor].kind != "intermediate":
            return False
        shapes = [self.homes.ranks.shape(self.homes.einsum(tensor).output)]
        size = float(self.homes.ranks.words(shapes[0], self.extents).flat[0]) * self.tensor_bytes[tensor]
        return size <= self.gpu.l2_kept_whole or any(hold.level == "L2" for hold in self._holds(tensor))

    def _buffers(self, hold: Hold) -> float:
        """Tiles of a hold that lie in the shared memory: loads that cannot run ahead have one; single warps have the
        tile in use in registers, step by step."""
        loads = [load for part in self.parts.parts for load in part.loads if load.hold is hold]
        stages = [self.moves.stages(load) for load in loads]
        if not loads or hold.buffers.flat[0] == 1:
            return float(hold.buffers.flat[0])
        readers = [
            self.steps.products.wide(einsum.name)
            for leaf in self.phase.leaves for einsum in self.steps.products.einsums(leaf)
            if einsum.name in self.steps.products and {access.tensor for access in einsum.inputs} & {*hold.tensors}
        ]  # fmt: skip
        return float(max(1, max(stages) - (bool(readers) and not any(readers))))

    def _hold_bytes(self, hold: Hold) -> float:
        sizes = self.tile(hold.loops)
        words = [
            float(tensor_words(self.homes, name, hold, sizes).flat[0]) * self.tensor_bytes[name]
            for name in hold.tensors
        ]
        return max(words) * self._buffers(hold)

    def _teams(self) -> int:
        """Warp groups that go their own ways through a loop of products; elsewhere all meet at each step."""
        looped = [part for part in self.parts.parts if part.path]
        products = any(name in self.steps.products for part in looped for leaf in part.leaves for name in leaf.einsums)
        return max(1, self.warps // 4) if products else 1

    def _overlap(self) -> int:
        """Further tiles that a team works on beside the newest one: those of a pipeline; one where nothing in the loops
        waits for a product."""
        if self._depth():
            return self._depth() - 1
        looped = [part for part in self.parts.parts if part.path]
        return int(bool(looped) and all(self.steps.products.overlaps(part) for part in looped))

    def _depth(self) -> int:
        """Tiles in flight of the phase's pipeline; 0 where there is none."""
        blocks = [part for part in _parts(self.phase.body) if isinstance(part, Block)]
        return max((int(block.depth.flat[0]) for block in blocks if block.depth is not None), default=0)

    def _values(self, values: Array) -> Expression:
        """A number, or an array with one for each block, as an expression."""
        flat = np.asarray(values, dtype=np.float64).reshape(-1)
        if flat.size == 1 or (flat == flat[0]).all():
            return _number(flat[0])
        name = f"{self.name}_{len(self.arrays)}"
        self.arrays[name] = flat.reshape(1, 1, -1)
        return Expression.parse(name)


def _number(value: Any) -> Expression:
    """A number as an expression of its own, integers as such."""
    number = float(value)
    return Expression.parse(int(number) if number.is_integer() else number)


def _outside(hold: Hold, phase: PhaseNest) -> bool:
    """Whether a hold stands outside the grid."""
    return not all(loop in hold.loops for loop in phase.body.loops if loop.grid)


def _parts(part: Part) -> list[Part]:
    inner = [found for child in part.parts for found in _parts(child)] if isinstance(part, Block) else []
    return [part, *inner]
