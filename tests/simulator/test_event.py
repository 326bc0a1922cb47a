"""The event evaluator: small programs by hand, a slow independent simulator, bounds, and extrapolation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from einsum.errors import EinsightError
from mappings.program import Dependence, Phase, Resource, Step, Stream, TileProgram
from simulator.critical_path import recurrence_s, tile_latency_s
from simulator.event import evaluate_events, simulate_events
from simulator.point_stream import PointStream

After = Dependence


def order_of(*sequences: Sequence[int]) -> Callable[[int, int, int | None], NDArray[np.int32]]:
    """An order that gives instance i the i-th sequence (in turn)."""

    def order(point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
        return np.array(sequences[instance % len(sequences)], dtype=np.int32)[:limit]

    return order


def uniform(name: str, steps: Sequence[Step], tiles: int, **more: object) -> Stream:
    def order(point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
        return np.zeros(tiles if limit is None else min(tiles, limit), dtype=np.int32)

    return Stream(name, tuple(steps), np.array([[float(tiles)]]), order, **more)  # type: ignore[arg-type]


def program(*streams: Stream, repeat: int = 1, points: int = 1, **copies: int) -> TileProgram:
    """One phase of streams; resources have one copy unless `copies` says otherwise."""
    names = {step.resource for stream in streams for step in stream.steps if step.resource is not None}
    return TileProgram(
        phases=(Phase("phase", streams, repeat),),
        resources={name: Resource(name, copies.get(name, 1)) for name in names},
        points=points,
        energy_j={},
        peak_per_s={},
        clock_hz=np.ones((points, 1)),
    )


def latency_s(*streams: Stream, **more: int) -> float:
    return simulate_events(program(*streams, **more)).latency_s


# --- by hand -----------------------------------------------------------------------------------------------------


def test_one_tile_lasts_its_chain_with_latencies() -> None:
    chain = [
        Step("a", "x", 1.0, 0.5),
        Step("b", "y", 2.0, 0.25, (After("a"),)),
        Step("c", None, 0.0, 4.0, (After("b"),)),
    ]
    assert latency_s(uniform("s", chain, 1)) == 1.5 + 2.25 + 4.0


def test_two_resources_overlap_tiles() -> None:
    chain = [Step("a", "x", 1.0), Step("b", "y", 2.0, after=(After("a"),))]
    assert latency_s(uniform("s", chain, 10)) == 1.0 + 10 * 2.0


def test_latency_frees_the_resource_but_holds_back_dependents() -> None:
    chain = [Step("a", "x", 1.0, 10.0), Step("b", "y", 1.0, after=(After("a"),))]
    assert latency_s(uniform("s", chain, 5)) == 5 * 1.0 + 10.0 + 1.0


def test_a_recurrence_admits_one_tile_per_round_trip() -> None:
    loop = [Step("a", "x", 1.0, 0.5, (After("b", 1),)), Step("b", "y", 1.0, 0.5, (After("a"),))]
    assert latency_s(uniform("s", loop, 8)) == 8 * 3.0


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (1, 6 * 3.0),  # one buffer: load and use alternate
        (2, 1.0 + 6 * 2.0),  # two: the load hides behind the use
        (3, 1.0 + 6 * 2.0),
    ],
)
def test_a_buffer_of_some_depth_lets_loads_run_ahead(depth: int, expected: float) -> None:
    steps = [Step("load", "mem", 1.0, after=(After("use", depth),)), Step("use", "mac", 2.0, after=(After("load"),))]
    assert latency_s(uniform("s", steps, 6)) == expected


def test_two_streams_share_a_resource_and_take_turns() -> None:
    result = simulate_events(
        program(uniform("a", [Step("a", "x", 1.0)], 3), uniform("b", [Step("b", "x", 2.0)], 2)), record=True
    )
    timeline = result.phases[0].timeline
    assert timeline is not None
    assert list(zip(timeline.stream, timeline.tile, timeline.start_s, strict=True)) == [
        (0, 0, 0.0), (1, 0, 1.0), (0, 1, 3.0), (1, 1, 4.0), (0, 2, 6.0),
    ]  # fmt: skip
    assert result.latency_s == 7.0
    assert result.phases[0].stream_latency_s == (7.0, 6.0)


def test_older_tiles_go_first_then_earlier_steps() -> None:
    steps = [Step("second", "x", 1.0, after=(After("first"),)), Step("first", "x", 1.0)]
    timeline = simulate_events(program(uniform("s", steps, 2)), record=True).phases[0].timeline
    assert timeline is not None
    assert list(zip(timeline.tile, timeline.step, strict=True)) == [(0, 1), (0, 0), (1, 1), (1, 0)]


@pytest.mark.parametrize(("blocks", "waves"), [(1, 1), (132, 1), (133, 2), (264, 2), (265, 3)])
def test_thread_blocks_run_in_waves_with_a_tail(blocks: int, waves: int) -> None:
    block = uniform("block", [Step("mma", "tensor_core", 2.0)], 5, instances=blocks)
    result = simulate_events(program(block, tensor_core=132))
    assert result.latency_s == waves * 10.0
    assert result.busy_s == {"tensor_core": blocks * 10.0}


def test_two_blocks_on_one_processor_hide_each_others_latency() -> None:
    steps = [Step("mma", "core", 1.0, after=(After("exp", 1),)), Step("exp", "sfu", 1.0, after=(After("mma"),))]
    assert latency_s(uniform("s", steps, 10, instances=2, slots=1), core=1, sfu=1) == 2 * 20.0
    assert latency_s(uniform("s", steps, 10, instances=2, slots=2), core=1, sfu=1) == 21.0


def test_blocks_on_all_copies_contend_for_the_shared_memory() -> None:
    steps = [Step("load", "dram", 1.0), Step("mma", "core", 1.0, after=(After("load"),))]
    assert latency_s(uniform("s", steps, 10, instances=4), core=4) == 4 * 10.0 + 1.0


def test_an_ended_block_is_replaced_at_once_where_it_ended() -> None:
    blocks = Stream("s", (Step("mma", "core", 1.0),), np.array([[3.0]]), order_of([0] * 6, [0], [0] * 2), instances=3)
    result = simulate_events(program(blocks, core=2), record=True)
    timeline = result.phases[0].timeline
    assert timeline is not None
    assert {(int(i), int(c)) for i, c in zip(timeline.instance, timeline.copy, strict=True)} == {(0, 0), (1, 1), (2, 1)}
    assert result.latency_s == 6.0


def test_instances_spread_over_units_before_they_double_up() -> None:
    block = uniform("s", [Step("a", "core", 1.0)], 1, instances=5, slots=4)
    timeline = simulate_events(program(block, core=4), record=True).phases[0].timeline
    assert timeline is not None
    assert dict(zip(timeline.instance.tolist(), timeline.copy.tolist(), strict=True)) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 0}


def test_streams_on_the_same_units_fill_the_empty_ones_first() -> None:
    first = uniform("first", [Step("a", "core", 1.0)], 1, instances=2)
    second = uniform("second", [Step("b", "core", 1.0)], 1, instances=2)
    assert latency_s(first, second, core=4) == 1.0


def test_fewer_channels_than_dies_serve_them_in_turn() -> None:
    reads = uniform(
        "page", [Step("sense", "die", 10.0), Step("send", "channel", 1.0, after=(After("sense"),))], 1, instances=8
    )
    assert latency_s(reads, die=8, channel=2) == 10.0 + 4 * 1.0


def test_channels_that_do_not_divide_the_dies_are_refused() -> None:
    reads = uniform("page", [Step("sense", "die", 10.0), Step("send", "channel", 1.0)], 1)
    with pytest.raises(EinsightError, match="8 copies, which 3 copies of resource 'channel' cannot share evenly"):
        latency_s(reads, die=8, channel=3)


def test_a_step_that_a_class_does_not_run_passes_through() -> None:
    busy = np.array([[5.0, 0.0]])
    steps = (Step("rare", "x", busy, 7.0), Step("use", "y", 1.0, after=(After("rare"),)))
    mixed = Stream("s", steps, np.array([[1.0, 2.0]]), order_of([1, 0, 1]))
    timeline = simulate_events(program(mixed), record=True).phases[0].timeline
    assert timeline is not None
    # Tile 2 does not run `rare`, so it does not wait behind tile 1's; but `use` runs its tiles in order.
    starts = {
        (step, tile): start for step, tile, start in zip(timeline.step, timeline.tile, timeline.start_s, strict=True)
    }
    assert starts == {(0, 1): 0.0, (1, 0): 0.0, (1, 1): 12.0, (1, 2): 13.0}


def test_a_step_without_a_resource_delays_tiles_side_by_side_but_is_busy_with_one_at_a_time() -> None:
    assert latency_s(uniform("s", [Step("wait", None, 0.0, 5.0)], 10)) == 5.0
    assert latency_s(uniform("s", [Step("work", None, 2.0, 5.0)], 10)) == 25.0


def test_phases_add_up_and_repeat() -> None:
    one = program(uniform("s", [Step("a", "x", 1.0)], 4), repeat=3)
    result = simulate_events(replace(one, phases=(*one.phases, *one.phases)))
    assert result.latency_s == 2 * 3 * 4.0
    assert result.busy_s == {"x": 24.0}
    assert [phase.latency_s for phase in result.phases] == [4.0, 4.0]


def test_hidden_fill_leaves_the_steady_state() -> None:
    steps = [Step("a", "x", 1.0, 9.0), Step("b", "y", 2.0, after=(After("a"),))]
    assert latency_s(uniform("s", steps, 50, hidden_fill=True)) == pytest.approx(100.0, rel=1e-12)
    assert latency_s(uniform("s", steps, 1, hidden_fill=True)) == 2.0


def test_hidden_fill_gives_the_first_tile_the_share_of_its_class() -> None:
    mixed = Stream("s", (Step("a", "x", np.array([[1.0, 5.0]])),), np.array([[3.0, 3.0]]), order_of([1, 0, 0, 1, 0, 1]))
    assert latency_s(replace(mixed, hidden_fill=True)) == pytest.approx(18.0, rel=1e-12)


def test_every_point_has_its_own_numbers() -> None:
    steps = (
        Step("load", "mem", np.array([[1.0], [3.0]]), after=(After("use", np.array([1, 2])),)),
        Step("use", "mac", 2.0, after=(After("load"),)),
    )
    streams = Stream(
        "s", steps, np.array([[4.0], [5.0]]), lambda p, i, limit=None: np.zeros([4, 5][p], np.int32)[:limit]
    )
    both = program(streams, points=2)
    assert [simulate_events(both, point).latency_s for point in (0, 1)] == [4 * 3.0, 5 * 3.0 + 2.0]
    result = evaluate_events(both)
    np.testing.assert_allclose(result.latency_s, [12.0, 17.0])
    assert list(result.bound_by) == ["dependences", "dependences"]


def test_a_resource_that_never_idles_bounds_the_program() -> None:
    steps = [Step("a", "x", 1.0), Step("b", "y", 2.0, after=(After("a"),))]
    assert list(evaluate_events(program(uniform("s", steps, 100))).bound_by) == ["y"]


def test_nothing_to_do_takes_no_time() -> None:
    assert latency_s(uniform("s", [Step("a", "x", 1.0)], 0)) == 0.0
    assert latency_s(uniform("s", [Step("a", "x", 0.0, 3.0)], 5, instances=7)) == 0.0
    assert latency_s(uniform("s", [Step("a", "x", 1.0)], 3, instances=0)) == 0.0
    assert latency_s() == 0.0
    assert latency_s(Stream("s", (Step("a", "x", 1.0),), np.array([[1.0]]), order_of([], [0, 0]), instances=4)) == 4.0


# --- bad programs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([Step("a", "x", -1.0)], "step 'a' has a time that is negative"),
        ([Step("a", "x", float("nan"))], "step 'a' has a time"),
        ([Step("a", "x", 1.0, float("inf"))], "step 'a' has a time"),
        ([Step("a", "x", 1.0, after=(After("b"),))], "unknown step 'b'"),
        ([Step("a", "x", 1.0, after=(After("a", -1),))], "negative"),
        ([Step("a", "x", 1.0, after=(After("b"),)), Step("b", "x", 1.0, after=(After("a"),))], "steps a, b"),
    ],
)
def test_bad_steps_are_refused(steps: list[Step], message: str) -> None:
    with pytest.raises(EinsightError, match=message):
        latency_s(uniform("s", steps, 3))


def test_bad_streams_and_arguments_are_refused() -> None:
    good = uniform("s", [Step("a", "x", 1.0)], 3)
    with pytest.raises(EinsightError, match="unknown resource 'x'"):
        simulate_events(replace(program(good), resources={"y": Resource("y")}))
    with pytest.raises(EinsightError, match="order of the tiles does not agree"):
        latency_s(replace(good, counts=np.array([[2.0, 1.0]]), order=order_of([0, 1, 1])))
    with pytest.raises(EinsightError, match="names a tile class"):
        latency_s(replace(good, instances=2, order=order_of([0, 1, 0])))
    with pytest.raises(EinsightError, match="slot"):
        latency_s(replace(good, slots=0))
    with pytest.raises(EinsightError, match="design point 1 does not exist"):
        simulate_events(program(good), 1)
    with pytest.raises(EinsightError, match="0 copies"):
        latency_s(good, x=0)
    with pytest.raises(EinsightError, match="tile count"):
        latency_s(replace(good, counts=np.array([[-1.0]])))


# --- an independent simulator ------------------------------------------------------------------------------------


class Reference:
    """The definition in `simulator.event`, step by step: every instance is looked at whenever time moves."""

    def __init__(self, program: TileProgram) -> None:
        (self.phase,) = program.phases
        self.resources = program.resources
        self.pipelines = [
            PointStream.build(stream, program, 0, len(self.phase.streams) == 1).pipeline
            for stream in self.phase.streams
        ]
        self.ends: dict[tuple[int, int, int, int], float] = {}  # (stream, instance, tile, step) -> end
        self.releases: dict[tuple[int, int, int, int], float] = {}
        self.busy_until: dict[object, float] = {}
        self.place: dict[tuple[int, int], tuple[int, int]] = {}  # (stream, instance) -> (unit, slot)
        self.age0: dict[tuple[int, int], int] = {}
        self.done_at: dict[tuple[int, int], float] = {}
        self.dealt = [0] * len(self.phase.streams)
        self.slot_tiles: dict[tuple[int, int, int], int] = {}

    def units(self, s: int) -> int:
        names = [step.resource for step in self.phase.streams[s].steps if step.resource is not None]
        return max((int(self.resources[name].copies) for name in names), default=1)

    def pace(self, s: int) -> float:
        """Progress that a tile is: 2^36 / (tiles of all instances / slots of all units)."""
        stream = self.phase.streams[s]
        places = self.units(s) * min(int(stream.slots), max(int(stream.instances), 1))
        return float(2**36 / max(round(float(np.sum(stream.counts))) * int(stream.instances) / places, 1.0))

    def tiles(self, s: int, i: int) -> list[int]:
        return list(self.phase.streams[s].order(0, i))

    def run(self) -> float:
        now = 0.0
        while True:
            moved = True
            while moved:
                moved = self.settle(now)
            self.start(now)
            later = [t for t in [*self.ends.values(), *self.releases.values()] if t > now]
            if not later:
                return max(self.done_at.values(), default=0.0)
            now = min(later)

    def settle(self, now: float) -> bool:
        """Pass through what does not run, note ended instances, deal out new ones."""
        moved = False
        for s, i in list(self.place):
            stream = self.phase.streams[s]
            for tile, kind in enumerate(self.tiles(s, i)):
                for k, step in enumerate(stream.steps):
                    key = (s, i, tile, k)
                    if key not in self.ends and self.busy(step, kind) == 0 and self.satisfied(s, i, tile, step, now):
                        self.ends[key] = now + (self.latency(step, kind) if step.resource is None else 0.0)
                        moved = True
            if (s, i) not in self.done_at:
                keys = [(s, i, t, k) for t in range(len(self.tiles(s, i))) for k in range(len(stream.steps))]
                if all(self.ends.get(key, np.inf) <= now for key in keys):
                    self.done_at[s, i] = now
                    unit, slot = self.place[s, i]
                    self.slot_tiles[s, unit, slot] = self.slot_tiles.get((s, unit, slot), 0) + len(self.tiles(s, i))
                    moved = True
        return self.deal(now) or moved

    def deal(self, now: float) -> bool:
        dealt = False
        for s, stream in enumerate(self.phase.streams):
            while self.dealt[s] < stream.instances:
                units = self.units(s)
                taken = {self.place[key] for key in self.place if key[0] == s and key not in self.done_at}
                load = [
                    sum(
                        self.place[key][0] == unit and self.units(key[0]) == units and key not in self.done_at
                        for key in self.place
                    )
                    for unit in range(units)
                ]
                free = [
                    (load[unit], unit, slot)
                    for unit in range(units)
                    for slot in range(int(stream.slots))
                    if (unit, slot) not in taken
                ]
                if not free:
                    break
                _, unit, slot = min(free)
                self.place[s, self.dealt[s]] = (unit, slot)
                self.age0[s, self.dealt[s]] = self.slot_tiles.get((s, unit, slot), 0)
                self.dealt[s] += 1
                dealt = True
        return dealt

    def start(self, now: float) -> None:
        waiting: dict[object, list[tuple[tuple[int, ...], tuple[int, int, int, int], tuple[int, int]]]] = {}
        planned: dict[tuple[object, int, int], list[tuple[tuple[int, int], int]]] = {}  # turns of an instance's steps
        for s, i in self.place:
            stream = self.phase.streams[s]
            kinds = self.tiles(s, i)
            for k, step in enumerate(stream.steps):
                runs = [
                    t for t, kind in enumerate(kinds) if self.busy(step, kind) > 0 and (s, i, t, k) not in self.releases
                ]
                if not runs:
                    continue
                unit, slot = self.place[s, i]
                copies = 0 if step.resource is None else int(self.resources[step.resource].copies)
                server = (s, i, k) if step.resource is None else (step.resource, unit % copies)
                order = self.pipelines[s]
                turn = (runs[0] + int(order.stage[k]), int(order.place[k]))
                planned.setdefault((server, s, i), []).append((turn, k))
                if not self.satisfied(s, i, runs[0], step, now):
                    continue
                before = [end for (ss, ii, _, kk), end in self.releases.items() if (ss, ii, kk) == (s, i, k)]
                if max(before, default=0.0) <= now:
                    age = int((self.age0[s, i] + turn[0]) * self.pace(s))
                    rank = (age, turn[1], s, slot, unit)
                    waiting.setdefault(server, []).append((rank, (s, i, runs[0], k), turn))
        for server, ready in waiting.items():
            candidates = [each for each in ready if not self.held_back(each[1], each[2], planned[server, *each[1][:2]])]
            if candidates and self.busy_until.get(server, 0.0) <= now:
                _, key, _ = min(candidates)
                step, kind = self.phase.streams[key[0]].steps[key[3]], self.tiles(key[0], key[1])[key[2]]
                self.busy_until[server] = self.releases[key] = now + self.busy(step, kind)
                self.ends[key] = now + self.busy(step, kind) + self.latency(step, kind)

    def held_back(
        self, key: tuple[int, int, int, int], turn: tuple[int, int], planned: list[tuple[tuple[int, int], int]]
    ) -> bool:
        """Whether a step that comes earlier in the plan has less slack than this one takes."""
        s, i, tile, k = key
        seconds = self.busy(self.phase.streams[s].steps[k], self.tiles(s, i)[tile])
        return any(before < turn and self.pipelines[s].slack_s[other] < seconds for before, other in planned)

    def satisfied(self, s: int, i: int, tile: int, step: Step, now: float) -> bool:
        names = [other.name for other in self.phase.streams[s].steps]
        keys = [(s, i, tile - int(dep.distance), names.index(dep.step)) for dep in step.after]
        return all(key[2] < 0 or self.ends.get(key, np.inf) <= now for key in keys)

    @staticmethod
    def busy(step: Step, kind: int) -> float:
        return float(np.broadcast_to(step.busy_s, (1, 2))[0, kind])

    @staticmethod
    def latency(step: Step, kind: int) -> float:
        return float(np.broadcast_to(step.latency_s, (1, 2))[0, kind])


# Small whole numbers make events coincide, the others make them miss each other.
SECONDS = st.one_of(st.integers(0, 3).map(float), st.floats(0.1, 3.0))


@st.composite
def streams(draw: st.DrawFn, name: str, copies: dict[str, int]) -> Stream:
    count = draw(st.integers(1, 4))
    steps = []
    for k in range(count):
        after = draw(
            st.lists(
                st.one_of(
                    st.tuples(st.integers(0, count - 1), st.integers(1, 3)),
                    *([st.tuples(st.integers(0, k - 1), st.integers(0, 2))] if k else []),
                ),
                max_size=3,
            )
        )
        resource = draw(st.sampled_from([None, *copies]))
        busy, latency = (np.array([[draw(SECONDS), draw(SECONDS)]]) for _ in range(2))
        steps.append(Step(f"s{k}", resource, busy, latency, tuple(After(f"s{d}", distance) for d, distance in after)))
    orders = draw(st.lists(st.lists(st.integers(0, 1), max_size=5), min_size=1, max_size=3))
    instances = draw(st.integers(0, 5))
    if instances == 1:
        orders = orders[:1]
    counts = np.bincount([kind for sequence in orders for kind in sequence], minlength=2) / len(orders)
    return Stream(name, tuple(steps), counts.reshape(1, 2), order_of(*orders), instances, draw(st.integers(1, 2)))


@st.composite
def programs(draw: st.DrawFn) -> TileProgram:
    copies = {"shared": 1, "core": draw(st.sampled_from([1, 2, 4])), "port": draw(st.sampled_from([1, 2]))}
    several = [draw(streams(f"stream{index}", copies)) for index in range(draw(st.integers(1, 2)))]
    names = {step.resource for stream in several for step in stream.steps if step.resource is not None}
    return program(*several, **{name: copies[name] for name in names})


@settings(max_examples=300, deadline=None)
@given(programs())
def test_the_engine_agrees_with_an_independent_simulator(random: TileProgram) -> None:
    assert simulate_events(random).latency_s == pytest.approx(Reference(random).run(), rel=1e-12, abs=0)


@settings(max_examples=100, deadline=None)
@given(programs())
def test_work_is_conserved_and_latency_lies_between_its_bounds(random: TileProgram) -> None:
    result = simulate_events(random, record=True)
    work: dict[str, float] = {}
    serial = longest = 0.0
    for stream in random.phases[0].streams:
        for instance in range(int(stream.instances)):
            kinds = list(stream.order(0, instance))
            for step in stream.steps:
                busy = [Reference.busy(step, kind) for kind in kinds]
                latency = [Reference.latency(step, kind) for kind in kinds]
                serial += sum(busy) + sum(latency)
                if step.resource is not None:
                    work[step.resource] = work.get(step.resource, 0.0) + sum(busy)
            if kinds:
                longest = max(longest, float(np.max(np.broadcast_to(tile_latency_s(stream), (1, 2))[0, kinds])))
    for name, seconds in work.items():
        assert result.busy_s[name] == pytest.approx(seconds, rel=1e-12)
        assert result.latency_s >= seconds / random.resources[name].copies * (1 - 1e-12)
    assert longest * (1 - 1e-12) <= result.latency_s <= serial * (1 + 1e-12)
    timeline = result.phases[0].timeline
    assert timeline is not None
    for resource in range(len(result.phases[0].resources)):
        for copy in set(timeline.copy[timeline.resource == resource].tolist()):
            mine = (timeline.resource == resource) & (timeline.copy == copy)
            assert (timeline.start_s[mine][1:] >= timeline.end_s[mine][:-1]).all()
    again = simulate_events(random, record=True)
    assert again.latency_s == result.latency_s
    assert again.phases[0].timeline is not None
    np.testing.assert_array_equal(again.phases[0].timeline.start_s, timeline.start_s)


@settings(max_examples=100, deadline=None)
@given(st.lists(SECONDS, min_size=1, max_size=5), st.integers(0, 4), st.floats(0.0, 5.0), st.integers(1, 3))
def test_a_longer_step_never_shortens_a_pipeline_of_one_step_per_resource(
    times: list[float], place: int, more: float, depth: int
) -> None:
    """True where each resource serves one step in order. With shared resources anomalies exist (Graham 1969)."""

    def pipeline(seconds: Sequence[float]) -> float:
        last = f"s{len(seconds) - 1}"
        steps = [
            Step(f"s{k}", f"r{k}", busy, after=(After(f"s{k - 1}"),) if k else (After(last, depth),))
            for k, busy in enumerate(seconds)
        ]
        return latency_s(uniform("s", steps, 12))

    longer = list(times)
    longer[place % len(times)] += more
    assert pipeline(longer) >= pipeline(times) * (1 - 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_uniform_streams_reach_the_steady_state_of_loads_and_recurrences(data: st.DataObject) -> None:
    """A chain through a few buffers, one step per resource: n intervals, plus what a tile takes beyond one of them."""
    count, tiles = data.draw(st.integers(1, 5)), data.draw(st.integers(200, 600))
    depth = data.draw(st.integers(1, 4))
    steps = [
        Step(
            f"s{k}",
            f"r{k}",
            data.draw(st.floats(0.2, 2.0)),
            data.draw(st.floats(0.0, 1.0)),
            (After(f"s{k - 1}"),) if k else (After(f"s{count - 1}", depth),),
        )
        for k in range(count)
    ]
    stream = uniform("s", steps, tiles)
    interval = max([recurrence_s(stream).item(), *(float(np.max(step.busy_s)) for step in steps)])
    expected = interval * (tiles - 1) + tile_latency_s(stream).item()
    assert latency_s(stream) == pytest.approx(expected, rel=0.01)
    assert latency_s(replace(stream, hidden_fill=True)) == pytest.approx(interval * tiles, rel=0.01)


# --- extrapolation -----------------------------------------------------------------------------------------------

LOOP = (
    Step("load", "mem", 1.0, 0.5, (After("use", 2),)),
    Step("use", "mac", 2.0, 0.5, (After("load"),)),
    Step("store", "mem", 0.25, 0.0, (After("use"), After("store", 1))),
)


def both_ways(whole: TileProgram, budget: int) -> tuple[float, float]:
    full, part = simulate_events(whole), simulate_events(whole, max_tile_steps=budget)
    assert not full.extrapolated
    assert part.extrapolated
    assert part.simulated_tile_steps < full.simulated_tile_steps
    assert part.assumptions
    for name, seconds in full.busy_s.items():
        assert part.busy_s[name] == pytest.approx(seconds, rel=1e-9)
    return full.latency_s, part.latency_s


@pytest.mark.parametrize("hidden", [False, True])
def test_a_long_uniform_stream_is_extrapolated_from_its_pace(hidden: bool) -> None:
    full, part = both_ways(program(uniform("s", LOOP, 20_000, hidden_fill=hidden)), 4_000)
    assert part == pytest.approx(full, rel=1e-4)  # the steady part may end between two equal periods


def test_ten_billion_tiles_need_no_more_memory_than_a_few() -> None:
    def order(point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
        assert limit is not None, "all tiles were asked for"
        return np.tile(np.array([0, 0, 1], dtype=np.int32), limit // 3 + 1)[:limit]

    steps = (Step("a", "x", np.array([[1.0, 4.0]])), *LOOP)
    huge = Stream("s", steps, np.array([[2e10, 1e10]]), order)
    result = simulate_events(program(huge), max_tile_steps=100_000)
    small = Stream("s", steps, np.array([[2e4, 1e4]]), order_of([0, 0, 1] * 10_000))
    assert result.extrapolated
    assert result.latency_s == pytest.approx(1e6 * latency_s(small), rel=1e-3)


def test_classes_that_come_later_are_simulated_on_their_own() -> None:
    long = Stream(
        "s", (Step("a", "x", np.array([[1.0, 3.0]])),), np.array([[5e3, 5e3]]), order_of([0] * 5000 + [1] * 5000)
    )
    full, part = both_ways(program(long), 2_000)
    assert part == pytest.approx(full, rel=1e-6)


@pytest.mark.parametrize(("blocks", "slots"), [(100, 1), (101, 2), (133, 1), (1000, 2), (1001, 1)])
def test_long_grids_keep_their_waves_and_tail(blocks: int, slots: int) -> None:
    grid = uniform("grid", LOOP, 200, instances=blocks, slots=slots)
    full, part = both_ways(program(grid, mac=10, mem=10), 20_000)
    assert part == pytest.approx(full, rel=0.01)


def test_grids_that_contend_for_one_memory_are_extrapolated() -> None:
    steps = (Step("load", "dram", 0.3, after=(After("use", 2),)), Step("use", "core", 1.0, after=(After("load"),)))
    full, part = both_ways(program(uniform("grid", steps, 300, instances=64), core=4), 10_000)
    assert part == pytest.approx(full, rel=0.01)


def test_uneven_blocks_are_extrapolated_by_their_tiles() -> None:
    lengths = [[0] * (20 + 10 * (index % 7)) for index in range(700)]
    mean = sum(map(len, lengths)) / len(lengths)
    grid = Stream("grid", LOOP, np.array([[mean]]), order_of(*lengths), instances=700)
    full, part = both_ways(program(grid, mac=4, mem=4), 20_000)
    assert part == pytest.approx(full, rel=0.03)


def test_streams_side_by_side_are_extrapolated_until_each_has_ended() -> None:
    """The long stream takes 3 s a tile and does not care for x until the short one has ended, at 2 s a tile."""
    short = uniform("short", [Step("a", "x", 1.0, 1.0, (After("a", 1),))], 10_000)
    long = uniform("long", [Step("b", "x", 1.0, 2.0, (After("b", 1),))], 30_000)
    whole = program(short, long)
    full, part = both_ways(whole, 4_000)
    assert full == pytest.approx(90_000.0, rel=0.01)
    assert part == pytest.approx(full, rel=0.01)
    ends, parts = (simulate_events(whole, max_tile_steps=most).phases[0].stream_latency_s for most in (10**6, 4_000))
    assert ends[0] < 40_000
    assert parts[0] == pytest.approx(ends[0], rel=0.01)


def test_streams_that_share_a_resource_make_equal_progress() -> None:
    """The short stream does one tile of x for three of the long one's, so both end together; extrapolated too."""
    short, long = uniform("short", [Step("a", "x", 2.0)], 10_000), uniform("long", [Step("b", "x", 1.0)], 30_000)
    for most in (10**6, 4_000):
        phase = simulate_events(program(short, long), max_tile_steps=most).phases[0]
        assert phase.latency_s == pytest.approx(50_000.0, rel=0.01)
        assert phase.stream_latency_s[0] == pytest.approx(50_000.0, rel=0.01)


def test_a_short_phase_is_simulated_whole_beside_a_long_one() -> None:
    short, long = program(uniform("s", LOOP, 10)), program(uniform("s", LOOP, 100_000))
    result = simulate_events(replace(short, phases=(*short.phases, *long.phases)), max_tile_steps=10_000)
    assert [phase.extrapolated for phase in result.phases] == [False, True]
    assert result.phases[0].latency_s == simulate_events(short).latency_s
