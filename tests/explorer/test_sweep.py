"""Sweep files and running them: what is read, what is refused, what comes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from einsum.errors import EinsightError, SpecError
from explorer.executors import InProcess
from explorer.running import Plan, run
from explorer.store import Store
from explorer.study import Outcome, Task, evaluate
from explorer.sweep import Draw, Evolution, Grid, Sweep
from simulator.simulate import simulate

Ready = Callable[..., Plan]
Swept = Callable[..., dict[int, tuple[Any, ...]]]

FILE = """
sweep: small
mapping: fusemax-binding
variables:
  W: {from: 64, to: 128, step: 64}
zips:
  - {buffer: [8 MiB, 16 MiB], workload: [bert-base, xlm]}
set: {L: 64Ki}
constraints: [W * 2 <= 256]
sampler: {kind: sobol, points: 10, seed: 3}
"""


def load(folder: Path, text: str) -> Sweep:
    path = folder / "sweep.yaml"
    path.write_text(text, encoding="utf-8")
    return Sweep.load(path)


def test_a_file_says_what_varies_and_what_does_not(tmp_path: Path) -> None:
    sweep = load(tmp_path, FILE)
    assert sweep.space().names == ("buffer", "workload", "W")
    assert sweep.space().size == 4
    assert sweep.fixed()["L"] == 65536
    assert sweep.sampler == Draw(kind="sobol", points=10, seed=3)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("grid", Grid), ("{points: 9, kind: evolutionary}", Evolution), ("{kind: latin-hypercube, points: 4}", Draw)],
)
def test_samplers_by_name(tmp_path: Path, text: str, kind: type) -> None:
    text = FILE.replace("{kind: sobol, points: 10, seed: 3}", text) + "objectives: [latency_s]\n"
    assert isinstance(load(tmp_path, text).sampler, kind)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("variables:", "varables:", "unknown field 'varables' .did you mean 'variables'"),
        ("to: 128", "too: 128", r"variables.W: unknown field 'too' .did you mean 'to'"),
        ("[8 MiB, 16 MiB]", "[8 MiB]", "zips.0.: lists that change together need the same length"),
        ("buffer:", "W:", "'W' stands in variables already"),
        ("set: {L", "set: {mapping", "'mapping' chooses a description"),
        ("mapping: fusemax-binding", "", "the field 'mapping' is missing"),
        ("kind: sobol", "kind: sobl", "sampler"),
        ("kind: sobol, ", "kind: evolutionary, ", "an evolutionary search needs objectives"),
        ("step: 64", "continuous: true, step: 64", "no step and no count"),
        ("{from: 64, to: 128, step: 64}", "[]", "variables.W: the list is empty"),
        ("{from: 64, to: 128, step: 64}", "{from: 128, to: 64}", "the range is empty"),
        ("W * 2 <= 256", "'W * <= 256'", "constraints.0.*column 5"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence_with_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in FILE
    with pytest.raises(SpecError, match=message) as caught:
        load(tmp_path, FILE.replace(old, new, 1))
    assert str(caught.value).startswith(str(tmp_path / "sweep.yaml"))
    assert "\n" not in str(caught.value)


def test_a_continuous_range_is_no_grid() -> None:
    data = {"sweep": "s", "mapping": "flat", "variables": {"W": {"from": 1, "to": 2, "continuous": True}}}
    with pytest.raises(SpecError, match="a grid needs a step or a count"):
        Sweep.parse(data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variables": {"Width": [1]}}, "unknown variable 'Width'"),
        ({"mapping": "fusemax-bindin"}, "did you mean 'fusemax-binding'"),
        ({"constraints": ["latncy <= 3"]}, "unknown input or result 'latncy' .* .did you mean 'latency'"),
        ({"constraints": ["W > 1024"]}, "no point of the space satisfies 'W > 1024'"),
        ({"constraints": ["W > 200", "W < 100"]}, "together"),
        ({"columns": {"x": {"value": "2 * energy_jj"}}, "objectives": []}, "did you mean 'energy_j'"),
        ({"columns": {"w": {"value": "cycles"}}, "objectives": []}, "differ in case only"),
        ({"columns": {"key": {"value": "cycles"}}, "objectives": []}, "the store's own"),
        ({"columns": {"energy_j": {"value": "2 * cycles"}}, "objectives": []}, "is a result of the simulator already"),
        (
            {"mapping": "flat", "variables": {"L": [65536]}, "columns": {"x": {"value": "area_mm2"}}, "objectives": []},
            "the area is not known",
        ),
        ({"objectives": ["limit"]}, "'limit' is text"),
        ({"constraints": ["bound_by == 3"]}, "constraints: text is compared with a number"),
        ({"objectives": ["latecny"]}, "did you mean 'latency'"),
        ({"columns": {}, "objectives": ["latency_ss"]}, "did you mean 'latency_s'"),
    ],
)
def test_names_that_mean_nothing_are_refused_before_anything_runs(
    ready: Ready, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        ready(**changes)


def test_every_point_is_what_the_simulator_says_of_it_alone(ready: Ready, swept: Swept) -> None:
    found = swept(ready())
    expected = [
        (mapping, W, L)
        for mapping in ("fusemax-architecture", "fusemax-binding")
        for W in (64, 128, 256)
        for L in (1024, 2048, 4096, 8192)
    ]
    assert [row[1:4] for row in found.values()] == expected
    for _, mapping, W, L, latency, energy, limit, feasible, error in found.values():
        alone = simulate(mapping=mapping, workload="bert-base", settings={"W": W, "L": L})
        assert latency == pytest.approx(float(alone.latency_s[0]), rel=1e-12)
        assert energy == pytest.approx(float(alone.energy_j[0]), rel=1e-12)
        assert (limit, feasible, error) == (str(alone.bound_by[0]), 1, None)


def test_constraints_on_results_mark_points(ready: Ready, swept: Swept) -> None:
    found = swept(ready(constraints=["energy <= 20", "W >= 128"]))
    assert {row[2] for row in found.values()} == {128, 256}
    assert {row[7] for row in found.values()} == {0, 1}
    assert all((row[5] <= 20) == bool(row[7]) for row in found.values())


def test_without_columns_the_usual_ones_are_stored(ready: Ready) -> None:
    planned = ready(columns={}, objectives=[])
    assert {"latency_s", "energy_j", "traffic_bytes.DRAM.total.read", "utilization.array_2d", "bound_by"} <= set(
        planned.study.columns
    )
    assert planned.study.columns["area_mm2"].dimension == "count"
    assert [objective.name for objective in planned.objectives] == ["latency_s", "energy_j"]


def test_a_result_that_only_some_designs_have_is_empty_for_the_others(ready: Ready, swept: Swept) -> None:
    changes = {"cascade": None, "mapping": ["unfused", "fusemax-binding"], "objectives": []}
    found = swept(ready(**changes, columns={"x": {"value": "traffic_bytes.DRAM.QK.read"}}))
    assert {row[1]: row[4] is None for row in found.values()} == {"unfused": False, "fusemax-binding": True}


BAD = {"variables": {"W": [64, 256], "buffer": ["1 KiB", "64 KiB", "16 MiB"], "L": [1024, 4096]}}


def test_points_that_fail_are_found_and_cost_the_others_nothing(ready: Ready, swept: Swept) -> None:
    planned = ready(**BAD, batch=36)
    found = swept(planned)
    for key, mapping, W, buffer, L, latency, _, _, feasible, error in found.values():
        settings = {"W": W, "buffer": buffer, "L": L}
        try:
            alone = simulate(mapping=mapping, workload="bert-base", settings=settings)
        except EinsightError as failure:
            assert error.split(":")[0] == str(failure).split(":")[0]
            assert (latency, feasible) == (None, None)
        else:
            assert (latency, error) == (pytest.approx(float(alone.latency_s[0])), None)
        assert len(key) == 16
    failed = [row for row in found.values() if row[-1]]
    assert 0 < len(failed) < len(found)
    assert not any("design point" in row[-1] for row in failed)


def test_results_do_not_depend_on_the_batches(ready: Ready, swept: Swept) -> None:
    one, few, all_ = (swept(ready(**BAD, batch=batch)) for batch in (1, 7, 1000))
    assert list(one) == list(few) == list(all_)
    for point, row in one.items():
        for other in (few[point], all_[point]):
            # Sums over tile classes may be taken in another order, which changes the last bit.
            assert (row[:5], row[7:]) == (other[:5], other[7:])
            assert row[5] is other[5] is None or row[5:7] == pytest.approx(other[5:7], rel=1e-13)


class _Counting(InProcess):
    """Counts evaluations, and stops after some."""

    def __init__(self, planned: Plan, stop: int) -> None:
        super().__init__(planned.study)
        self.planned, self.stop, self.points = planned, stop, 0

    def run(self, tasks: Any) -> Any:
        for task in tasks:
            if self.points >= self.stop:
                raise KeyboardInterrupt
            self.points += len(task.points)
            yield evaluate(self.planned.study, task)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampler": {"kind": "sobol", "points": 20}},
        {"sampler": {"kind": "evolutionary", "points": 40, "population": 8}},
    ],
    ids=["grid", "sobol", "evolutionary"],
)
def test_a_sweep_that_was_stopped_goes_on_and_repeats_nothing(
    ready: Ready, swept: Swept, tmp_path: Path, changes: dict[str, Any]
) -> None:
    planned, folder = ready(**changes), tmp_path / "stopped"
    whole = swept(planned)
    begun, rest = _Counting(planned, 7), _Counting(planned, 10**6)
    with pytest.raises(KeyboardInterrupt):
        swept(planned, begun, folder)
    assert swept(planned, rest, folder) == whole
    assert begun.points >= 7 and begun.points + rest.points == len(whole)
    again = _Counting(planned, 0)
    assert swept(planned, again, folder) == whole


def test_an_evolutionary_search_beats_as_many_random_points(ready: Ready, swept: Swept) -> None:
    # A thousand million points, of which only B = H = L = 700 is best.
    value = "abs(B - 700) + abs(H - 700) + abs(L - 700) + 0 * latency_s"
    changes: dict[str, Any] = {
        "mapping": "fusemax-binding",
        "variables": {name: {"from": 1, "to": 1024} for name in "BHL"},
        "columns": {"miss": {"value": value}},
        "objectives": ["miss"],
        "constraints": ["B + H >= 100"],
        "batch": 64,
    }
    searched = swept(ready(**changes, sampler={"kind": "evolutionary", "points": 1200, "population": 40, "seed": 1}))
    drawn = swept(ready(**changes, sampler={"kind": "sobol", "points": 1200, "seed": 1}))
    least = [min(row[4] for row in rows.values()) for rows in (searched, drawn)]
    assert least[0] < least[1] / 3
    assert all(row[1] + row[2] >= 100 for row in searched.values())


def test_event_fidelity_agrees_with_the_event_simulator(ready: Ready, swept: Swept) -> None:
    found = swept(ready(mapping="fusemax-binding", fidelity="event", variables={"W": [128], "L": [1024, 2048]}))
    for _, W, L, latency, *_ in found.values():
        alone = simulate(mapping="fusemax-binding", workload="bert-base", settings={"W": W, "L": L}, fidelity="event")
        assert latency == pytest.approx(float(alone.latency_s[0]), rel=1e-12)


def test_two_runs_share_the_work(ready: Ready, tmp_path: Path, rows: Callable[[Store], Any], swept: Swept) -> None:
    planned = ready()
    with Store.create(tmp_path, planned.about(), planned.study.varying, tuple(planned.study.columns)) as other:
        assert other.claim(1) and other.claim(2)
        inputs = [np.arange(batch * 5, batch * 5 + 5) for batch in (1, 2)]

        class Meanwhile(InProcess):
            """Has the other one finish its batches while this one waits for them."""

            def run(self, tasks: Any) -> Any:
                batches = []
                for outcome in super().run(tasks):
                    batches.append(outcome.task.batch)
                    yield outcome
                assert batches in ([0, 3, 4], [])
                if batches:
                    for batch, points in zip((1, 2), inputs, strict=True):
                        other.commit(_evaluated(planned, batch, points))

        with Store.create(tmp_path, planned.about(), planned.study.varying, tuple(planned.study.columns)) as store:
            run(planned, store, Meanwhile(planned.study))
            assert rows(store) == swept(planned)


def _evaluated(planned: Plan, batch: int, points: NDArray[np.int64]) -> Outcome:
    assert not isinstance(planned.points, Evolution)
    return evaluate(planned.study, Task(batch, points, planned.points.inputs(points)))


def test_files_that_a_sweep_names_lie_beside_it() -> None:
    """The example names its cascade and mapping as they stand beside it, from wherever it is read."""
    example = Path(__file__).parents[2] / "docs/examples/sigmoid-attention"
    sweep = Sweep.load(example / "sweep.yaml")
    assert (sweep.cascade, sweep.mapping) == (str(example / "cascade.yaml"), str(example / "mapping.yaml"))
