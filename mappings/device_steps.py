"""The steps of a tile: stages that run on drives, links and paths; other stages are those of `mappings.stage_steps`.

A stage on a path is one stage for each part that it passes: each starts with the first bytes that the part before it
delivers and ends after it. A memory on the way is written and read again, one at its end is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from architectures import EvaluatedArchitecture
from architectures.evaluated import Device
from architectures.flash import EvaluatedFlash
from architectures.links import EvaluatedLink
from architectures.pages import Layout
from einsum.errors import EinsightError, SpecError, nearest
from einsum.expressions import Expression
from mappings.movement import column
from mappings.program import Array, Step, Traffic
from mappings.stage_steps import StageLowering
from mappings.stages import Move, PlanStage


def tile_steps(
    stages: Sequence[PlanStage], machine: EvaluatedArchitecture, env: Mapping[str, Any], shape: tuple[int, int]
) -> tuple[tuple[Step, ...], dict[str, Array]]:
    """The steps of a tile, (points, classes), and what the utilization of each resource is a share of, (points, 1)."""
    owner: list[int] = []
    hops: list[PlanStage] = []
    for place, stage in enumerate(stages):
        with _located(place):
            parts = tuple(_hops(stage, machine))
        owner += [place] * len(parts)
        hops += parts
    plain = tuple(_without_device(stage) if stage.on in machine.devices else stage for stage in hops)
    lowering = StageLowering(plain, machine, env, shape)
    try:
        made = {step.name: step for step in lowering.steps()}
    except EinsightError as error:  # it numbers the hops
        raise _renumbered(error, owner) from None
    for place, stage in zip(owner, hops, strict=True):
        with _located(place):
            device = machine.devices.get(stage.on or "")
            for field in ("touches", "in_flight"):
                if getattr(stage, field) and not isinstance(device, EvaluatedFlash):
                    raise SpecError(f"only drives have pages and requests in flight, '{stage.on}' is none", key=field)
            if device is not None:
                made[stage.stage] = DeviceWork(stage, device, lowering).step(made[stage.stage])
            made[stage.stage] = _dealt(made[stage.stage], stage, machine, lowering)
    peaks = lowering.peaks_per_s()
    for stage in hops:
        if stage.on in machine.devices:
            peaks[str(stage.on)] = column(machine.devices[str(stage.on)].copies)
    return tuple(made.values()), peaks


@contextmanager
def _located(place: int) -> Iterator[None]:
    """Put the stage's place before the key of an error that passes through."""
    try:
        yield
    except EinsightError as error:
        raise error.located(key=f"stages[{place}]") from None


def _renumbered(error: EinsightError, owner: Sequence[int]) -> SpecError:
    """The error with the place of the stage that a hop belongs to."""
    key = error.key or ""
    found = re.match(r"stages\[(\d+)\]", key)
    if found is not None:
        key = f"stages[{owner[int(found[1])]}]{key[found.end() :]}"
    return SpecError(error.message, key=key)


def _hops(stage: PlanStage, machine: EvaluatedArchitecture) -> Iterator[PlanStage]:
    """The stage itself, or one for each part of its path; the last one bears its name."""
    parts = (machine.memories, machine.units, machine.selectors, machine.devices, machine.paths)
    known = {name for each in parts for name in each}
    if stage.on is not None and stage.on not in known:
        message = f"the architecture '{machine.name}' has no part '{stage.on}'{nearest(stage.on, known)}"
        raise SpecError(message, key="on")
    if stage.on is None or stage.on not in machine.paths:
        yield stage
        return
    over = machine.paths[stage.on]
    moves = stage.moves.get(stage.on)
    if moves is None or len(stage.moves) > 1:
        raise SpecError(f"a stage on the path '{stage.on}' moves tensors over it alone", key="moves")
    for number, hop in enumerate(over):
        last = number == len(over) - 1
        name = stage.stage if last else f"{stage.stage} over {hop}"
        before = () if number == 0 else (f"{stage.stage} over {over[number - 1]}",)
        passed = dict(moves)
        if hop in machine.memories and number > 0:  # written there, and read again when the path goes on
            again = {"read": Expression.parse(0)} if last else {}
            passed = {tensor: move.model_copy(update={"write": move.read, **again}) for tensor, move in moves.items()}
        yield stage.model_copy(
            update={"stage": name, "on": hop, "moves": {hop: passed}, "along": before or stage.along}
        )


def _without_device(stage: PlanStage) -> PlanStage:
    """The stage's place in the order alone, and what it moves in memories."""
    moves = {name: moved for name, moved in stage.moves.items() if name != stage.on}
    return stage.model_copy(update={"on": None, "moves": moves, "ops": {}, "select": None})


def _dealt(step: Step, stage: PlanStage, machine: EvaluatedArchitecture, lowering: StageLowering) -> Step:
    """The step's time on the copy that gets the most pieces."""
    if stage.spread is None:
        return step
    pieces = lowering.whole(stage.spread, "spread", 1)
    name = str(stage.on)
    parts = (machine.devices, machine.memories, machine.units)
    copies = next((each[name].copies for each in parts if name in each), 1)
    return replace(step, busy_s=step.busy_s * np.ceil(pieces / column(copies)) / pieces)


