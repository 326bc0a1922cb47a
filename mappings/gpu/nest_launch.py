"""One phase of a nest as a launch of a grid of thread blocks, in the form that kernels are described in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from architectures import EvaluatedArchitecture
from architectures.gpu import Gpu
from einsum.errors import SpecError
from einsum.expressions import Expression
from mappings.capacity import tensor_words
from mappings.gpu.block_parts import BlockPart, BlockParts, Transfer
from mappings.gpu.block_registers import BlockRegisters
from mappings.gpu.block_steps import BlockSteps, column_bases
from mappings.gpu.grid_blocks import GridBlocks, Walk
from mappings.gpu.kernel import ZERO, GridLaunch, GridLoop, GridStep
from mappings.mask import Mask
from mappings.movement import count_chunks
from mappings.nest import Block, Hold, Part, Pause, PhaseNest
from mappings.operands import Homes
from mappings.program import Array
from mappings.tiles import Loop

Values = NDArray[np.float64]
COPY_BYTES = 16
"""Bytes that an instruction moves at most between memory and a thread block (CUDA programming guide)."""
WHOLE_NUMBERS = 16
"""What the compiler knows of a row's length: whether it is a multiple of so many numbers (Triton)."""
MANY_LOADS = 16
"""Loads of 16 bytes of a thread that are no longer asked for together (read off compiled softmax kernels)."""
LEAST_COPY_BYTES = 4
"""Of an asynchronous copy (PTX ISA, cp.async)."""


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
        pipelined = self._depth() > 1
        self.steps = BlockSteps(
            self.parts, machine, gpu, self.warps, self.tile, tensor_bytes, self.specialized, pipelined
        )

        moves = [each for part in self.parts.parts for each in (*part.loads, *part.stores)]
        alone = any(self._copy_bytes(each) < LEAST_COPY_BYTES for each in moves)
        if alone:
            self.steps.threads = replace(self.steps.threads, side=1)

    def launch(self) -> GridLaunch:
        """The launch; its arrays are in `arrays`, (1, 1, blocks) each."""
        loops: list[GridLoop] = []
        for part in self.parts.parts:
            loops += self._loops(part, last=part is self.parts.parts[-1])
        stages = [self._stages(load) for part in self.parts.parts for load in part.loads]
        return GridLaunch(
            launch=self.phase.name,
            grid={"x": _number(self.blocks.count)},
            warps=_number(self.warps),
            registers=_number(self._registers()),
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
            trips = self._trips(part.path) * self.alive
            steps = self._steps(part, None, trips, self.mask is not None)
            return [GridLoop(trips=self._values(trips), together=self._together(part), steps=steps)]
        others = self._trips([loop for loop in part.path if loop.rank != self.walk.rank])
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

    def _trips(self, path: Sequence[Loop]) -> Values:
        """Iterations of nested loops in each block, (blocks,) or (1,)."""
        total = np.ones(1)
        for rank in dict.fromkeys(loop.rank for loop in path):
            chunks = [np.asarray(loop.chunk.flat[0]) for loop in path if loop.rank == rank]
            total = total * count_chunks(self.blocks.size[rank].astype(np.float64), chunks)
        return total

    def _steps(
        self, part: BlockPart, run: Any, trips: Values, masked: bool, overhead: bool = False
    ) -> tuple[GridStep, ...]:
        # Loads that run ahead are asked for when the tile is done; what is loaded at once comes first.
        ahead = [load for load in part.loads if self._stages(load) > 1]
        loads = [step for load in part.loads if load not in ahead for step in self._load(load, run)]
        later = [step for load in ahead for step in self._load(load, run)]
        stores = [self._store(store, run) for store in part.stores]
        mean = max(float(np.mean(trips)), 1e-9)
        moves = [(each, self._copies(each, run) / mean) for each in (*part.loads, *part.stores)]
        copied = [
            count * (1.0 if self._copy_bytes(each) == COPY_BYTES else self.steps.alone()) for each, count in moves
        ]
        counts = {
            leaf: float(np.mean(self._trips(self.parts.path(leaf)))) / max(float(np.mean(self._trips(part.path))), 1e-9)
            for leaf in part.leaves
        }
        done = self.steps.computed(part, sum(copied[: len(part.loads)]), sum(copied), counts, masked, overhead)
        return (*loads, *done, *later, *stores)

    def _copy_bytes(self, transfer: Transfer) -> float:
        """Bytes that an instruction moves at a time: 16, or a number where rows do not begin at multiples of those."""
        word, base = self.tensor_bytes[transfer.tensor], self._row_rank(transfer)
        return COPY_BYTES if base is None or self.extents[base].flat[0] % WHOLE_NUMBERS == 0 else word

    def _volume(self, ranks: Sequence[str]) -> float:
        return float(self.homes.ranks.volume(ranks, self.extents).flat[0])

    def _load(self, load: Transfer, run: Any) -> list[GridStep]:
        first, last, row_bytes, _ = self._span(load, run)
        again = self._again(load, run) - 1
        first, last = first * self.alive, last * self.alive
        hot = self._hot(load.tensor)
        name, before = self._read_before(load)
        common: dict[str, Any] = {"load": name, "asynchronous": _number(int(self._stages(load) > 1)),
                                  "batches": _number(self._batches(load, run))}  # fmt: skip
        made = [
            GridStep(rows=(self._values(first), self._values(last)), row_bytes=self._values(row_bytes),
                     same=None if before else self._same(load), piece=_number(self._piece(load, load.path)),
                     hot=hot, again=before, **common)
        ]  # fmt: skip
        if (again > 0).any():
            once = (last - first) * row_bytes
            rows = ZERO, self._values(again)
            made.append(GridStep(rows=rows, row_bytes=self._values(once), again=True, hot=hot, **common))
        return made

    def _batches(self, load: Transfer, run: Any) -> float:
        """How often a load that threads wait for themselves is waited for (read off compiled kernels).

        Without products: many loads, or such under a mask, are asked for one by one but for the first few. Before a
        product in straight code: as registers have room beside its result. In a loop: single warps pass each on first.
        """
        products, count = self.steps.products, self.steps.threads.count
        if self._stages(load) > 1:
            return 1.0
        part = next(part for part in self.parts.parts if load in part.loads)
        trips = max(1.0, float(np.mean(self._trips(part.path)))) if part.path else 1.0
        if not products.sizes:
            asked, alone = self._copies(load, run) / trips / count, self._copy_bytes(load) < COPY_BYTES
            one_by_one = self.mask is not None or (not alone and asked >= MANY_LOADS)
            return max(1.0, asked - (7 if alone else 4)) if one_by_one else 1.0
        wide = all(products.wide(name) for name in products.sizes)
        if part.path:
            return 1.0 if wide else float(sum(self._stages(each) == 1 for each in part.loads))
        if load.hold is None or load.hold.level != "shared" or not any(leaf.unit == "tensor" for leaf in part.leaves):
            return 1.0
        asked = sum(self._copies(each, run) for each in part.loads) / count
        results = max(size.padded.rows * size.padded.columns for size in products.sizes.values()) / count
        room = max(2.5, (1.23 * results - 14) / 4)
        return float(math.ceil(asked / room)) if wide else float(min(2, math.ceil(asked / 10)))

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
        first, last, row_bytes, _ = self._span(store, run)
        return GridStep(
            store=store.tensor,
            rows=(self._values(first * self.alive), self._values(last * self.alive)),
            row_bytes=self._values(row_bytes),
            piece=_number(self._piece(store, (*store.path, *self.parts.grid))),
        )

    def _piece(self, transfer: Transfer, loops: Sequence[Loop]) -> float:
        """Bytes of a tensor's rows in memory that lie together, where some loops cut those rows; 0 where none does.

        What loops of a block cut, it reads at another time. Blocks that read parts of a row each do so at a time.
        """
        base = self._row_rank(transfer)
        if base is None:
            return 0.0
        chunk = min((float(loop.chunk.flat[0]) for loop in loops if loop.rank == base), default=math.inf)
        return chunk * self.tensor_bytes[transfer.tensor] if chunk < self.extents[base].flat[0] else 0.0

    def _row_rank(self, transfer: Transfer) -> str | None:
        """The base rank along which the rows of a tensor lie in memory: its last one; of what another launch makes, the
        last that lies along a row of threads there. None for sums of ranks."""
        ranks = self.homes.ranks
        indices = [index.ranks for index in transfer.access.indices]
        if self.homes.cascade.tensors[transfer.tensor].kind == "intermediate":
            makers = self.homes.producers(transfer.tensor)
            phase = next(phase for phase in self.homes.phases if makers[0] in phase.leaves)
            columns = column_bases(phase.leaves, self.homes)
            indices = [index for index in indices if {ranks.base(rank) for rank in index} & columns] or indices
        return ranks.base(indices[-1][0]) if indices and len(indices[-1]) == 1 else None

    def _again(self, transfer: Transfer, run: Any) -> Values:
        """How often a block moves the same tile."""
        walked = self.walk is not None and run is not None
        loops = [loop for loop in transfer.again if not (walked and self.walk and loop.rank == self.walk.rank)]
        times = self._trips(loops)
        return times * (run[1] - run[0]) if len(loops) < len(transfer.again) else times

    def _span(self, transfer: Transfer, run: Any) -> tuple[Values, Values, Values, Values]:
        """First row and one past the last of what a block moves of a tensor in a part, bytes of a row, and all bytes.

        Rows run along the mask's columns, or along the first dimension that blocks cut with an overlap.
        """
        sizes = {rank: size.astype(np.float64) for rank, size in self.blocks.size.items()}
        first, last, rows = np.zeros(1), np.ones(1), None
        for dimension in transfer.shape.dimensions:
            cut = [term for term in dimension.terms if self.blocks.several(term[2])]
            if rows is not None:
                continue
            if run is not None and self.walk and len(dimension.terms) == 1 and dimension.terms[0][2] == self.walk.rank:
                low, high = self.walk.columns(run[0], run[1])
                rows, first, last = dimension, low.astype(np.float64), high.astype(np.float64)
            elif len(dimension.terms) > 1 and cut:
                first = reduce(np.add, (c * self.blocks.start[base] for c, _, base in cut)).astype(np.float64)
                width = reduce(np.add, (c * (sizes[base] - 1) for c, _, base in dimension.terms)) + 1
                rows, last = dimension, first + width
        others = type(transfer.shape)(
            tuple(dimension for dimension in transfer.shape.dimensions if dimension is not rows),
            transfer.shape.moved_by,
        )
        row_bytes = self.homes.ranks.words(others, sizes).reshape(-1) * self.tensor_bytes[transfer.tensor]
        return first, last, row_bytes, (last - first) * row_bytes * self._again(transfer, run)

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
        return size <= self.gpu.l2_usable or any(hold.level == "L2" for hold in self._holds(tensor))

    def _stages(self, load: Transfer) -> int:
        """Tiles of a load that are under way or in use at a time."""
        hold = load.hold
        if hold is None or hold.level != "shared" or hold.rolling or not load.path:
            return 1
        return int(hold.buffers.flat[0]) if self._copy_bytes(load) >= LEAST_COPY_BYTES else 1

    def _buffers(self, hold: Hold) -> float:
        """Tiles of a hold that lie in the shared memory: loads that cannot run ahead have one; single warps have the
        tile in use in registers, step by step."""
        loads = [load for part in self.parts.parts for load in part.loads if load.hold is hold]
        stages = [self._stages(load) for load in loads]
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

    def _registers(self) -> float:
        """Registers of a thread: what the mapping holds there, what products and copies take besides, addresses and
        counters; SpecError for holds of more than there are, unless one may spill."""
        threads, found = self.steps.threads, BlockRegisters(self.steps, self._inside("registers"), self.tile)
        own, held = threads.variable("thread_registers"), found.held
        total = own + sum(held.values())
        if total > self.gpu.max_registers and not any(hold.spills for hold in held):
            largest = max(held, key=lambda hold: held[hold])
            raise SpecError(
                f"a thread would hold {total:,.0f} registers of {self.gpu.max_registers:,.0f}, the largest part is "
                f"'{largest.name}' with {held[largest]:,.0f}; use smaller tiles or more warps",
                key=largest.key,
            )
        if self.steps.products.sizes:
            total = threads.variable("block_registers") + threads.variable("held_registers") * found.live()
        else:
            total = own + found.live()
        return min(total + self._moving_registers(), self.gpu.max_registers)

    def _moving_registers(self) -> float:
        """Registers of a thread for what is on its way: copies to the shared memory, operands of single warps' products,
        numbers that are moved one by one."""
        threads, most, alone = self.steps.threads, 0.0, 0.0
        for part in self.parts.parts:
            trips = max(1.0, float(np.mean(self._trips(part.path)))) if part.path else 1.0
            shared = [each for each in part.loads if each.hold is not None and each.hold.level == "shared"]
            most = max(most, sum(self._copies(each, None) for each in shared) / trips)
            others = [each for each in (*part.loads, *part.stores) if each not in shared]
            single = [self._copies(each, None) for each in others if self._copy_bytes(each) < LEAST_COPY_BYTES]
            alone = max(alone, max(single, default=0.0) / trips)
        kept, other = self.steps.products.operand_registers()
        return (
            threads.variable("copy_registers") * most / threads.count
            + threads.variable("address_registers") * alone / threads.count
            + kept
            + threads.variable("operand_registers") * other
        )

    def _copies(self, transfer: Transfer, run: Any) -> float:
        """Instructions that move a tensor in all trips of a part, in the mean of the blocks."""
        return float(np.mean(self._span(transfer, run)[3])) / self._copy_bytes(transfer)

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
        return int(bool(looped) and all(self.steps.overlaps(part) for part in looped))

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
