"""One run of the event engine on the streams of a phase, and what can be read off it: ends, latencies, paces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mappings.program import Array, TileProgram
from simulator.critical_path import recurrence_s
from simulator.event_tables import RUNS, Int32, Layout, Limit, Records, Tables, build_tables
from simulator.point_stream import PointStream


@dataclass(frozen=True)
class Pace:
    """Seconds by which tiles moved the end of their instance, and how many tiles: each (classes,)."""

    seconds: Array
    tiles: Array

    def per_tile_s(self) -> Array:
        """Mean seconds of one tile of each class; NaN for classes that were not seen."""
        per_tile = np.full(self.tiles.shape, np.nan)
        np.divide(self.seconds, self.tiles, out=per_tile, where=self.tiles > 0)
        return per_tile


@dataclass(frozen=True)
class Run:
    """The streams of one phase, simulated."""

    streams: tuple[PointStream, ...]
    tables: Tables
    layout: Layout

    @classmethod
    def of(cls, streams: Sequence[PointStream], program: TileProgram, limits: Sequence[Limit], record: bool) -> Run:
        """Simulate the streams, cut to `limits`."""
        from simulator.engine import simulate

        tables, layout = build_tables(streams, program.resources, limits, program.points, record)
        simulate(tables)
        return cls(tuple(streams), tables, layout)

    @property
    def tile_steps(self) -> int:
        """Tile steps that were simulated."""
        return int((self.tables.instances["tiles"] * self.tables.lanes["steps"][self.tables.instances["lane"]]).sum())

    @property
    def executions(self) -> Records:
        """Every execution of a step, in order of start; empty unless they were recorded."""
        return self.tables.runs[: self.tables.size[RUNS]]

    def busy_s(self) -> dict[str, float]:
        """Busy seconds per resource, summed over its copies."""
        busy_s = self.tables.servers["busy_s"]
        bounds = zip(self.layout.resources, self.layout.server0[:-1], self.layout.server0[1:], strict=True)
        return {name: float(busy_s[first:end].sum()) for name, first, end in bounds}

    def instances(self, stream: int) -> range:
        """The simulated instances of a stream, as indices into the tables."""
        own = self.tables.streams[stream]
        return range(int(own["instance0"]), int(own["instance0"] + own["instances"]))

    def end_s(self, stream: int) -> float:
        """When the last instance of the stream ended."""
        mine = self.instances(stream)
        return float(self.tables.instances["end_s"][mine.start : mine.stop].max(initial=0.0))

    def classes(self, instance: int) -> Int32:
        """Class of each tile of an instance."""
        own = self.tables.instances[instance]
        return self.tables.classes[own["class0"] : own["class0"] + own["tiles"]]

    def tile_ends_s(self, instance: int) -> Array:
        """When all tiles up to each one had ended."""
        own = self.tables.instances[instance]
        ends = self.tables.tile_end[own["tile0"] : own["tile0"] + own["tiles"]]
        return np.asarray(np.maximum.accumulate(ends), dtype=np.float64)

    def pace(self, stream: int, instances: Iterable[int], window: tuple[float, float]) -> Pace:
        """How fast the instances advanced by class, over the tiles between two fractions of each instance."""
        classes = self.streams[stream].counts.size
        seconds, tiles = np.zeros(classes), np.zeros(classes)
        for instance in instances:
            ends, kinds = self.tile_ends_s(instance), self.classes(instance)
            first, last = (int(fraction * (ends.size - 1)) for fraction in window)
            seconds += np.bincount(kinds[first + 1 : last + 1], np.diff(ends[first : last + 1]), minlength=classes)
            tiles += np.bincount(kinds[first + 1 : last + 1], minlength=classes)
        return Pace(seconds, tiles)

    def stream_latency_s(self, stream: int) -> float:
        """What the stream adds to the latency: its end, or without its fill and drain where they are hidden."""
        if not self.streams[stream].stream.hidden_fill:
            return self.end_s(stream)
        by_lane: dict[int, list[int]] = {}
        for instance in self.instances(stream):
            if self.tables.instances[instance]["tiles"]:
                by_lane.setdefault(int(self.tables.instances[instance]["lane"]), []).append(instance)
        return max((self._hidden_latency_s(stream, instances) for instances in by_lane.values()), default=0.0)

    def first_share_s(self, stream: int, kind: int, pace: Pace) -> float:
        """The share of a first tile of class `kind`: that of later ones, or what its bounds say if there are none."""
        if pace.tiles[kind] > 0:
            return float(pace.seconds[kind] / pace.tiles[kind])
        return steady_tile_s(self.streams[stream], kind)

    def _hidden_latency_s(self, stream: int, instances: Sequence[int]) -> float:
        """Latency without fill and drain of the instances that one lane ran."""
        first = float(self.tile_ends_s(instances[0])[0])
        kind = int(self.classes(instances[0])[0])
        pace = self.pace(stream, instances, (0.0, 1.0))
        end = float(self.tables.instances["end_s"][instances[-1]])
        return end - first + self.first_share_s(stream, kind, pace)


def steady_tile_s(stream: PointStream, kind: int) -> float:
    """Seconds that a tile of one class takes in steady state, alone: its most loaded resource, its recurrence."""
    loads: dict[str | None, float] = {}
    for step, seconds in zip(stream.stream.steps, stream.busy_s[:, kind], strict=True):
        loads[step.resource] = loads.get(step.resource, 0.0) + float(seconds)
    loads.pop(None, None)
    periods = recurrence_s(stream.stream)
    shape = (max(periods.shape[0], stream.point + 1), stream.counts.size)
    return max(float(np.broadcast_to(periods, shape)[stream.point, kind]), *loads.values(), 0.0)