@dataclass(frozen=True)
class DeviceWork:
    """What a stage does on a drive or a link."""

    stage: PlanStage
    device: Device
    lowering: StageLowering

    def step(self, place: Step) -> Step:
        """The step in its place of the order, with its time, traffic and actions."""
        if self.stage.ops or self.stage.select:
            raise SpecError(f"'{self.device.name}' moves data and computes nothing")
        active = self._active()
        if isinstance(self.device, EvaluatedFlash):
            busy, latency, traffic, actions = self._on_flash(self.device, active)
        elif isinstance(self.device, EvaluatedLink):
            busy, latency, traffic, actions = self._on_link(self.device, active)
        else:
            raise SpecError(f"no stage can run on '{self.device.name}'", key="on")
        if self.stage.latency is not None:
            latency = np.asarray(place.latency_s)
        return replace(
            place,
            resource=self.device.name,
            busy_s=busy,
            latency_s=np.where(active, latency, 0.0),
            traffic={**place.traffic, **traffic},
            actions={**place.actions, **actions},
            work={self.device.name: busy},
        )

    def _active(self) -> NDArray[np.bool_]:
        shape = self.lowering.shape
        if self.stage.when is None:
            return np.ones(shape, dtype=bool)
        return np.asarray(self.lowering.values(self.stage.when, "when") != 0)

    def _sides(self, tensor: str, move: Move, active: NDArray[np.bool_]) -> tuple[Array, Array, Array]:
        """Bytes read, bytes written and the pieces that they lie in."""
        key = f"moves.{self.device.name}.{tensor}"
        read = self.lowering.values(move.read, f"{key}.read", active)
        write = self.lowering.values(move.write, f"{key}.write", active)
        return read, write, np.maximum(self.lowering.values(move.pieces, f"{key}.pieces", active), 1.0)

    def _on_link(self, link: EvaluatedLink, active: NDArray[np.bool_]) -> Any:
        traffic, moved = {}, np.zeros(self.lowering.shape)
        for tensor, move in self.stage.moves.get(link.name, {}).items():
            read, write, _ = self._sides(tensor, move, active)
            traffic[link.name, tensor] = Traffic(read, write)
            moved = moved + read + write
        busy = moved / column(link.bandwidth_bytes_per_s)
        return busy, column(link.latency_s), traffic, {(link.name, "move"): moved}

    def _on_flash(self, flash: EvaluatedFlash, active: NDArray[np.bool_]) -> Any:
        """Reads and writes in turn; tensors of one stage are read one after another."""
        lowering, page = self.lowering, column(flash.page_bytes)
        traffic: dict[tuple[str, str], Traffic] = {}
        busy, read_pages, written = np.zeros(lowering.shape), np.zeros(lowering.shape), np.zeros(lowering.shape)
        depth = None if self.stage.in_flight is None else lowering.whole(self.stage.in_flight, "in_flight", 1)
        for tensor, move in self.stage.moves.get(flash.name, {}).items():
            read, write, pieces = self._sides(tensor, move, active)
            busy = busy + flash.read_s(np.where(read > 0, pieces, 0.0), read / pieces, depth)
            read_pages = read_pages + flash.pages(read / pieces) * pieces
            filled = flash.pages(write / pieces) * pieces
            busy, written = busy + flash.program_s(filled), written + filled
            traffic[flash.name, tensor] = Traffic(read, filled * page)
        for tensor in self.stage.touches:
            pages = self.touched(flash, tensor) * active
            busy = busy + flash.pick_s(pages, depth)
            read_pages = read_pages + pages
            before = traffic.get((flash.name, tensor), Traffic())
            traffic[flash.name, tensor] = replace(before, read_bytes=before.read_bytes + pages * page)
        return busy, 0.0, traffic, {(flash.name, "read"): read_pages, (flash.name, "write"): written}

    def touched(self, flash: EvaluatedFlash, tensor: str) -> Array:
        """Pages that one tile reads of a tensor, (points, classes)."""
        touch = self.stage.touches[tensor]

        def value(field: str) -> Array:
            return self.lowering.values(getattr(touch, field), f"touches.{tensor}.{field}")

        active = self._active()
        vectors, kept, latest, clustering = map(value, ("vectors", "kept", "latest", "clustering"))
        for field, wrong, limit in (
            ("vector_bytes", value("vector_bytes") <= 0, "above 0"),
            ("kept", kept > vectors, "at most the number of vectors"),
            ("latest", latest > kept, "at most the number of kept vectors"),
            ("clustering", clustering > 1, "at most 1"),
        ):
            if (wrong & active).any():
                found = f"'{getattr(touch, field)}' is {value(field)[wrong & active][0]:g}"
                raise SpecError(f"{found}, expected {limit}", key=f"touches.{tensor}.{field}")
        layout = Layout.of(np.where(active, value("vector_bytes"), 1.0), column(flash.page_bytes))
        return layout.expected(vectors, kept, latest, clustering) * value("sets")
