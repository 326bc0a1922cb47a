"""The Einsums of a thread block as steps: products on the tensor cores, instructions of the threads.

Work is counted from the Einsums: their operations at the points of a whole tile, through the architecture's table of
instructions. To it comes what a loop's trip takes: control, addresses of copies, issue of products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from architectures import EvaluatedArchitecture
from architectures.gpu import Gpu
from einsum.access import Access
from einsum.body import REDUCTIONS
from einsum.einsum import Einsum
from einsum.errors import SpecError
from einsum.expressions import Expression
from mappings.gpu.block_parts import BlockPart, BlockParts
from mappings.gpu.block_products import BlockProducts, column_bases
from mappings.gpu.instructions import REGISTER_BYTES, Cost, Threads
from mappings.gpu.invariants import operations_of
from mappings.gpu.kernel import GridStep
from mappings.gpu.product import PRODUCT_DEPTH_BYTES
from mappings.nest import Hold, Leaf
from mappings.program import Array
from mappings.tiles import Loop

LACKING_READS = 2.8
"""Accesses of a trip to a register that a thread lacks, addresses that move on among them (matrix products)."""
Tile = Mapping[str, Array]


class BlockSteps:
    """Steps of one launch's Einsums. `tile(loops)`: coordinates of each base rank in an iteration of loops;
    `pipelined`: the tiles of a team overlap anyhow."""

    def __init__(
        self,
        parts: BlockParts,
        machine: EvaluatedArchitecture,
        gpu: Gpu,
        warps: int,
        tile: Callable[[Sequence[Loop]], dict[str, Array]],
        tensor_bytes: Mapping[str, float],
        specialized: bool,
        pipelined: bool,
    ) -> None:
        self.parts, self.homes, self.gpu, self.tile, self.tensor_bytes = parts, parts.homes, gpu, tile, tensor_bytes
        self.specialized, self.pipelined = specialized, pipelined
        self.ranks = parts.homes.ranks
        leaves = parts.phase.leaves
        self.products = BlockProducts(parts, gpu, warps, tile, tensor_bytes)
        sizes = self.products.sizes.values()
        self.columns = column_bases(leaves, self.homes)
        columns = max(self._width(e.ranks, tile(leaf.loops)) for leaf in leaves for e in self.products.einsums(leaf))
        points = max(self._volume(e.ranks, tile(leaf.loops)) for leaf in leaves for e in self.products.einsums(leaf))
        rows = max((product.rows for product in sizes), default=points / columns)
        self.threads = Threads(machine, gpu, warps, rows, columns, fragments=bool(sizes))

    def computed(
        self,
        part: BlockPart,
        loads: float,
        transfers: float,
        counts: Mapping[Leaf, float],
        masked: bool,
        overhead: bool,
    ) -> list[GridStep]:
        """The steps of one trip of a part.

        loads, transfers   copies of up to 16 bytes that a trip makes from memory, and from and to memory
        counts     leaf -> how often it runs in a trip, below 1 for one that runs once for several
        masked     points of the tiles may be left out
        overhead   the part has the code before and behind the loops
        """
        made: list[GridStep] = []
        barrier = 2 * self.threads.barrier_cycles if part.loads and self.products.sizes else 0.0
        selecting = masked
        for tensor, group in groupby(part.leaves, lambda leaf: leaf.unit == "tensor"):
            leaves = list(group)
            if not tensor:
                made += self._stretch(leaves, part, counts, selecting)
                selecting = selecting and not any(e.conditions for leaf in leaves for e in self.products.einsums(leaf))
                continue
            for leaf in leaves:
                for einsum in self.products.einsums(leaf):
                    if einsum.name in self.products:
                        left = self._left(einsum, leaf, part)
                        made.append(self._product_step(einsum, leaf, part, counts[leaf], 0.0 if left else barrier))
                        barrier = barrier if left else 0.0
                        made += self._handed_over(einsum, leaf, counts[leaf])
                    if self.products.feeds(einsum.name):
                        chosen = selecting and bool(einsum.conditions)
                        made.append(self._operand(einsum, leaf, chosen, counts[leaf]))
                        selecting = selecting and not chosen
        control = self._control(part, loads, transfers, counts, overhead)
        if control.issue > 0:
            made.append(_vector("control", control, barrier))
        for store in part.stores:
            maker = next(leaf for leaf in self.parts.makers(store.tensor))
            if self.threads.fragments:
                made.append(self._leave(store.tensor, maker))
        return made

    def alone(self) -> float:
        """Instructions that move a number by itself, over those that copy 16 bytes."""
        return self.threads.operation("number").issue / self.threads.operation("copy").issue

    def number_by_number(self, numbers: float, lacking: float) -> GridStep:
        """Numbers that a trip brings to the shared memory one by one, each as wide as a lane; and registers that each
        thread lacks for it, read back one after another and written, since addresses move on."""
        threads = self.threads
        spilled = LACKING_READS * lacking * threads.count
        return _vector(
            "numbers alone", Cost(issue=spilled), LACKING_READS * lacking * self.gpu.shared_latency_cycles,
            REGISTER_BYTES * (numbers + spilled),
        )  # fmt: skip

    def exchanged_bytes(self) -> float:
        """Shared memory for right operands that a mapping holds in registers: the tensor cores read them there."""
        found = {}
        for leaf in self.parts.phase.leaves:
            for einsum in self.products.einsums(leaf):
                right = einsum.inputs[-1]
                if einsum.name in self.products and self._through_shared(right.tensor, leaf):
                    found[right.tensor] = self._bytes(right, self.tile(leaf.loops))
        return sum(found.values())

    def registers(self, tensor: str, tile: Tile, hold: Hold) -> float:
        """Registers of a thread that a tile of a tensor takes."""
        if hold.rolling:
            return 1.0
        einsums = [einsum for leaf in self.parts.phase.leaves for einsum in self.products.einsums(leaf)]
        found = (access for einsum in einsums for access in (*einsum.inputs, einsum.output))
        accesses = [access for access in found if access.tensor == tensor]
        if not accesses:
            return 0.0
        shape = self.ranks.shape(accesses[0])
        words = float(self.ranks.words(shape, tile).flat[0])
        latest = self.ranks.iterative(tensor)
        has_column = self._width((rank for rank in accesses[0].ranks if rank not in latest), tile) > 1
        operand = not self.parts.makers(tensor) or (self.products.feeds(tensor) and tensor not in self.products)
        threads = self._threads(accesses[0].ranks, tile)
        return threads.registers(words, has_column, self.tensor_bytes[tensor] if operand else REGISTER_BYTES)

    def _volume(self, ranks: Iterable[str], tile: Tile) -> float:
        return self.products.volume(ranks, tile)

    def _width(self, ranks: Iterable[str], tile: Tile) -> float:
        """Columns of a tile over some ranks."""
        return self._volume((rank for rank in ranks if self.ranks.base(rank) in self.columns), tile)

    def _control(
        self, part: BlockPart, loads: float, transfers: float, counts: Mapping[Leaf, float], overhead: bool
    ) -> Cost:
        """What a trip takes beside its Einsums: control, addresses of copies, issue of warp groups' products."""
        threads = self.threads
        cost = threads.operation("trip").times(threads.count) if part.path else Cost()
        if overhead:
            cost += threads.operation("block" if self.products.sizes else "rows").times(threads.count)
        cost += threads.operation("copy").times(transfers - (loads if self.specialized and part.path else 0.0))
        for leaf in part.leaves:
            for einsum in self.products.einsums(leaf):
                if einsum.name in self.products and self._left(einsum, leaf, part):
                    cost += self._issue(einsum.name).times(counts[leaf])
        return cost

    def _issue(self, name: str) -> Cost:
        threads, product, again = self.threads, self.products.sizes[name].padded, self.products.repeat(name)
        steps = product.depth * product.word_bytes / PRODUCT_DEPTH_BYTES * product.repeat
        if self.products.wide(name):
            turns = max(1.0, again, product.rows / (16 * threads.warps))
            return threads.operation("group_mma").times(steps * turns * threads.count)
        return threads.operation("warp_mma").times(steps * again * product.rows / 16 * product.columns / 8 * 32)

    def _product_step(self, einsum: Einsum, leaf: Leaf, part: BlockPart, count: float, barrier: float) -> GridStep:
        name, products = einsum.name, self.products
        product, wide, again = products.sizes[name].padded, products.wide(name), products.repeat(name)
        aside = self._left(einsum, leaf, part)
        issue = 0.0 if aside else self._issue(name).times(count).issue
        held = self._level(leaf, einsum.inputs[0].tensor) == "registers" and not self._passed_on(einsum.inputs[0], name)
        latency = barrier + (2 * self.threads.barrier_cycles if self._passed_in(einsum, leaf) else 0.0)
        if latency and not wide:
            latency += self.gpu.shared_latency_cycles
        waits = float(not wide or products.waited_for(einsum, leaf, part))
        if part.path and products.serial(name):
            # A second warp group works while the first waits for its instructions.
            waits = product.depth * product.word_bytes / PRODUCT_DEPTH_BYTES if self.threads.warps <= 4 else 1.0
        return GridStep(
            product=name, m=_number(product.rows), n=_number(product.columns), k=_number(product.depth),
            repeat=_number(product.repeat * again * count), columns=_number(products.group_columns(name)),
            row_warps=_number(0 if wide else products.layouts[name].along_rows), issue=_number(issue),
            held=_number(int(held)), waits=_number(waits), latency=_number(latency * count),
            aside=_number(int(aside)),
        )  # fmt: skip

    def _left(self, einsum: Einsum, leaf: Leaf, part: BlockPart) -> bool:
        """Whether the rest of a trip runs beside a product."""
        name = einsum.name
        left = self.products.wide(name) and not self.products.serial(name) and not self.pipelined
        return left and bool(part.path) and not self.products.waited_for(einsum, leaf, part)

    def _handed_over(self, einsum: Einsum, leaf: Leaf, count: float) -> list[GridStep]:
        """A result to which a product adds whose warps lie otherwise: eight numbers of a thread at a time pass
        the shared memory (linear attention)."""
        threads, there = self.threads, self.products.handed_over(einsum.name)
        if not there:
            return []
        turn = 2 * threads.barrier_cycles + self.gpu.shared_latency_cycles
        moved = REGISTER_BYTES * there * (1 + 1 / self.products.repeat(einsum.name))
        latency = there / threads.count / 8 * turn
        return [_vector(f"{einsum.name} exchange", Cost(), latency * count, moved * count)]

    def _passed_in(self, einsum: Einsum, leaf: Leaf) -> bool:
        """Whether a product reads what the block has brought to the shared memory."""
        return any(
            self.parts.makers(access.tensor) and self._level(leaf, access.tensor) == "shared"
            for access in einsum.inputs
        )

    def _passed_on(self, access: Access, reader: str) -> bool:
        """Whether a left operand in registers goes through the shared memory: single warps lie along its depth."""
        return (
            bool(self.parts.makers(access.tensor))
            and self.products.layouts[reader].along_columns > 1
            and (not self.products.wide(reader))
        )

    def _stretch(
        self, leaves: Sequence[Leaf], part: BlockPart, counts: Mapping[Leaf, float], selects: bool
    ) -> list[GridStep]:
        """Vector Einsums that follow one another: one stretch of code for the compiler, up to a reduction that what
        follows has to wait for."""
        made: list[GridStep] = []
        cost, shared, names, special = Cost(), 0.0, list[str](), False
        for leaf in leaves:
            selecting = selects and any(einsum.conditions for einsum in self.products.einsums(leaf))
            own, waited, moved = self._leaf_cost(leaf, part, selecting)
            own += self._unpacked(leaf, part)
            selects = selects and not selecting
            special = special or bool(own.sfu and self._exposed(leaf, part))
            cost, shared = cost + own.times(counts[leaf]), shared + moved * counts[leaf]
            names.append(leaf.name)
            if waited or leaf is leaves[-1]:
                name = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
                latency = waited * counts[leaf] + (self.threads.variable("sfu_latency_cycles") if special else 0.0)
                made.append(_vector(name, cost, latency, shared))
                cost, shared, names, special = Cost(), 0.0, [], False
        return made

    def _unpacked(self, leaf: Leaf, part: BlockPart) -> Cost:
        """Numbers from memory that become 32 bits where a part first computes with them."""
        cost, tile = Cost(), self.tile(leaf.loops)
        for einsum in self.products.einsums(leaf):
            for access in einsum.inputs:
                first = next(iter(self.products.readers(access.tensor, part)), None)
                narrow = self.tensor_bytes[access.tensor] < REGISTER_BYTES and not self.parts.makers(access.tensor)
                if first is leaf and einsum.ops and narrow:
                    points, kept = self._volume(access.ranks, tile), self._width(access.ranks, tile) > 1
                    lanes = self._threads(access.ranks, tile).lanes(points, kept)
                    cost += self.threads.operation("unpack").times(lanes)
        return cost

    def _leaf_cost(self, leaf: Leaf, part: BlockPart, selects: bool) -> tuple[Cost, float, float]:
        """Instructions of a leaf, the latency of a reduction that the trip waits for, bytes of the shared memory."""
        tile, spread = self.tile(leaf.loops), self._exposed(leaf, part, spread=True)
        cost, latency, shared = Cost(), 0.0, 0.0
        try:
            for einsum in self.products.einsums(leaf):
                own, waited, exchanged = self._einsum_cost(einsum, tile, selects)
                cost += own
                latency += waited if spread else 0.0
                passed = [access for access in einsum.inputs if self.homes.source(leaf, access.tensor) is not None]
                shared += exchanged + sum(
                    self._bytes(access, tile) for access in (*passed, einsum.output)
                    if self._level(leaf, access.tensor) == "shared"
                )  # fmt: skip
                selects = False
        except SpecError as error:
            raise error.located(key=leaf.key) from None
        return cost, latency, shared

    def _threads(self, ranks: Iterable[str], tile: Tile) -> Threads:
        """The threads, as the values over some ranks lie in them."""
        width = self._width(ranks, tile)
        threads = replace(self.threads, columns=width) if width > 1 else self.threads
        name = self.products.of_value(ranks)
        if name is None:
            return threads
        layout, product = self.products.layouts[name], self.products.sizes[name].padded
        again = layout.repeat(product), max(1.0, 16 * layout.along_rows / product.rows)
        return replace(threads, along=layout.along_columns, again=again)

    def _einsum_cost(self, einsum: Einsum, tile: Tile, selects: bool) -> tuple[Cost, float, float]:
        """Instructions of one Einsum at a tile, the latency of its reduction, and what that moves in shared memory."""
        width = self._width(einsum.ranks, tile)
        has_column, threads = width > 1, self._threads(einsum.ranks, tile)
        points, latency, shared = self._volume(einsum.ranks, tile), 0.0, 0.0
        done = operations_of(einsum, lambda access: has_column and self._width(access.ranks, tile) <= 1)
        cost = threads.operations(done.points, points, has_column) + self._selecting(einsum, points, threads, selects)
        rows = points / max(width, 1.0)
        cost += threads.operations(done.rows, rows, False)
        if done.divisions and has_column:
            reciprocal = Cost(sfu=done.divisions * threads.operation("div").sfu)
            cost += reciprocal.times(threads.lanes(rows, False) - threads.lanes(points, True))
        results = self._volume((rank for rank in einsum.ranks if rank not in einsum.reduced), tile)
        if einsum.reduction is not None and self._width(einsum.reduced, tile) > 1:
            kind = REDUCTIONS[einsum.reduction].kind
            latency = threads.reduction_cycles(threads.busy_cycles(cost) / max(1, threads.warps // 4))
            cost += threads.exchange(kind, results)
            shared = threads.exchanged_bytes(results)
        narrow = bool(einsum.ops) and self.tensor_bytes[einsum.name] < REGISTER_BYTES
        leaves = einsum.name in self.parts.outside and not threads.fragments
        if narrow and (leaves or self.products.feeds(einsum.name)):
            kept = self._width(einsum.output.ranks, tile) > 1
            cost += threads.operation("convert").times(threads.lanes(results, kept))
        return cost, latency, shared

    def _through_shared(self, tensor: str, reader: Leaf) -> bool:
        """Whether a value that the block makes is a right operand of `reader`, held in registers."""
        rights = [einsum.inputs[-1].tensor for einsum in self.products.einsums(reader) if einsum.name in self.products]
        return tensor in rights and bool(self.parts.makers(tensor)) and self._level(reader, tensor) == "registers"

    def _operand(self, einsum: Einsum, leaf: Leaf, selects: bool, count: float) -> GridStep:
        """A product's result that becomes an operand: masked, converted, and brought to where the next one reads it."""
        tile, tensor = self.tile(leaf.loops), einsum.name
        words = self._volume((rank for rank in einsum.output.ranks if rank in einsum.ranks), tile)
        threads = self._threads(einsum.output.ranks, tile)
        cost = self._selecting(einsum, words, threads, selects)
        if self.tensor_bytes[tensor] < REGISTER_BYTES:
            cost += threads.operation("convert").times(threads.lanes(words, True))
        shared = self._level(leaf, tensor) == "shared" or any(
            self._through_shared(tensor, reader) for reader in self.parts.phase.leaves
        )
        moved = words * self.tensor_bytes[tensor] if shared else 0.0
        latency = 2 * self.threads.barrier_cycles if shared else 0.0
        return _vector(f"{tensor} operand", cost.times(count), latency * count, moved * count)

    def _selecting(self, einsum: Einsum, points: float, threads: Threads, selects: bool) -> Cost:
        """Places, comparisons and selection under a mask at the points of a tile."""
        more = float(len(einsum.conditions) - 1)
        return threads.operations({"mask": 1.0, "cmp": more, "select": more}, points, True) if selects else Cost()

    def _leave(self, tensor: str, maker: Leaf) -> GridStep:
        """A result on its way out: converted, and through the shared memory to where threads write whole lines."""
        tile = self.tile(maker.loops)
        output = self.homes.einsum(tensor).output
        words = float(self.ranks.words(self.ranks.shape(output), tile).flat[0])
        word = self.tensor_bytes[tensor]
        cost = self.threads.operation("leave").times(words)
        cost += self.threads.operation("convert").times(words) if word < REGISTER_BYTES else Cost()
        return _vector(f"{tensor} out", cost, 2 * self.threads.barrier_cycles, 2 * words * word)

    def _bytes(self, access: Any, tile: Tile) -> float:
        return float(self.ranks.words(self.ranks.shape(access), tile).flat[0]) * self.tensor_bytes[access.tensor]

    def _level(self, leaf: Leaf, tensor: str) -> str:
        """The memory of the block that a leaf takes a tensor from, or leaves it in."""
        holds = self.parts.held(leaf, tensor)
        return holds[-1].level if holds else ""

    def _exposed(self, leaf: Leaf, part: BlockPart, spread: bool = False) -> bool:
        """Whether a product of the same trip, or what the trip stores, waits for a leaf's values.

        spread  or Einsums over columns of the tile do, which bring many instructions that cannot go before it
        """
        stored = {store.tensor for store in part.stores}
        seen, pending = {leaf}, [leaf]
        while pending:
            maker = pending.pop()
            for name in maker.einsums:
                if name in stored:
                    return True
                for reader in self.products.readers(name, part):
                    if any(other in self.products for other in reader.einsums):
                        return True
                    if spread and any(
                        self._width(e.ranks, self.tile(reader.loops)) > 1 for e in self.products.einsums(reader)
                    ):
                        return True
                    if reader not in seen:
                        seen.add(reader)
                        pending.append(reader)
        return False


def _vector(name: str, cost: Cost, latency: float, shared: float = 0.0) -> GridStep:
    return GridStep(
        vector=name, issue=_number(cost.issue), half=_number(cost.half), sfu=_number(cost.sfu), fp32=_number(cost.fp32),
        shared=_number(shared), latency=_number(latency),
    )  # fmt: skip


def _number(value: float) -> Expression:
    number = float(value)
    return Expression.parse(int(number) if number.is_integer() else number)
