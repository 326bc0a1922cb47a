"""Sweeps whose points are mapped one by one: what is found, stored, refused, and what a hand would get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simulator.mapper
from einsum.cascade import Cascade
from einsum.errors import SpecError
from explorer.executors import Executor, InProcess, Processes
from explorer.experiment import Experiment, run_experiment
from explorer.mapped import Find
from explorer.running import Plan, known_results, plan, run
from explorer.sampling import Sample
from explorer.store import Store
from explorer.sweep import Sweep
from mappings import Mapping
from mappings.search import Cost, find
from simulator.simulate import simulate

MAPPED: dict[str, Any] = {
    "sweep": "mapped",
    "cascade": "attention-3pass",
    "architecture": "flat-cloud",
    "mapping": {"find": "dram"},
    "set": {"B": 1, "H": 2, "E": 16, "F": 16, "M": 64},
    "variables": {"P": [32, 64], "buffer": ["2 KiB", "32 KiB"]},
    "columns": {
        "latency": {"value": "latency_s", "dimension": "s"},
        "energy": {"value": "energy_j", "dimension": "j"},
        "moved": {"value": "traffic_bytes.DRAM.total.read + traffic_bytes.DRAM.total.write"},
        "scores": {"value": "traffic_bytes.DRAM.QK.read"},
        "exact": {"value": "found.exact"},
    },
    "objectives": ["latency", "energy"],
}
SIZES = {"B": 1, "H": 2, "E": 16, "F": 16, "M": 64}
Rows = dict[int, dict[str, Any]]


def mapped(**changes: Any) -> Plan:
    return plan(Sweep.parse({**MAPPED, **changes}))


def swept(ready: Plan, folder: Path, executor: Executor | None = None) -> tuple[Rows, dict[int, str]]:
    """The stored points by number, and the mappings that were found for them."""
    folder.mkdir(exist_ok=True)
    with Store.create(folder, ready.about(), ready.study.varying, tuple(ready.study.columns)) as store:
        run(ready, store, executor or InProcess(ready.study))
        names = store.names()
        rows = [dict(zip(names, row, strict=True)) for part in store.chunks(names) for row in zip(*part, strict=True)]
        documents = {row["point"]: store.mapping(row["point"]) for row in rows if found_there(store, row["point"])}
    return {row["point"]: row for row in rows}, documents


def found_there(store: Store, point: int) -> bool:
    try:
        return bool(store.mapping(point))
    except SpecError:
        return False


def by_hand(objective: Any, settings: dict[str, Any], **models: Any) -> tuple[Any, Any]:
    """What the mapper finds for one point by itself, and what the simulator says of that."""
    models = {"cascade": "attention-3pass", "architecture": "flat-cloud", "workload": None, **models}

    def evaluate(mapping: Mapping) -> Cost:
        result = simulate(mapping=mapping, settings=settings, **models)
        moved = result.traffic_bytes["DRAM"]["total"]
        return Cost(result.latency_s.item(), result.energy_j.item(), moved["read"].item() + moved["write"].item())

    found = find(**models, objective=objective, settings=settings, evaluate=evaluate)
    return found, simulate(mapping=found.mapping, settings=settings, **models)


@pytest.mark.parametrize("objective", ["dram", "edp"])
def test_every_point_is_what_map_and_simulate_say_of_it_alone(tmp_path: Path, objective: str) -> None:
    rows, documents = swept(mapped(mapping={"find": objective}), tmp_path)
    assert len(rows) == len(documents) == 4
    for number, row in rows.items():
        settings = {**SIZES, "P": row["P"], "buffer": row["buffer"]}
        found, alone = by_hand(objective, settings)
        assert row["latency"] == pytest.approx(alone.latency_s.item(), rel=1e-12)
        assert row["energy"] == pytest.approx(alone.energy_j.item(), rel=1e-12)
        total = alone.traffic_bytes["DRAM"]["total"]
        assert row["moved"] == pytest.approx(total["read"].item() + total["write"].item(), rel=1e-12)
        assert row["exact"] == found.exact
        # The stored mapping is an ordinary one: read back, it costs the same.
        again = simulate("attention-3pass", "flat-cloud", Mapping.parse(documents[number]), settings=settings)
        assert again.latency_s.item() == row["latency"]


def test_a_tensor_that_stays_on_chip_moves_nothing(tmp_path: Path) -> None:
    planned = mapped(variables={"P": [64], "buffer": ["512 B", "32 KiB"]})
    rows, documents = swept(planned, tmp_path)
    for number, row in rows.items():
        result = simulate(
            "attention-3pass", "flat-cloud", Mapping.parse(documents[number]),
            settings={**SIZES, "P": row["P"], "buffer": row["buffer"]},
        )  # fmt: skip
        scores = result.traffic_bytes["DRAM"].get("QK", {"read": np.zeros(1)})["read"]
        assert row["scores"] == scores.item()
    assert {row["scores"] > 0 for row in rows.values()} == {True, False}


def test_a_point_without_a_mapping_is_a_result_with_its_reason(tmp_path: Path) -> None:
    """In a batch of four, each failure costs itself alone."""
    planned = mapped(variables={"buffer": [4, "32 KiB"], "P": [32, 64]}, batch=4)
    rows, documents = swept(planned, tmp_path)
    assert [row["error"] is None for row in rows.values()] == [False, False, True, True]
    assert "no mapping of cascade 'attention-3pass' fits into L3 (4 bytes)" in rows[0]["error"]
    assert rows[0]["latency"] is None and list(documents) == [2, 3]
    with Store.open(tmp_path) as store, pytest.raises(SpecError, match="no mapping was found for point 0; it failed"):
        store.mapping(0)


def test_every_point_is_mapped_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = mapped(variables={"buffer": [4, "32 KiB"], "P": [32, 64]}, batch=4)
    calls = counted(monkeypatch)
    swept(planned, tmp_path)
    assert len(calls) == 4


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The settings of each call of the mapper from now on."""
    calls: list[Any] = []
    original = simulator.mapper.find_mapping

    def counting(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments[4])
        return original(*arguments, **options)

    monkeypatch.setattr(simulator.mapper, "find_mapping", counting)
    return calls


