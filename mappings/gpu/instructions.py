"""What Einsums take of the threads of a block: lanes, instructions, latencies.

Values in a block that has products on the tensor cores lie as those leave them (PTX ISA, fragments): a row of a result
is shared by four threads of a warp, and by the warps that lie along the columns; warps beyond the rows have them again.
In a block without products up to 8 columns lie side by side in a thread, the others over the threads of a warp first,
then over the warps, then the rows. A value that has no column stands in every thread that shares its row, and each of
them computes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from architectures import EvaluatedArchitecture
from architectures.gpu import Gpu
from einsum.errors import SpecError, nearest

WARP = 32
REGISTER_BYTES = 4
ROWS_OF_WARP = 16
"""Rows of a product's result that a warp has (PTX ISA)."""
COLUMNS_OF_THREAD = 8
"""Columns that lie in a thread side by side, where no product decides: 16 bytes of 16-bit numbers, one access."""


@dataclass(frozen=True)
class Cost:
    """Lane operations: issued in all, those at half rate, of the special-function unit, and of 32-bit arithmetic."""

    issue: float = 0.0
    half: float = 0.0
    sfu: float = 0.0
    fp32: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        """Both, one after the other."""
        return Cost(
            self.issue + other.issue, self.half + other.half, self.sfu + other.sfu, self.fp32 + other.fp32
        )  # fmt: skip

    def times(self, count: float) -> Cost:
        """So many of it."""
        return Cost(self.issue * count, self.half * count, self.sfu * count, self.fp32 * count)


@dataclass(frozen=True)
class Threads:
    """The threads of a block and how a tile of `rows` x `columns` lies in them.

    fragments  values lie as products leave them
    along      warps of those that lie along the columns
    again      how often a value with a column is there, and one without
    side       columns that lie side by side in a thread, where no product decides
    """

    machine: EvaluatedArchitecture
    gpu: Gpu
    warps: int
    rows: float
    columns: float
    fragments: bool
    along: float = 1.0
    again: tuple[float, float] = (1.0, 1.0)
    side: float = COLUMNS_OF_THREAD

    @property
    def count(self) -> int:
        """Threads of a block."""
        return WARP * self.warps

    @property
    def across_threads(self) -> float:
        """Threads of a warp that share a row."""
        if self.fragments:
            return min(self.variable("fragment_threads"), self.columns)
        return float(min(WARP, self._across))

    @property
    def across_warps(self) -> float:
        """Warps that share a row."""
        return self.along if self.fragments else max(1.0, self._across / WARP)

    @property
    def _across(self) -> float:
        """Threads that share a row of a block without products."""
        side = max(1.0, min(self.side, self.rows * self.columns / self.count))
        return max(1.0, min(self.count, self.columns / side))

    def variable(self, name: str) -> float:
        """A variable of the architecture; SpecError where it has none of that name."""
        if name not in self.machine.variables:
            raise SpecError(
                f"'{self.machine.name}' does not say how threads run Einsums: it has no variable '{name}'",
                file=self.machine.file,
                key="variables",
            )
        return float(np.asarray(self.machine.variables[name]).flat[0])

    def operation(self, kind: str) -> Cost:
        """What one operation of a kind takes of a thread; SpecError for one that the architecture does not list."""
        table = self.machine.instructions
        if kind not in table:
            raise SpecError(
                f"the architecture '{self.machine.name}' has no instructions for '{kind}'{nearest(kind, table)}"
            )
        found = table[kind]
        return Cost(*(float(np.asarray(part).flat[0]) for part in (found.issue, found.half, found.sfu, found.fp32)))

    def lanes(self, points: float, has_column: bool) -> float:
        """Threads' operations that `points` operations are: at least one of each thread."""
        return max(points * self._shared(has_column), float(self.count))

    def _shared(self, has_column: bool) -> float:
        """Threads that have the same value."""
        return self.again[0] if has_column else self.across_threads * self.across_warps * self.again[1]

    def registers(self, words: float, has_column: bool, word_bytes: float) -> float:
        """Registers of a thread that a tile of values takes."""
        return math.ceil(words * self._shared(has_column) / self.count) * (word_bytes / 4)

    def operations(self, kinds: Mapping[str, float], points: float, has_column: bool) -> Cost:
        """Operations of each kind at so many points of a tile."""
        cost = Cost()
        for kind, each in kinds.items():
            cost += self.operation(kind).times(each * self.lanes(points, has_column))
        return cost

    def exchange(self, kind: str, results: float) -> Cost:
        """Partial results of a reduction go from thread to thread, halving their number each time."""
        rounds = math.ceil(math.log2(max(self.across_threads, 1.0)))
        each = self.operation("shuffle") + self.operation(kind)
        cost = each.times(rounds * self.lanes(results, False)) if rounds else Cost()
        return cost + self.operation("meet").times(self.count) if self.across_warps > 1 else cost

    def exchanged_bytes(self, results: float) -> float:
        """What a reduction's parts take of the shared memory, by which they go from thread to thread; not what the four
        threads of a product's row pass, which the latency covers."""
        if self.fragments and self.across_warps <= 1:
            return 0.0
        rounds = self._rounds + (self.across_warps > 1) * 2
        return 4 * rounds * self.lanes(results, False)

    def reduction_cycles(self, busy: float) -> float:
        """Latency of a reduction over the columns whose instructions take `busy` cycles: a chain over the columns of a
        thread, as far as its rows do not fill it, then exchanges between threads, then between warps."""
        chain = self.columns / (self.across_threads * self.across_warps) * self.variable("dependent_latency_cycles")
        return max(0.0, chain - busy) + self._rounds * self.variable("shuffle_latency_cycles") + self.meeting_cycles

    @property
    def _rounds(self) -> int:
        """Exchanges between the threads that share a row, those of other warps too."""
        return math.ceil(math.log2(max(self.across_threads * self.across_warps, 1.0)))

    @property
    def meeting_cycles(self) -> float:
        """Latency of values that go from warp to warp, where warps share a row."""
        return 2 * self.barrier_cycles + 2 * self.gpu.shared_latency_cycles if self.across_warps > 1 else 0.0

    @property
    def barrier_cycles(self) -> float:
        """Latency of a barrier of the block."""
        return self.variable("barrier_latency_cycles") + self.variable("barrier_warp_cycles") * (self.warps - 4)

    def busy_cycles(self, cost: Cost) -> float:
        """Cycles that a multiprocessor's lanes take for it."""
        return self.gpu.lane_cycles(cost.issue, cost.half, cost.sfu, cost.fp32)
