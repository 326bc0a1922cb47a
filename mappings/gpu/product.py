"""A product of tiles on the tensor cores."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

PRODUCT_DEPTH_BYTES = 32
"""Bytes of an operand's row that one product instruction multiplies: 16 numbers of 16 bits (PTX ISA)."""


@dataclass(frozen=True)
class Product:
    """Sizes of a product of tiles: rows x columns, summed over depth, `repeat` times."""

    rows: float
    columns: float
    depth: float
    repeat: float
    word_bytes: float

    @property
    def padded(self) -> Product:
        """In whole instructions: 16 rows, 8 columns, 32 bytes of depth (PTX ISA, mma.sync)."""
        depth = PRODUCT_DEPTH_BYTES / self.word_bytes
        return replace(
            self,
            rows=16 * math.ceil(self.rows / 16),
            columns=8 * math.ceil(self.columns / 8),
            depth=depth * math.ceil(self.depth / depth),
        )