def test_a_stopped_sweep_goes_on_with_the_points_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = mapped()
    whole = swept(planned, tmp_path / "whole")
    folder = tmp_path / "stopped"
    folder.mkdir()

    def stop(progress: Any) -> None:
        if progress.added == 2:
            raise KeyboardInterrupt

    with Store.create(folder, planned.about(), planned.study.varying, tuple(planned.study.columns)) as store:
        with pytest.raises(KeyboardInterrupt):
            run(planned, store, InProcess(planned.study), stop)
        assert store.count() == 2
    calls = counted(monkeypatch)
    assert swept(planned, folder) == whole
    assert len(calls) == 2


def test_other_processes_find_the_same(tmp_path: Path) -> None:
    planned = mapped(mapping={"find": "edp"})
    with Processes(planned.study, 2) as executor:
        assert swept(planned, tmp_path / "two", executor) == swept(planned, tmp_path / "one")


MIXED: dict[str, Any] = {
    "cascade": "attention-1pass",
    "architecture": "fusemax",
    "workload": "bert-base",
    "set": {"B": 1},
    "variables": {"W": [64], "L": [256, 512]},
    "columns": {name: MAPPED["columns"][name] for name in ("latency", "energy", "exact")},
}


def test_mappings_by_hand_and_found_ones_stand_in_one_table(tmp_path: Path) -> None:
    both, found = swept(mapped(**MIXED, mapping=["fusemax-binding", {"find": "dram", "issue": "serial"}]), tmp_path)
    assert [row["mapping"] for row in both.values()] == ["fusemax-binding"] * 2 + ["find dram (issue serial)"] * 2
    assert list(found) == [2, 3]
    for row in list(both.values())[:2]:
        alone = simulate(mapping="fusemax-binding", workload="bert-base", settings={"B": 1, "W": 64, "L": row["L"]})
        assert row["latency"] == pytest.approx(alone.latency_s.item(), rel=1e-12)
        assert row["exact"] is None
    assert both[2]["exact"] == 1


def test_mappings_change_together_with_other_inputs(tmp_path: Path) -> None:
    changes = {**MIXED, "variables": {"L": [256]}}
    zips = [{"mapping": ["fusemax-binding", {"find": "dram"}], "W": [64, 128]}]
    together = Sweep.parse({**{k: v for k, v in MAPPED.items() if k != "mapping"}, **changes, "zips": zips})
    rows, found = swept(plan(together), tmp_path)
    assert [(row["mapping"], row["W"]) for row in rows.values()] == [("fusemax-binding", 64), ("find dram", 128)]
    assert list(found) == [1]


def test_a_masked_cascade_is_mapped_under_its_mask(tmp_path: Path) -> None:
    causal = Cascade.load("attention-3pass").with_condition("m <= p")
    causal.save(tmp_path / "causal.yaml")
    sizes = {"B": 1, "H": 2, "E": 4, "F": 4, "M": 12, "P": 12}
    planned = mapped(cascade=str(tmp_path / "causal.yaml"), set=sizes, variables={"buffer": ["1 KiB"]})
    row = swept(planned, tmp_path / "out")[0][0]
    found, alone = by_hand("dram", {**sizes, "buffer": 1024}, cascade=causal)
    assert row["latency"] == pytest.approx(alone.latency_s.item(), rel=1e-12)
    assert row["moved"] == pytest.approx(found.dram_bytes)


def test_a_cascade_that_the_mapper_refuses_fails_with_its_sentence(tmp_path: Path) -> None:
    models = {"cascade": "attention-sparf", "workload": "opt-13b"}
    columns = {"latency": {"value": "latency_s"}}
    planned = mapped(**models, set={}, variables={"W": [16, 32]}, columns=columns, objectives=["latency"])
    with pytest.raises(SpecError, match="known only at run time") as alone:
        by_hand("dram", {"W": 16}, **models)
    rows, documents = swept(planned, tmp_path)
    assert [row["error"] for row in rows.values()] == [str(alone.value)] * 2 and not documents


