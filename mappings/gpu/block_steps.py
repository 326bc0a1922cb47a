"""The Einsums of a thread block as steps: products on the tensor cores, instructions of the threads.

Work is counted from the Einsums: their operations at the points of a whole tile, through the architecture's table of
instructions. To it comes what a loop's trip takes: control, addresses of copies, issue of products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from architectures import EvaluatedArchitecture
from architectures.gpu import Gpu
from einsum.body import REDUCTIONS
from einsum.einsum import Einsum
from einsum.errors import SpecError, join_key, nearest
from einsum.expressions import Expression
from mappings.gpu.block_parts import BlockPart, BlockParts
from mappings.gpu.instructions import Cost, Threads
from mappings.gpu.invariants import operations_of
from mappings.gpu.kernel import GridStep
from mappings.gpu.product import PRODUCT_DEPTH_BYTES, Product
from mappings.nest import Hold, Leaf
from mappings.operands import is_previous
from mappings.program import Array
from mappings.tiles import Loop

VECTOR_UNITS = ("vector", "sfu")
REGISTER_BYTES = 4

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
        found = {
            einsum.name: self._product(einsum, leaf)
            for leaf in leaves for einsum in self._einsums(leaf) if leaf.unit == "tensor" and "mac" in einsum.ops
        }  # fmt: skip
        self.products = {name: product for name, (product, _) in found.items()}
        for leaf in leaves:
            self._check_unit(leaf)
        self.columns = self._column_ranks([names for _, names in found.values()])
        self.threads = Threads(
            machine, gpu, warps,
            rows=max((product.rows for product in self.products.values()), default=1.0),
            columns=max(self._width(e.ranks, tile(leaf.loops)) for leaf in leaves for e in self._einsums(leaf)),
            fragments=bool(self.products),
        )  # fmt: skip

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
        barrier = 2 * self.threads.barrier_cycles if part.loads and part.path else 0.0
        selecting = masked
        for leaf in part.leaves:
            if leaf.unit == "tensor":
                for einsum in self._einsums(leaf):
                    if einsum.name in self.products:
                        made.append(self._product_step(einsum, leaf, part, counts[leaf], barrier))
                        barrier = 0.0
                    if self._feeds_product(einsum.name):
                        chosen = selecting and bool(einsum.conditions)
                        made.append(self._operand(einsum, leaf, chosen, counts[leaf]))
                        selecting = selecting and not chosen
                continue
            chosen = selecting and any(einsum.conditions for einsum in self._einsums(leaf))
            made.append(self._vector_step(leaf, part, counts[leaf], chosen))
            selecting = selecting and not chosen
        control = self._control(part, loads, transfers, counts, overhead)
        if control.issue > 0:
            made.append(_vector("control", control, 0.0))
        for store in part.stores:
            maker = next(leaf for leaf in self.parts.makers(store.tensor))
            if self.threads.fragments:
                made.append(self._leave(store.tensor, maker))
        return made

    def overlaps(self, part: BlockPart) -> bool:
        """Whether single warps' products run beside all else of a trip: nothing in it needs their results."""
        for leaf in part.leaves:
            for einsum in self._einsums(leaf):
                product = self.products.get(einsum.name)
                if leaf.unit != "tensor" or self._waited_for(einsum, leaf, part):
                    return False
                if product and self._wide(product.padded):
                    return False
        return True

    def exchanged_bytes(self) -> float:
        """Shared memory for right operands that a mapping holds in registers: the tensor cores read them there."""
        found = {}
        for leaf in self.parts.phase.leaves:
            for einsum in self._einsums(leaf):
                right = einsum.inputs[-1]
                if einsum.name in self.products and self._through_shared(right.tensor, leaf):
                    found[right.tensor] = self._bytes(right, self.tile(leaf.loops))
        return sum(found.values())

    def registers(self, tensor: str, tile: Tile, hold: Hold) -> float:
        """Registers of a thread that a tile of a tensor takes."""
        if hold.rolling:
            return 1.0
        leaves = self.parts.phase.leaves
        accesses = [
            access for leaf in leaves for einsum in self._einsums(leaf) for access in (*einsum.inputs, einsum.output)
            if access.tensor == tensor
        ]  # fmt: skip
        if not accesses:
            return 0.0
        shape = self.ranks.shape(accesses[0])
        words = float(self.ranks.words(shape, tile).flat[0])
        has_column = self._width(accesses[0].ranks, tile) > 1
        operand = not self.parts.makers(tensor) or self._feeds_product(tensor)
        return self.threads.registers(words, has_column, self.tensor_bytes[tensor] if operand else REGISTER_BYTES)

    def _check_unit(self, leaf: Leaf) -> None:
        """SpecError for a unit that a thread block does not have, and for what tensor cores cannot do."""
        if leaf.unit not in (*VECTOR_UNITS, "tensor"):
            raise SpecError(
                f"{leaf.name}: a thread block computes on tensor or vector, not on '{leaf.unit}'"
                f"{nearest(leaf.unit, (*VECTOR_UNITS, 'tensor'))}",
                key=join_key(leaf.key, "on"),
            )
        for einsum in self._einsums(leaf) if leaf.unit == "tensor" else ():
            added = einsum.ops == {"add": 1} and any(access.tensor in self.products for access in einsum.inputs)
            if einsum.name not in self.products and not added:
                raise SpecError(
                    f"the tensor cores compute products of two tensors and add one to a value, not {einsum}",
                    key=join_key(leaf.key, "on"),
                )

    def _einsums(self, leaf: Leaf) -> tuple[Einsum, ...]:
        return tuple(self.homes.einsum(name) for name in leaf.einsums)

    def _volume(self, ranks: Iterable[str], tile: Tile) -> float:
        return float(self.ranks.volume(tuple(ranks), tile).flat[0])

    def _product(self, einsum: Einsum, leaf: Leaf) -> tuple[Product, tuple[str, ...]]:
        """A product's sizes, and the ranks of its columns. Its first operand has the rows, the second the columns."""
        if einsum.ops != {"mac": 1} or len(einsum.inputs) != 2:
            raise SpecError(
                f"the tensor cores compute sums of products of two tensors, not {einsum}", key=join_key(leaf.key, "on")
            )
        left, right = ({*access.ranks} for access in einsum.inputs)
        output, tile = {*einsum.output.ranks} - {*einsum.reduced}, self.tile(leaf.loops)
        columns = tuple(rank for rank in einsum.ranks if rank in output and rank in right and rank not in left)
        rows = [rank for rank in einsum.ranks if rank in output and rank in left and rank not in right]
        both = [rank for rank in einsum.ranks if rank in output and rank in left and rank in right]
        word = max(self.tensor_bytes[access.tensor] for access in einsum.inputs)
        return (
            Product(
                self._volume(rows, tile), self._volume(columns, tile), self._volume(einsum.reduced, tile),
                self._volume(both, tile), word,
            ),
            columns,
        )  # fmt: skip

    def _column_ranks(self, columns: Sequence[tuple[str, ...]]) -> frozenset[str]:
        """Base ranks that lie along a row of threads: columns of products; without any what the block reduces, or the
        last rank of what it computes."""
        if columns:
            return frozenset(self.ranks.base(rank) for names in columns for rank in names)
        einsums = [einsum for leaf in self.parts.phase.leaves for einsum in self._einsums(leaf)]
        reduced = frozenset(self.ranks.base(rank) for einsum in einsums for rank in einsum.reduced)
        return reduced or frozenset(self.ranks.base(einsum.ranks[-1]) for einsum in einsums if einsum.ranks)

    def _width(self, ranks: Iterable[str], tile: Tile) -> float:
        """Columns of a tile over some ranks."""
        return self._volume((rank for rank in ranks if self.ranks.base(rank) in self.columns), tile)

    def _feeds_product(self, tensor: str) -> bool:
        """Whether a product of this launch reads a tensor."""
        return any(
            access.tensor == tensor
            for leaf in self.parts.phase.leaves for einsum in self._einsums(leaf) if einsum.name in self.products
            for access in einsum.inputs
        )  # fmt: skip

    def _control(
        self, part: BlockPart, loads: float, transfers: float, counts: Mapping[Leaf, float], overhead: bool
    ) -> Cost:
        """What a trip takes beside its Einsums: control, addresses of copies, issue of warp groups' products."""
        threads = self.threads
        cost = threads.operation("trip").times(threads.count) if part.path else Cost()
        if overhead:
            cost += threads.operation("block").times(threads.count)
        cost += threads.operation("copy").times(transfers - (loads if self.specialized and part.path else 0.0))
        for leaf in part.leaves:
            for einsum in self._einsums(leaf):
                if (product := self.products.get(einsum.name)) and self._wide(product.padded):
                    cost += self._issue(product.padded).times(counts[leaf])
        return cost

    def _wide(self, product: Product) -> bool:
        """Whether warp groups issue a product."""
        return self.gpu.product_rate(product.rows, self.threads.warps, product.word_bytes)[1]

    def _issue(self, product: Product) -> Cost:
        threads = self.threads
        steps = product.depth * product.word_bytes / PRODUCT_DEPTH_BYTES * product.repeat
        if self._wide(product):
            turns = max(1.0, product.rows / (16 * threads.warps))
            return threads.operation("group_mma").times(steps * turns * threads.count)
        return threads.operation("warp_mma").times(steps * product.rows / 16 * product.columns / 8 * 32)

    def _product_step(self, einsum: Einsum, leaf: Leaf, part: BlockPart, count: float, barrier: float) -> GridStep:
        product = self.products[einsum.name].padded
        wide = self._wide(product)
        issue = 0.0 if wide else self._issue(product).times(count).issue
        left = self._level(leaf, einsum.inputs[0].tensor)
        passed = any(
            self.parts.makers(access.tensor) and self._level(leaf, access.tensor) == "shared"
            for access in einsum.inputs
        )
        latency = barrier + (2 * self.threads.barrier_cycles if passed else 0.0)
        if latency and not wide:
            latency += self.gpu.shared_latency_cycles
        waits = not wide or self._waited_for(einsum, leaf, part)
        aside = bool(part.path) and not waits and not self.pipelined
        return GridStep(
            product=einsum.name, m=_number(product.rows), n=_number(product.columns), k=_number(product.depth),
            repeat=_number(product.repeat * count), issue=_number(issue), held=_number(int(left == "registers")),
            waits=_number(int(waits)), latency=_number(latency * count), aside=_number(int(aside)),
        )  # fmt: skip

    def _vector_step(self, leaf: Leaf, part: BlockPart, count: float, selects: bool) -> GridStep:
        tile, exposed, spread = self.tile(leaf.loops), self._exposed(leaf, part), self._exposed(leaf, part, spread=True)
        cost, latency, shared = Cost(), 0.0, 0.0
        try:
            for einsum in self._einsums(leaf):
                own, waited = self._einsum_cost(einsum, tile, selects)
                cost += own
                latency += waited if spread else 0.0
                passed = [access for access in einsum.inputs if self.homes.source(leaf, access.tensor) is not None]
                shared += sum(
                    self._bytes(access, tile) for access in (*passed, einsum.output)
                    if self._level(leaf, access.tensor) == "shared"
                )  # fmt: skip
                selects = False
        except SpecError as error:
            raise error.located(key=leaf.key) from None
        if exposed and cost.sfu:
            latency += self.threads.variable("sfu_latency_cycles")
        return _vector(leaf.name, cost.times(count), latency * count, shared * count)

    def _einsum_cost(self, einsum: Einsum, tile: Tile, selects: bool) -> tuple[Cost, float]:
        """Instructions of one Einsum at a tile, and the latency of its reduction."""
        width = self._width(einsum.ranks, tile)
        has_column = width > 1
        threads = replace(self.threads, columns=width) if has_column else self.threads
        points, latency = self._volume(einsum.ranks, tile), 0.0
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
        narrow = bool(einsum.ops) and self.tensor_bytes[einsum.name] < REGISTER_BYTES
        leaves = einsum.name in self.parts.outside and not threads.fragments
        if narrow and (leaves or self._feeds_product(einsum.name)):
            kept = self._width(einsum.output.ranks, tile) > 1
            cost += threads.operation("convert").times(threads.lanes(results, kept))
        return cost, latency

    def _through_shared(self, tensor: str, reader: Leaf) -> bool:
        """Whether a value that the block makes is a right operand of `reader`, held in registers."""
        rights = [einsum.inputs[-1].tensor for einsum in self._einsums(reader) if einsum.name in self.products]
        return tensor in rights and bool(self.parts.makers(tensor)) and self._level(reader, tensor) == "registers"

    def _operand(self, einsum: Einsum, leaf: Leaf, selects: bool, count: float) -> GridStep:
        """A product's result that becomes an operand: masked, converted, and brought to where the next one reads it."""
        tile, tensor = self.tile(leaf.loops), einsum.name
        words = self._volume((rank for rank in einsum.output.ranks if rank in einsum.ranks), tile)
        cost = self._selecting(einsum, words, self.threads, selects)
        if self.tensor_bytes[tensor] < REGISTER_BYTES:
            cost += self.threads.operation("convert").times(words)
        shared = self._level(leaf, tensor) == "shared" or any(
            self._through_shared(tensor, reader) for reader in self.parts.phase.leaves
        )
        moved = words * self.tensor_bytes[tensor] if shared else 0.0
        latency = 2 * self.threads.barrier_cycles if shared else 0.0
        return _vector(f"{tensor} operand", cost.times(count), latency * count, moved * count)

    def _selecting(self, einsum: Einsum, points: float, threads: Threads, selects: bool) -> Cost:
        """Comparisons and selection under a mask at the points of a tile."""
        kinds = {"cmp": float(len(einsum.conditions)), "select": 1.0} if selects else {}
        return threads.operations(kinds, points, True)

    def _leave(self, tensor: str, maker: Leaf) -> GridStep:
        """A result on its way out: converted, and through the shared memory to where threads write whole lines."""
        tile = self.tile(maker.loops)
        output = self.homes.einsum(tensor).output
        words = float(self.ranks.words(self.ranks.shape(output), tile).flat[0])
        word = self.tensor_bytes[tensor]
        cost = self.threads.operation("convert").times(words) if word < REGISTER_BYTES else Cost()
        return _vector(f"{tensor} out", cost, 2 * self.threads.barrier_cycles, 2 * words * word)

    def _bytes(self, access: Any, tile: Tile) -> float:
        return float(self.ranks.words(self.ranks.shape(access), tile).flat[0]) * self.tensor_bytes[access.tensor]

    def _level(self, leaf: Leaf, tensor: str) -> str:
        """The memory of the block that a leaf takes a tensor from, or leaves it in."""
        holds = self.parts.held(leaf, tensor)
        return holds[-1].level if holds else ""

    def _readers(self, tensor: str, part: BlockPart) -> list[Leaf]:
        """Leaves of a part that read a tensor's value of the same iteration."""
        return [
            leaf for leaf in part.leaves
            if any(
                access.tensor == tensor and not is_previous(self.ranks, access)
                for einsum in self._einsums(leaf) for access in einsum.inputs
            )
        ]  # fmt: skip

    def _waited_for(self, einsum: Einsum, leaf: Leaf, part: BlockPart) -> bool:
        """Whether something of the same trip needs a product's result: instructions, a product, or what is stored."""
        stored = {store.tensor for store in part.stores}
        if einsum.name in stored or self._feeds_product(einsum.name):
            return True
        for reader in self._readers(einsum.name, part):
            added = [other for other in self._einsums(reader) if other.name not in self.products]
            if reader is not leaf and (reader.unit != "tensor" or len(added) < len(reader.einsums)):
                return True
            if any(self._waited_for(other, reader, part) for other in added if reader is not leaf):
                return True
        return False

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
                for reader in self._readers(name, part):
                    if any(other in self.products for other in reader.einsums):
                        return True
                    if spread and any(self._width(e.ranks, self.tile(reader.loops)) > 1 for e in self._einsums(reader)):
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
