"""A second evaluator of SpAtten's pipeline, query by query in plain Python, from the description of the hardware.

It knows nothing of mappings, tile programs or classes. `lower_bound_s` and `upper_bound_s` enclose any schedule of a
layer; `played_s` plays it: a free part takes the oldest query that is ready, and of one query the earlier stage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import NamedTuple

CYCLE_S = 1e-9
CHANNELS, TRANSACTION, CHANNEL_BYTES_PER_S = 16, 32, 32e9
HBM_LATENCY_S = 30e-9
MULTIPLIERS, LANES, WIDTH, DRAIN = 512, 8, 16, 3
SOFTMAX_DEPTH, PRODUCT_DEPTH, OUTPUT_DEPTH = 87, 11, 3


class Row(NamedTuple):
    """One head of one layer, or `count` alike ones, with `queries` queries each."""

    iteration: int
    layer: int
    dim: int
    length: int
    keys: int
    values: int
    key_bits: int
    value_bits: int
    query_bits: int
    extra_bits: int
    again: bool
    accumulate: bool
    kept: int
    queries: int
    count: int


@cache
def selection(size: int, rank: int) -> tuple[float, float]:
    """Mean passes and rows of 16 candidates until the rank-th largest of distinct values is a random pivot."""
    passes, rows = 1.0, float(-(-size // WIDTH))
    for pivot in range(1, size + 1):
        if pivot != rank:
            more = selection(pivot - 1, rank) if rank < pivot else selection(size - pivot, rank - pivot)
            passes, rows = passes + more[0] / size, rows + more[1] / size
    return passes, rows


@dataclass
class Work:
    """One stage of one query: what it occupies, for how long, what passes until its result is there, what it awaits."""

    stage: str
    query: int
    part: str | None
    busy_s: float
    latency_s: float
    after: list[tuple[str, int]]
    start_s: float = math.nan
    end_s: float = math.nan


@dataclass
class Layer:
    """The stages of all queries of one layer, in order, and what they move."""

    work: dict[tuple[str, int], Work] = field(default_factory=dict)
    useful_bytes: float = 0.0
    transactions: float = 0.0

    def add_query(self, query: int, row: Row, first: bool) -> None:
        """One query: its keys and values are loaded by the first query of its head."""
        keys, values, dim = row.keys, row.values, row.dim
        selects, again = values < keys, row.again
        key_bytes, pair = dim * row.key_bits / 8, 1
        if key_bytes % TRANSACTION:
            pair = 2  # two heads' keys of a token lie side by side
        shared = row.queries * 2
        self._load("load keys", query, keys / pair if first else 0, pair * key_bytes, [("scores", shared)])
        self._load("load query", query, 1, dim * row.query_bits / 8, [("scores", 2)])
        products_s = math.ceil(keys * dim / MULTIPLIERS) * CYCLE_S
        softmax_s = math.ceil(keys / LANES) * CYCLE_S
        softmax_latency_s = (SOFTMAX_DEPTH + math.ceil(keys / LANES)) * CYCLE_S
        self._along("scores", query, "query_key", products_s, PRODUCT_DEPTH * CYCLE_S, ["load keys", "load query"])
        self._along("softmax", query, "softmax", softmax_s, softmax_latency_s, ["scores"])
        self._load("second plane", query, keys if again else 0, dim * row.extra_bits / 8, [("softmax", 0)])
        latency_s = PRODUCT_DEPTH * CYCLE_S * again
        self._along("scores again", query, "query_key", products_s * again, latency_s, ["second plane"])
        self._along("softmax again", query, "softmax", softmax_s * again, softmax_latency_s * again, ["scores again"])
        passes, rows = selection(keys, values) if selects else (0.0, 0.0)
        known = [("softmax", 0), ("softmax again", 0)]
        self._add("select", query, "value_selector", (rows + DRAIN * passes) * CYCLE_S, 0.0, known)
        filter_s = math.ceil(keys / WIDTH) * CYCLE_S * selects
        self._add("filter", query, "value_filter", filter_s, DRAIN * CYCLE_S * selects, [("select", 0)])
        chosen = [("select", 0), *known]
        self._load("load values", query, values if first else 0, dim * row.value_bits / 8,
                   [*chosen, ("outputs", shared)], along=["filter"])  # fmt: skip
        output_s = math.ceil(values * dim / MULTIPLIERS) * CYCLE_S
        self._along("outputs", query, "prob_value", output_s, OUTPUT_DEPTH * CYCLE_S, ["load values"], chosen)
        importance_s = math.ceil(keys / LANES) * CYCLE_S * row.accumulate
        self._add("importance", query, "importance", importance_s, 0.0, known)
        token_s = 0.0
        if row.kept > 0:
            passes, rows = selection(keys if row.kept <= keys else row.length, row.kept)
            token_s = (rows + DRAIN * passes) * CYCLE_S
        self._add("tokens", query, "token_selector", token_s, 0.0, [("importance", 0)])

    def _add(
        self, stage: str, query: int, part: str | None, busy_s: float, latency_s: float, after: list[tuple[str, int]]
    ) -> None:
        self.work[stage, query] = Work(stage, query, part, busy_s, latency_s, after)

    def _along(
        self, stage: str, query: int, part: str, busy_s: float, latency_s: float, sources: list[str],
        after: list[tuple[str, int]] | None = None,
    ) -> None:  # fmt: skip
        """Work on what other stages deliver: it may begin when they turn to this query, and ends after them."""
        begin = [*(after or []), *((source, 1) for source in sources)]
        self._add(stage + " work", query, part, busy_s, 0.0, begin)
        self._add(stage, query, None, 0.0, latency_s, [(stage + " work", 0), *((source, 0) for source in sources)])

    def _load(
        self, stage: str, query: int, pieces: float, piece_bytes: float, after: list[tuple[str, int]],
        along: list[str] | None = None,
    ) -> None:  # fmt: skip
        count = pieces * math.ceil(piece_bytes / TRANSACTION)
        self.useful_bytes += pieces * piece_bytes
        self.transactions += count
        busy_s = math.ceil(count / CHANNELS) * TRANSACTION / CHANNEL_BYTES_PER_S
        latency_s = HBM_LATENCY_S if pieces else 0.0
        if along:
            self._along(stage, query, "HBM", busy_s, latency_s, along, after)
        else:
            self._add(stage, query, "HBM", busy_s, latency_s, after)

    def loads_s(self) -> dict[str, float]:
        """Busy seconds of each part."""
        loads: dict[str, float] = {}
        for work in self.work.values():
            if work.part is not None:
                loads[work.part] = loads.get(work.part, 0.0) + work.busy_s
        return loads

    @property
    def lower_bound_s(self) -> float:
        """No schedule ends before its busiest part."""
        return max(self.loads_s().values())

    @property
    def upper_bound_s(self) -> float:
        """One stage after the other."""
        return sum(work.busy_s + work.latency_s for work in self.work.values())

    def played_s(self) -> float:
        """When the last stage ends; every piece of work is given its start and end (play a layer once)."""
        order = {stage: place for place, stage in enumerate(dict.fromkeys(stage for stage, _ in self.work))}
        waiting = sorted(self.work.values(), key=lambda work: (work.query, order[work.stage]))
        free_s: dict[str, float] = {}
        now_s = 0.0
        while waiting:
            moved = True
            while moved:
                moved = False
                for work in list(waiting):
                    if self._starts(work, now_s, free_s):
                        waiting.remove(work)
                        moved = True
            later = [work.end_s for work in self.work.values() if work.end_s > now_s]
            later += [time for time in free_s.values() if time > now_s]
            now_s = min(later, default=now_s)
        return max(work.end_s for work in self.work.values())

    def _starts(self, work: Work, now_s: float, free_s: dict[str, float]) -> bool:
        """Start it if nothing holds it back any more."""
        awaited = [self.work[stage, work.query - back] for stage, back in work.after if work.query >= back]
        if any(not other.end_s <= now_s for other in awaited):
            return False
        if work.part is None or work.busy_s == 0:
            instant = work.part is not None
            work.start_s, work.end_s = now_s, now_s + (0.0 if instant else work.latency_s)
            return True
        before = (self.work[work.stage, query] for query in range(work.query))
        if any(other.busy_s and math.isnan(other.start_s) for other in before) or free_s.get(work.part, 0.0) > now_s:
            return False
        work.start_s, free_s[work.part] = now_s, now_s + work.busy_s
        work.end_s = free_s[work.part] + work.latency_s
        return True


def layers(rows: list[Row]) -> Iterator[Layer]:
    """The layers of a run, one after the other."""
    for _place, members in groupby(rows, key=lambda row: (row.iteration, row.layer)):
        layer, query = Layer(), 0
        for row in members:
            for _head in range(row.count):
                for number in range(row.queries):
                    layer.add_query(query, row, number == 0)
                    query += 1
        yield layer