def test_linear_layers_are_added_to_a_mapping_that_was_found(tmp_path: Path) -> None:
    find_it = {"find": "dram", "linear_layers": "matmul-output-stationary"}
    changes = {
        "workload": "bert-base",
        "set": {"B": 1, "W": 128},
        "variables": {"L": [256]},
        "end_to_end": [False, True],
    }
    rows, documents = swept(mapped(mapping=find_it, **changes), tmp_path)
    attention, layer = rows.values()
    assert layer["latency"] > attention["latency"]
    alone = simulate(
        "attention-3pass", "flat-cloud", Mapping.parse(documents[1]), "bert-base", {"B": 1, "W": 128, "L": 256},
        end_to_end=True,
    )  # fmt: skip
    assert layer["latency"] == alone.latency_s.item()


def test_events_play_the_mapping_that_was_found(tmp_path: Path) -> None:
    planned = mapped(fidelity="event", variables={"P": [32]}, set={**SIZES, "W": 16})
    rows, documents = swept(planned, tmp_path)
    settings = {**SIZES, "W": 16, "P": 32}
    alone = simulate(
        "attention-3pass", "flat-cloud", Mapping.parse(documents[0]), settings=settings, fidelity="event"
    )  # fmt: skip
    assert rows[0]["latency"] == alone.latency_s.item()


def test_how_a_mapping_is_found_is_part_of_a_points_identity() -> None:
    dram, hidden = mapped(), mapped(mapping={"find": "dram", "fill_drain": "hidden"})
    assert isinstance(dram.points, Sample)
    inputs = dram.points.inputs(np.arange(4))
    assert set(dram.study.keys(inputs)).isdisjoint(hidden.study.keys(inputs))
    assert dram.identity()["descriptions"] != hidden.identity()["descriptions"]
    assert str(Find.model_validate({"find": "edp"})) == "find edp"


def test_an_experiment_may_find_its_mappings() -> None:
    data = {
        "experiment": "mapped",
        "runs": [{**{k: MAPPED[k] for k in ("cascade", "architecture")}, "mapping": [{"find": "dram"}],
                  "set": {**SIZES, "P": [32, 64]}}],
        "columns": {"latency": {"value": "latency_s"}, "what": {"value": "found.description"}},
    }  # fmt: skip
    points = run_experiment(Experiment.model_validate(data)).points
    for P, latency in zip((32, 64), points.column("latency").tolist(), strict=True):
        assert latency == pytest.approx(by_hand("dram", {**SIZES, "P": P})[1].latency_s.item(), rel=1e-12)
    assert points.column("mapping").tolist() == ["find dram"] * 2


def test_the_results_that_there_are_can_be_listed() -> None:
    listed = known_results(Sweep.parse({**MAPPED, "columns": {"x": {"value": "no_such_result"}}, "objectives": []}))
    assert {"latency_s", "traffic_bytes.L3.AV.write", "found.exact", "bound_by"} <= listed.keys()
    assert "found.mapping" not in listed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mapping": {"find": "latncy"}}, r"mapping.find: unknown objective 'latncy' .did you mean 'latency'"),
        ({"mapping": {"find": "pareto"}}, "a point has one mapping"),
        ({"mapping": {"fnd": "edp"}}, r"unknown field 'fnd' .did you mean 'find'"),
        ({"mapping": [{"find": "edp", "issue": "serail"}]}, r"mapping\[0\].issue: expected 'chained' or 'serial'"),
        ({"mapping": [{"find": "edp"}, {"find": "edp"}]}, "mapping: the value find edp is listed twice"),
        ({"cascade": None}, "cascade: a mapping that is found names no cascade"),
        ({"architecture": None}, "architecture: a mapping that is found names no architecture"),
        ({"variables": {"P0": [1]}}, "unknown variable 'P0'"),
        ({"set": {}}, "nothing gives the sizes"),
        ({"end_to_end": True}, "end_to_end needs the mapping of the linear layers"),
        ({"variables": {"P": [{"find": "edp"}, 3]}}, "variables.P"),
        ({"zips": [{"W": [{"find": "edp"}, 3]}]}, "a mapping is found for the input 'mapping' only, not for 'W'"),
        ({"mapping": {"find": "dram"}, "columns": {"x": {"value": "found.exct"}}, "objectives": []}, "'found.exact'"),
        ({"columns": {"x": {"value": "dram_bytes"}}, "objectives": []}, "`einsight sweep FILE --results` lists them"),
        ({"front": {"by": ["M"]}}, r"front.by\[0\]: 'M' is no input that varies"),
        ({"front": {"by": ["P"]}, "objectives": []}, "no front without objectives"),
        ({"front": {"bye": ["P"]}}, r"front: unknown field 'bye' .did you mean 'by'"),
    ],
)
def test_what_cannot_be_found_is_said_before_anything_runs(changes: dict[str, Any], message: str) -> None:
    from pydantic import ValidationError

    from einsum.specfile import pydantic_error

    with pytest.raises(SpecError, match=message):
        try:
            mapped(**changes)
        except ValidationError as error:
            raise pydantic_error(error, None, Sweep) from None
