"""What a thread block moves from and to memory: which rows, how many bytes at a time, by how many instructions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mappings.gpu.block_parts import BlockPart, BlockParts, Transfer
from mappings.gpu.block_products import BlockProducts, column_bases
from mappings.gpu.grid_blocks import GridBlocks, Walk
from mappings.gpu.instructions import WARP
from mappings.movement import count_chunks
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


class BlockMoves:
    """Transfers of the blocks of one launch."""

    def __init__(
        self,
        parts: BlockParts,
        blocks: GridBlocks,
        walk: Walk | None,
        extents: Mapping[str, Array],
        tensor_bytes: Mapping[str, float],
    ) -> None:
        self.parts, self.homes, self.blocks, self.walk = parts, parts.homes, blocks, walk
        self.extents, self.tensor_bytes = extents, tensor_bytes

    def trips(self, path: Sequence[Loop]) -> Values:
        """Iterations of nested loops in each block, (blocks,) or (1,)."""
        total = np.ones(1)
        for rank in dict.fromkeys(loop.rank for loop in path):
            chunks = [np.asarray(loop.chunk.flat[0]) for loop in path if loop.rank == rank]
            total = total * count_chunks(self.blocks.size[rank].astype(np.float64), chunks)
        return total

    def row_rank(self, transfer: Transfer) -> str | None:
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

    def copy_bytes(self, transfer: Transfer) -> float:
        """Bytes that an instruction moves at a time: 16, or a number where rows do not begin at multiples of those."""
        word, base = self.tensor_bytes[transfer.tensor], self.row_rank(transfer)
        return COPY_BYTES if base is None or self.extents[base].flat[0] % WHOLE_NUMBERS == 0 else word

    def alone(self, transfer: Transfer) -> bool:
        """Whether the numbers of a transfer are moved one by one, by instructions of their own."""
        return self.copy_bytes(transfer) < LEAST_COPY_BYTES

    def stages(self, load: Transfer) -> int:
        """Tiles of a load that are under way or in use at a time."""
        hold = load.hold
        if hold is None or hold.level != "shared" or hold.rolling or not load.path:
            return 1
        return int(hold.buffers.flat[0]) if not self.alone(load) else 1

    def again(self, transfer: Transfer, run: Any) -> Values:
        """How often a block moves the same tile."""
        walked = self.walk is not None and run is not None
        loops = [loop for loop in transfer.again if not (walked and self.walk and loop.rank == self.walk.rank)]
        times = self.trips(loops)
        return times * (run[1] - run[0]) if len(loops) < len(transfer.again) else times

    def span(self, transfer: Transfer, run: Any) -> tuple[Values, Values, Values, Values]:
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
        return first, last, row_bytes, (last - first) * row_bytes * self.again(transfer, run)

    def copies(self, transfer: Transfer, run: Any) -> float:
        """Instructions that move a tensor in all trips of a part, in the mean of the blocks."""
        return float(np.mean(self.span(transfer, run)[3])) / self.copy_bytes(transfer)

    def per_trip(self, part: BlockPart, transfers: Sequence[Transfer]) -> float:
        """Instructions that move some tensors in a trip of a part."""
        trips = max(1.0, float(np.mean(self.trips(part.path)))) if part.path else 1.0
        return sum(self.copies(transfer, None) for transfer in transfers) / trips

    def piece(self, transfer: Transfer, loops: Sequence[Loop]) -> float:
        """Bytes of a tensor's rows in memory that lie together, where some loops cut those rows; 0 where none does.

        What loops of a block cut, it reads at another time. Blocks that read parts of a row each do so at a time.
        """
        base = self.row_rank(transfer)
        if base is None:
            return 0.0
        chunk = min((float(loop.chunk.flat[0]) for loop in loops if loop.rank == base), default=math.inf)
        return chunk * self.tensor_bytes[transfer.tensor] if chunk < self.extents[base].flat[0] else 0.0

    def batches(self, load: Transfer, products: BlockProducts, masked: bool) -> float:
        """How often a load that threads wait for themselves is waited for (read off compiled kernels).

        Without products: many loads, or such under a mask, are asked for one by one but for the first few. Before a
        product in straight code: as registers have room beside its result. In a loop: single warps pass each on first.
        """
        if self.stages(load) > 1:
            return 1.0
        part = next(part for part in self.parts.parts if load in part.loads)
        count = WARP * products.warps
        if not products.sizes:
            asked, alone = self.per_trip(part, [load]) / count, self.copy_bytes(load) < COPY_BYTES
            one_by_one = masked or (not alone and asked >= MANY_LOADS)
            return max(1.0, asked - (7 if alone else 4)) if one_by_one else 1.0
        wide = all(products.wide(name) for name in products.sizes)
        if part.path:
            return 1.0 if wide else float(sum(self.stages(each) == 1 for each in part.loads))
        if load.hold is None or load.hold.level != "shared" or not any(leaf.unit == "tensor" for leaf in part.leaves):
            return 1.0
        asked = self.per_trip(part, part.loads) / count
        results = max(size.padded.rows * size.padded.columns for size in products.sizes.values()) / count
        room = max(2.5, (1.23 * results - 14) / 4)
        return float(math.ceil(asked / room)) if wide else float(min(2, math.ceil(asked / 10)))
