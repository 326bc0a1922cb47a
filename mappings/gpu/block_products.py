"""The products of a thread block: sizes, how warps share them out, and who needs their results.

Warps lie as the compiler of the project's kernels lays them (Triton 3.6, read off its layouts). Warp groups: all along
the rows where another product of the trip needs the result, else along the columns once the rows have their warps.
Single warps: in a chain of products along the longer side of the last one's result, else so that rows and columns of a
warp balance. Warps beyond a result's rows or columns compute the same again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from architectures.gpu import Gpu
from einsum.einsum import Einsum
from einsum.errors import SpecError, join_key, nearest
from mappings.gpu.block_parts import BlockPart, BlockParts
from mappings.gpu.instructions import REGISTER_BYTES, WARP
from mappings.gpu.product import Product
from mappings.nest import Leaf
from mappings.operands import Homes, is_previous
from mappings.program import Array
from mappings.tiles import Loop

Tile = Mapping[str, Array]
VECTOR_UNITS = ("vector", "sfu")
GROUP_WARPS, WARP_ROWS, WARP_COLUMNS = 4, 16, 8
"""Warps of a group; rows and columns of the smallest product of a warp (PTX ISA: wgmma, mma.sync)."""


@dataclass(frozen=True)
class Layout:
    """Warps of a block along the rows and the columns of a product's result."""

    along_rows: float
    along_columns: float

    def repeat(self, product: Product) -> float:
        """How often each number of the result is computed."""
        rows, columns = WARP_ROWS * self.along_rows, WARP_COLUMNS * self.along_columns
        return max(1.0, rows / product.rows) * max(1.0, columns / product.columns)


