"""From one launch of a GPU kernel to a phase of a tile program with one stream.

Instances are thread blocks, tile classes are the loops of a block, slots are the blocks that a multiprocessor holds at
a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from architectures.gpu import Gpu
from mappings.gpu.blocks import Blocks, Env, LoopOrder
from mappings.gpu.kernel import ONE, GridLaunch, GridStep
from mappings.gpu.loops import behind_stores_s, crowding, in_step, meets
from mappings.gpu.power import power_limit
from mappings.gpu.reads import Left, Reads
from mappings.program import Array, Dependence, Droop, Phase, Residency, Step, Stream, Traffic

LINE_BYTES = 128
"""Of the caches: what a request to the L2 asks for at most (CUDA programming guide)."""
SLICE_BYTES = 64
"""What a slice of the L2 delivers in a cycle (A100 whitepaper: 5120 bytes by 80 slices), and a request takes at least:
pieces of 64 and 32 bytes are served at the same rate (measured, pieces: one a multiprocessor in 1.05 and 1.01 ns)."""


class LaunchLowering:
    """One launch on its way to a phase."""

    def __init__(self, launch: GridLaunch, gpu: Gpu, env: Env, before: Left) -> None:
        self.launch = launch
        self.gpu = gpu
        self.blocks = Blocks.of(launch, env)
        self.power = power_limit(gpu)
        self.free = bool(launch.free.number(env))
        self.warps = int(launch.warps.number(env))
        self._lone_lanes = 32 * self.warps / gpu.instruction_pace  # that a block alone fills
        self.teams = max(1, int(launch.teams.number(env)))
        self.stages = int(launch.stages.number(env))
        self.slots = gpu.occupancy(self.warps, launch.registers.number(env), launch.shared.number(env))
        trips = [np.asarray(loop.trips.evaluate(self.blocks.env), dtype=np.float64) for loop in launch.loops]
        self.uniform = all(np.ptp(values) == 0 for values in trips)
        if self.uniform:
            self.trips = np.array([[float(values.flat[0]) for values in trips]])
        else:
            self.trips = np.stack([self.blocks.full(values) for values in trips], axis=1)
        # A loop that is written with trips is pipelined, however few there are; one that is not, is straight code.
        self.walks = [loop.trips is not ONE for loop in launch.loops]
        self.pipelined = [
            self.stages > 1 and walks and any(step.kind in ("product", "vector") for step in loop.steps)
            for loop, walks in zip(launch.loops, self.walks, strict=True)
        ]
        self.totals = self.trips.mean(axis=0) * self.blocks.count
        in_flight = min(self.blocks.count, self.slots * gpu.multiprocessors)
        self.reads = Reads(launch, self.blocks, gpu, self.totals, in_flight, before)

    def phase(self) -> Phase:
        """The phase: one stream, whose first step stands for the start of a block."""
        dram = self.reads.dram_bytes()
        stores = {id(step) for loop in self.launch.loops for step in loop.steps if step.kind == "store"}
        written = sum(moved for step, moved in dram.items() if step in stores) * (1 - self.reads.retained)
        written += sum(dram.values()) * sum(self.reads.pushed.values())
        self.turn = self.gpu.turnaround(sum(moved for step, moved in dram.items() if step not in stores), written)
        steps: list[Step] = []
        self.crowding = [crowding(loop, self.blocks, self.warps, self.gpu) for loop in self.launch.loops]
        for index, loop in enumerate(self.launch.loops):
            if not self.totals[index]:  # no block comes here
                continue
            previous: str | None = None
            for step in loop.steps:
                made = self._steps(step, index, previous, dram.get(id(step), 0.0))
                steps += made
                prefetched = step.kind == "load" and self._prefetched(step, index)
                left = step.kind == "product" and bool(self.blocks.mean(step.aside))
                if step.kind == "product" and not left:
                    previous = made[0].name
                elif step.kind != "store" and not left:
                    previous = made[-2 if prefetched else -1].name  # loads are asked for in turn, and not waited for
        stream = Stream(
            name=self.launch.launch,
            steps=tuple(steps),
            counts=(self.totals / self.blocks.count).reshape(1, -1),
            order=LoopOrder(self.trips),
            instances=self.blocks.count,
            slots=self.slots,
            residency=Residency(
                self.teams,
                1 + int(self.launch.overlap.number(self.blocks.env)),
                None if self.uniform else self.trips,
                self.gpu.block_launch,
                self.gpu.block_latency,
                "DRAM",
                self.gpu.dram_ramp,
                Droop("tensor", 1 - self.gpu.tensor_clock_hz / self.gpu.clock_hz, self.gpu.clock_droop),
                self.power,
                self.free,
                self.gpu.dram_sharpness,
                self.gpu.dram_even_share,
                1.0 if self.free else self.gpu.lost_stages,  # warps of their own ask as soon as a buffer is free
                self.gpu.l2_sharpness,
            ),
        )
        return Phase(self.launch.launch, (stream,))

    def _steps(self, step: GridStep, index: int, previous: str | None, dram_bytes: float) -> list[Step]:
        """A step of the kernel as steps of the program: one for each resource that it needs."""
        after = (Dependence(previous),) if previous else ()
        name = f"{step.name} {index}" if index else step.name
        if step.kind == "product":
            return self._product(step, index, name, after)
        if step.kind == "vector":
            return self._vector(step, index, name, after)
        return self._transfer(step, index, name, after, dram_bytes)

    def _product(self, step: GridStep, index: int, name: str, after: tuple[Dependence, ...]) -> list[Step]:
        """Warp groups read their operands while they multiply. Single warps load them into registers, those of the next
        instruction beside this one: the loads, and the instructions, run beside the products."""
        m, n, k, repeat = (self.blocks.mean(value) for value in (step.m, step.n, step.k, step.repeat))
        word = self.blocks.env["word_bytes"]
        rate, wide = self.gpu.product_rate(m, self.warps, word)
        busy = computing = 2 * m * n * k * repeat / rate
        held = 0.0 if self.blocks.mean(step.held) else 1.0
        if wide:
            parts = n / (self.blocks.mean(step.columns) or n)
            read = word * k * repeat * (held * m * parts + n * max(1.0, m / 64))
            busy = max(busy, read / self.gpu.shared_bytes_per_cycle / self.gpu.clock_hz)
        cycles = self.blocks.mean(step.latency)
        loaded = 0.0
        if wide:
            latency = (cycles + self.blocks.mean(step.waits) * self.gpu.group_wait_cycles) / self.gpu.clock_hz
        else:
            along_m = max(1.0, min(self.blocks.mean(step.row_warps) or self.warps, m / 16))
            read = k * word * (held * m * self.warps / along_m + n * along_m * repeat)
            loaded = read / self.gpu.shared_bytes_per_cycle / self.gpu.clock_hz
            steps = np.ceil(k * word / 32) * self.gpu.sync_step_cycles + self.gpu.shared_latency_cycles
            # Dependent steps are waited for as far as neither the products nor the loads take as long.
            longest = max(busy, loaded) / self.teams
            # Each warp multiplies on the tensor cores of its own scheduler.
            chain = max(steps / self.gpu.clock_hz, busy / self.teams * 4 / min(4, self.warps))
            latency = self.blocks.mean(step.waits) * max(chain - longest, 0.0)
            latency += cycles / self.gpu.clock_hz
        action = ("tensor", "flop" if wide else "warp flop")
        # Accumulators and operands pass where vector instructions take theirs from.
        gpu = self.gpu
        lanes, special = (
            (gpu.group_vector_share, gpu.group_sfu_share) if wide else (gpu.sync_vector_share, gpu.sync_sfu_share)
        )
        worked = computing / max(busy, 1e-30)  # and not while operands come from the shared memory
        takes = {"vector": lanes * worked, "sfu": special * worked}
        work = {action: 2 * m * n * k * repeat}
        made = [self._step(name, "tensor", index, busy, latency, after, None, work, takes=takes)]
        if not wide:
            made.append(self._step(f"{name} operands", "shared", index, loaded, 0.0, after, beside=name))
        if issue := self.blocks.mean(step.issue):
            issuing = issue / self.gpu.issue_lanes / self.gpu.clock_hz
            made.append(self._step(f"{name} issue", "vector", index, issuing, 0.0, after, beside=name))
        return made

    def _vector(self, step: GridStep, index: int, name: str, after: tuple[Dependence, ...]) -> list[Step]:
        """Instructions overlap with the special-function unit's work of the same step; the shared memory's follows.

        Latencies, those of reductions too, are time in which other teams in step go on.
        """
        gpu = self.gpu
        values = (step.issue, step.half, step.sfu, step.fp32, step.shared)
        issue, half, sfu, fp32, shared = (self.blocks.mean(value) for value in values)
        busy = gpu.lane_cycles(issue, half, 0.0, fp32) / gpu.clock_hz
        special = sfu / gpu.sfu_lanes / gpu.clock_hz
        # A warp alone goes at the pace that the compiler wrote into the code; others use the time in between.
        pace = gpu.instruction_pace if step.pace is None else self.blocks.mean(step.pace)
        lone = pace * issue / (32 * self.warps) / gpu.clock_hz
        slack = max(0.0, lone - max(busy, special) / self.teams)
        latency = self.blocks.mean(step.latency) / gpu.clock_hz + slack
        actions = {("vector", "lane"): issue, ("sfu", "operation"): sfu}
        made = [self._step(name, "vector", index, busy, latency, after, None, actions, slack_s=latency)]
        if special > 0:
            both = min(busy, special)  # a warp waits for each unit in turn, but for what others do there meanwhile
            posted, filled = -both / self.teams, both * (1 - 1 / self.teams)
            made.append(self._step(f"{name} sfu", "sfu", index, special, posted, (Dependence(name),), slack_s=filled))
        if shared > 0:
            moved = shared / gpu.shared_bytes_per_cycle / gpu.clock_hz
            made.append(self._step(f"{name} shared", "shared", index, moved, 0.0, (Dependence(name),)))
        return made

    def _transfer(
        self, step: GridStep, index: int, name: str, after: tuple[Dependence, ...], dram_bytes: float
    ) -> list[Step]:
        """Loads and stores: the way of a multiprocessor to the L2, the L2, and what the DRAM moves."""
        gpu, retained = self.gpu, self.reads.retained
        trips = max(self.totals[index], 1e-9)
        bytes_per_trip = self.reads.moved_bytes(step) / trips
        dram_per_trip = dram_bytes / trips
        load = step.kind == "load"
        tensor = str(step.load or step.store)
        read = dram_per_trip if load or step.adds else 0.0
        written = 0.0 if load else dram_per_trip * (1 - retained)
        moved = Traffic(self._at(index, read), self._at(index, written))
        passed = Traffic(**{"read_bytes" if load else "write_bytes": self._at(index, bytes_per_trip)})
        share = min(1.0, dram_per_trip / max(bytes_per_trip, 1e-9)) if load else 1.0 - retained
        prefetched = load and self._prefetched(step, index)
        piece = self.blocks.mean(step.piece)
        pieces = self._slices(step, piece) * SLICE_BYTES / piece if piece else 1.0
        whole = not piece or piece >= LINE_BYTES  # a piece of a line is asked for by each
        asked = bytes_per_trip * pieces * (1 - self._served(step, index) if load and whole else 1.0)
        l2_busy = asked / gpu.l2_rate(step.kind, step.adds)
        latency = self._latency(step, index, share) if load else 0.0
        pushed = {name: dram_per_trip * part for name, part in self.reads.pushed.items()}  # by the lines that come
        dram_busy = read / gpu.piece_share(piece) / gpu.dram_read_bandwidth
        dram_busy += (written + sum(pushed.values())) / gpu.dram_write_bandwidth
        busy = bytes_per_trip * pieces / (gpu.port_add_bandwidth if step.adds else gpu.port_bandwidth)
        # Multiprocessors in step ask at the same time: what waits for a transfer gets its part of the L2's bandwidth.
        active = min(self.blocks.count, gpu.multiprocessors)
        crowd = 0.0 if prefetched or step.adds else max(0.0, active * l2_busy - busy) * self._in_step(index)
        far = {("DRAM", name): Traffic(write_bytes=self._at(index, part)) for name, part in pushed.items()}
        far["DRAM", tensor] = moved + far.get(("DRAM", tensor), Traffic())
        acts = {("DRAM", "byte"): dram_per_trip * (2 if step.adds else 1)}
        made = [
            self._step(f"{name} DRAM", "DRAM", index, dram_busy / self.turn, 0.0, (), far, acts),
            self._step(f"{name} L2", "L2", index, l2_busy, 0.0, (), None, {("L2", "byte"): bytes_per_trip}),
        ]  # fmt: skip
        if prefetched:
            written = bytes_per_trip / gpu.shared_bytes_per_cycle / gpu.clock_hz
            # A copy engine writes while products leave the memory time. Threads copy zeros for tiles beyond the last.
            written *= self.crowding[index] if self.free else 1 + (self.stages - 1) * self.blocks.count / trips
            posted = written / 2 * self._queued(index)
            unit = "tensor" if self.free else "shared"
            made.append(self._step(f"{name} shared", unit, index, written, -posted, after))
            after = (Dependence(self._last(index), self.stages),)
        else:  # the load and store unit of a multiprocessor moves what threads load and store themselves
            issue, words = self.blocks.mean(step.issue), self.blocks.mean(step.shared)
            passing = (words or bytes_per_trip) / gpu.shared_bytes_per_cycle / gpu.clock_hz
            posted = not load and self.walks[index]  # nothing in a loop waits for what it stores
            handed = posted * (1 - step.adds * self.blocks.mean(step.waits))
            made.append(self._step(f"{name} shared", "shared", index, passing, -posted * passing, after))
            after, latency = (Dependence(f"{name} shared"),), latency - handed * busy
            if issue:  # asked for by many instructions, beside which the first of them pass and come
                asking, lone = (issue / rate / gpu.clock_hz for rate in (gpu.issue_lanes, self._lone_lanes))
                latency += max(0.0, lone - max(asking, passing, busy) / self.teams)
                made.append(self._step(f"{name} issue", "vector", index, asking, 0.0, ()))
                made[-2:] = [replace(part, beside=name) for part in made[-2:]]
        near, crowd_s = {("L2", tensor): passed}, self._at(index, crowd)
        return [*made, self._step(name, "port", index, busy, latency, after, near, crowd_s=crowd_s)]

    def _slices(self, step: GridStep, piece: float) -> float:
        """Slices that serve a piece, in the mean: copies that pass by the first cache ask for one more where their rows
        begin between slices."""
        alike = SLICE_BYTES
        if step.kind == "load" and bool(self.blocks.mean(step.asynchronous)):
            alike = math.gcd(SLICE_BYTES, int(piece), int(self.blocks.mean(step.row_bytes)))
        return max(1.0, (piece + SLICE_BYTES - alike) / SLICE_BYTES)

    def _served(self, step: GridStep, index: int) -> float:
        """The part of what blocks ask for that the L2 serves together with a neighbour's request for the same."""
        gpu = self.gpu
        if not step.same or not gpu.joint_requests:
            return 0.0
        done = gpu.joint_later + (gpu.joint_requests - gpu.joint_later) * self._in_step(index)
        return done * self.reads.joint(step)

    def _in_step(self, index: int) -> float:
        """Blocks start in step, and lose step with the trips that they make: the mean over those of a loop."""
        waves = max(1.0, self.blocks.count / (self.slots * self.gpu.multiprocessors))
        return in_step(self.totals / self.blocks.count / self.gpu.joint_trips, index, waves)

    def _queued(self, index: int) -> float:
        """The part of a tile's copies that its threads hand over at twice the rate at which the copies pass."""
        if self.free or any(bool(self.blocks.mean(step.aside)) for step in self.launch.loops[index].steps):
            return 0.0  # beside products that are left behind, addresses come no faster
        loads = [step for step in self.launch.loops[index].steps if step.kind == "load"]
        copied = sum(self.reads.moved_bytes(step) for step in loads if self._prefetched(step, index))
        return float(min(1.0, self.gpu.copy_queue * self.totals[index] / max(copied, 1.0)))

    def _latency(self, step: GridStep, index: int, share: float) -> float:
        """Seconds until what a trip asks for is there; `share` of it comes from the memory."""
        gpu = self.gpu
        first, last = (latency - gpu.l2_latency for latency in (gpu.dram_first_latency, gpu.dram_latency))
        # Blocks that walk over the same wait together for the one that is first to ask.
        fresh = max(share, self.reads.fresh.get(step.name, 1.0)) if not step.again else share
        if self._prefetched(step, index):
            waited = fresh * first + self._behind_s(index)
            if self._met(index):  # for the last of a whole tile's lines, that memory or the way to the L2 delays
                waited += max(share * (last - first), self._trailing_s(index))
            return gpu.l2_latency + waited
        if self.walks[index]:  # what a trip asks for queues as far as it goes
            last = first + (last - first) * min(1.0, self._waited_bytes(index) / gpu.dram_latency_bytes)
        walked = self.walks[index] and bool(step.same) and not self.blocks.mean(step.asynchronous)
        waited = fresh if walked else share
        # What is asked for alone, later, waits without the queue of a whole block's requests.
        later = max(0.0, self.blocks.mean(step.batches) - 1) * (gpu.l2_latency + waited * first)
        later += self._behind_s(index) if self.walks[index] else 0.0
        return gpu.l2_latency + waited * last + later

    def _trip_bytes(self, index: int, kind: str) -> float:
        """Bytes that a trip of a loop loads, or stores and does not wait for."""
        steps = [step for step in self.launch.loops[index].steps if step.kind == kind and not step.adds]
        return float(sum(self.reads.moved_bytes(step) for step in steps) / max(self.totals[index], 1e-9))

    def _waited_bytes(self, index: int) -> float:
        """Bytes that a trip of a loop asks for and waits for itself."""
        loads = [step for step in self.launch.loops[index].steps if step.kind == "load"]
        moved = sum(self.reads.moved_bytes(step) for step in loads if not self._prefetched(step, index))
        return float(moved / max(self.totals[index], 1e-9))

    def _trailing_s(self, index: int) -> float:
        """Seconds by which a tile's copies pass the way to the L2 later than threads ask for them."""
        copied, asking = self._trip_bytes(index, "load"), self.gpu.shared_bytes_per_cycle * self.gpu.clock_hz
        return max(0.0, copied / self.gpu.port_bandwidth - copied / asking)

    def _behind_s(self, index: int) -> float:
        return behind_stores_s(self._trip_bytes(index, "store"), self.gpu)

    def _met(self, index: int) -> bool:
        return meets(self.launch.loops[index], lambda load: self._prefetched(load, index))

    def _last(self, index: int) -> str:
        """The last step of a loop that computes."""
        steps = [step for step in self.launch.loops[index].steps if step.kind in ("product", "vector")]
        return f"{steps[-1].name} {index}" if index else steps[-1].name

    def _prefetched(self, step: GridStep, index: int) -> bool:
        return self.pipelined[index] and bool(self.blocks.mean(step.asynchronous))

    def _step(
        self, name: str, resource: str, index: int, busy: float, latency: float, after: tuple[Dependence, ...],
        traffic: Mapping[tuple[str, str], Traffic] | None = None,
        actions: Mapping[tuple[str, str], float] | None = None, **more: Any,
    ) -> Step:  # fmt: skip
        known = actions if actions and self.power is not None else {}
        counts = {action: self._at(index, count) for action, count in known.items()}
        return Step(name, resource, self._at(index, busy), latency, after, traffic or {}, counts, **more)

    def _at(self, index: int, value: float) -> Array:
        """A value of one tile class, 0 in the others, (1, classes)."""
        values = np.zeros((1, len(self.launch.loops)))
        values[0, index] = value
        return values