class BlockProducts:
    """Products of one launch. `tile(loops)`: coordinates of each base rank in an iteration of loops."""

    def __init__(
        self,
        parts: BlockParts,
        gpu: Gpu,
        warps: int,
        tile: Callable[[Sequence[Loop]], dict[str, Array]],
        tensor_bytes: Mapping[str, float],
    ) -> None:
        self.parts, self.homes, self.gpu, self.warps = parts, parts.homes, gpu, warps
        self.tile, self.tensor_bytes, self.ranks = tile, tensor_bytes, parts.homes.ranks
        self.leaves = parts.phase.leaves
        self.columns: dict[str, tuple[str, ...]] = {}
        self.sizes: dict[str, Product] = {}
        self.leaf_of: dict[str, Leaf] = {}
        for leaf in self.leaves:
            for einsum in self.einsums(leaf):
                if leaf.unit == "tensor" and "mac" in einsum.ops:
                    self.sizes[einsum.name] = self._product(einsum, leaf)
                    self.columns[einsum.name] = column_ranks(einsum)
                    self.leaf_of[einsum.name] = leaf
        for leaf in self.leaves:
            self._check_unit(leaf)
        self.layouts = {name: self._layout(name) for name in self.sizes}

    def __contains__(self, name: str) -> bool:
        return name in self.sizes

    def einsums(self, leaf: Leaf) -> tuple[Einsum, ...]:
        """The Einsums of a leaf."""
        return tuple(self.homes.einsum(name) for name in leaf.einsums)

    def volume(self, ranks: Iterable[str], tile: Tile) -> float:
        """Points of a tile over some ranks."""
        return float(self.ranks.volume(tuple(ranks), tile).flat[0])

    def wide(self, name: str) -> bool:
        """Whether warp groups issue a product."""
        product = self.sizes[name].padded
        return self.gpu.product_rate(product.rows, self.warps, product.word_bytes)[1]

    def repeat(self, name: str) -> float:
        """How often each number of a product's result is computed."""
        return self.layouts[name].repeat(self.sizes[name].padded)

    def group_columns(self, name: str) -> float:
        """Columns of a warp group's instruction where the groups are more than the rows have; 0: all of them."""
        product = self.sizes[name].padded
        beyond = WARP_ROWS * self.warps / product.rows
        return product.columns / beyond if self.wide(name) and beyond > 1 else 0.0

    def serial(self, name: str) -> bool:
        """Whether the assembler lets a sum over trips wait for every instruction: where one adds up 256 columns and a
        warp group is not alone with 64 rows (read off the compiled loops of matrix products)."""
        product = self.sizes[name].padded
        several = self.warps > GROUP_WARPS or product.rows > GROUP_WARPS * WARP_ROWS
        return self.wide(name) and product.columns >= 256 and several

    def operand_registers(self) -> tuple[float, float]:
        """Registers of a thread for left operands of single warps' products, all of their depth: of one that several
        products of a trip read, and so is kept; of the largest other one."""
        kept = other = 0.0
        lefts = [self.homes.einsum(name).inputs[0].tensor for name in self.sizes if not self.wide(name)]
        for name, size in self.sizes.items():
            if self.wide(name):
                continue
            product, layout = size.padded, self.layouts[name]
            rows = max(WARP_ROWS, product.rows / layout.along_rows)
            taken = rows * product.depth * product.word_bytes / (WARP * REGISTER_BYTES)
            if lefts.count(self.homes.einsum(name).inputs[0].tensor) > 1:
                kept = max(kept, taken)
            else:
                other = max(other, taken)
        return kept, other

    def overlaps(self, part: BlockPart) -> bool:
        """Whether single warps' products run beside all else of a trip: nothing in it needs their results."""
        for leaf in part.leaves:
            for einsum in self.einsums(leaf):
                if leaf.unit != "tensor" or self.waited_for(einsum, leaf, part):
                    return False
                if einsum.name in self.sizes and self.wide(einsum.name):
                    return False
        return True

    def handed_over(self, name: str) -> float:
        """Numbers of a result, as often as they are there, to which a product adds whose warps lie otherwise."""
        later = self._summand_of(name)
        if later is None or self.layouts[later] == self.layouts[name]:
            return 0.0
        product = self.sizes[name].padded
        return product.rows * product.columns * product.repeat * self.repeat(name)

    def feeds(self, tensor: str) -> bool:
        """Whether a product of this launch reads a tensor."""
        return any(
            access.tensor == tensor
            for leaf in self.leaves for einsum in self.einsums(leaf) if einsum.name in self.sizes
            for access in einsum.inputs
        )  # fmt: skip

    def readers(self, tensor: str, part: BlockPart | None = None) -> list[Leaf]:
        """Leaves, of a part if one is given, that read a tensor's value of the same iteration."""
        return [
            leaf for leaf in (self.leaves if part is None else part.leaves)
            if any(
                access.tensor == tensor and not is_previous(self.ranks, access)
                for einsum in self.einsums(leaf) for access in einsum.inputs
            )
        ]  # fmt: skip

    def needed_by(self, name: str) -> set[str]:
        """Products of the same trip that need a product's result: as an operand, or to add to it."""
        part = self.parts.of_leaf[self.leaf_of[name]]
        order = list(self.sizes)
        found: set[str] = set()
        pending, seen = [name], {name}
        while pending:
            value = pending.pop()
            for leaf in self.readers(value, part):
                for einsum in self.einsums(leaf):
                    inputs = {access.tensor for access in einsum.inputs if not is_previous(self.ranks, access)}
                    if value not in inputs:
                        continue
                    if einsum.name in self.sizes:
                        found.add(einsum.name)
                    if leaf.unit == "tensor" and einsum.ops == {"add": 1}:
                        added = {other for other in inputs if other in self.sizes}
                        found |= {other for other in added if order.index(other) > order.index(name)}
                    if einsum.name not in seen:
                        seen.add(einsum.name)
                        pending.append(einsum.name)
        return found

    def _summand_of(self, name: str) -> str | None:
        """The later product that adds to a product's result."""
        order = list(self.sizes)
        for leaf in self.readers(name, self.parts.of_leaf[self.leaf_of[name]]):
            for einsum in self.einsums(leaf):
                if leaf.unit == "tensor" and einsum.ops == {"add": 1} and einsum.name not in self.sizes:
                    others = [a.tensor for a in einsum.inputs if a.tensor in self.sizes and a.tensor != name]
                    later = [other for other in others if order.index(other) > order.index(name)]
                    if later and any(access.tensor == name for access in einsum.inputs):
                        return later[0]
        return None

    def waited_for(self, einsum: Einsum, leaf: Leaf, part: BlockPart) -> bool:
        """Whether something of the same trip needs a product's result: instructions, a product, or what is stored."""
        stored = {store.tensor for store in part.stores}
        if einsum.name in stored or self.feeds(einsum.name):
            return True
        for reader in self.readers(einsum.name, part):
            added = [other for other in self.einsums(reader) if other.name not in self.sizes]
            if reader is not leaf and (reader.unit != "tensor" or len(added) < len(reader.einsums)):
                return True
            if any(self.waited_for(other, reader, part) for other in added if reader is not leaf):
                return True
        return False

    def of_value(self, ranks: Iterable[str]) -> str | None:
        """The product as whose result values over some ranks lie: the last that has most of them, and fewest others."""
        wanted = set(ranks)

        def alike(name: str) -> tuple[int, int]:
            einsum = self.homes.einsum(name)
            output = {*einsum.output.ranks} - {*einsum.reduced}
            return len(wanted & output), -len(output - wanted)

        return max(reversed(self.sizes), key=alike, default=None)

    def _check_unit(self, leaf: Leaf) -> None:
        """SpecError for a unit that a thread block does not have, and for what tensor cores cannot do."""
        if leaf.unit not in (*VECTOR_UNITS, "tensor"):
            raise SpecError(
                f"{leaf.name}: a thread block computes on tensor or vector, not on '{leaf.unit}'"
                f"{nearest(leaf.unit, (*VECTOR_UNITS, 'tensor'))}",
                key=join_key(leaf.key, "on"),
            )
        for einsum in self.einsums(leaf) if leaf.unit == "tensor" else ():
            added = einsum.ops == {"add": 1} and any(access.tensor in self.sizes for access in einsum.inputs)
            if einsum.name not in self.sizes and not added:
                raise SpecError(
                    f"the tensor cores compute products of two tensors and add one to a value, not {einsum}",
                    key=join_key(leaf.key, "on"),
                )

    def _layout(self, name: str) -> Layout:
        product, warps = self.sizes[name].padded, self.warps
        if self.wide(name):
            if self.needed_by(name):
                return Layout(warps, 1)
            rows, columns = GROUP_WARPS, 1
            while rows * columns < warps:
                rows, columns = (2 * rows, columns) if product.rows > WARP_ROWS * rows else (rows, 2 * columns)
            return Layout(rows, columns)
        linked = {other for other in self.sizes if name in self.needed_by(other)} | self.needed_by(name)
        linked = {other for other in linked if not self.wide(other)}
        if linked:
            last = self.sizes[[other for other in self.sizes if other in linked | {name}][-1]].padded
            return Layout(warps, 1) if last.rows >= last.columns else Layout(1, warps)
        rows, columns = 1, 1
        left, across = product.rows / WARP_ROWS, product.columns / WARP_COLUMNS
        while rows * columns < warps:
            if left >= across:
                rows, left = 2 * rows, max(1.0, left / 2)
            else:
                columns, across = 2 * columns, across / 2
        return Layout(rows, columns)

    def _product(self, einsum: Einsum, leaf: Leaf) -> Product:
        """A product's sizes. Its first operand has the rows, the second the columns."""
        if einsum.ops != {"mac": 1} or len(einsum.inputs) != 2:
            raise SpecError(
                f"the tensor cores compute sums of products of two tensors, not {einsum}", key=join_key(leaf.key, "on")
            )
        left, right = ({*access.ranks} for access in einsum.inputs)
        output, tile = {*einsum.output.ranks} - {*einsum.reduced}, self.tile(leaf.loops)
        rows = [rank for rank in einsum.ranks if rank in output and rank in left and rank not in right]
        both = [rank for rank in einsum.ranks if rank in output and rank in left and rank in right]
        word = max(self.tensor_bytes[access.tensor] for access in einsum.inputs)
        return Product(
            self.volume(rows, tile), self.volume(column_ranks(einsum), tile), self.volume(einsum.reduced, tile),
            self.volume(both, tile), word,
        )  # fmt: skip


def column_ranks(einsum: Einsum) -> tuple[str, ...]:
    """The ranks of the columns of a product's result: those of its second operand alone."""
    left, right = ({*access.ranks} for access in einsum.inputs[:2])
    output = {*einsum.output.ranks} - {*einsum.reduced}
    return tuple(rank for rank in einsum.ranks if rank in output and rank in right and rank not in left)


def column_bases(leaves: Sequence[Leaf], homes: Homes) -> frozenset[str]:
    """Base ranks that lie along a row of threads: columns of products; without any what the block reduces, or the
    last rank of what it computes."""
    found = [(leaf, homes.einsum(name)) for leaf in leaves for name in leaf.einsums]
    products = [e for leaf, e in found if leaf.unit == "tensor" and "mac" in e.ops and len(e.inputs) == 2]
    if products:
        return frozenset(homes.ranks.base(rank) for einsum in products for rank in column_ranks(einsum))
    reduced = frozenset(homes.ranks.base(rank) for _, einsum in found for rank in einsum.reduced)
    return reduced or frozenset(homes.ranks.base(einsum.ranks[-1]) for _, einsum in found if einsum.ranks)
