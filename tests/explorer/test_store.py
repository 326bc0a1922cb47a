"""The results store: claims, killed processes, full disks, folders of other sweeps, export."""

from __future__ import annotations

import csv
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einsum.errors import EinsightError, SpecError
from explorer import identity, store
from explorer.executors import InProcess
from explorer.export import export
from explorer.owners import Owner, alive
from explorer.running import Plan, run
from explorer.store import FILE, Store, put_aside
from explorer.study import Task, evaluate

Ready = Callable[..., Plan]
Rows = dict[int, tuple[Any, ...]]
ROOT = Path(__file__).parents[2]

SPEC = """
sweep: killed
mapping: fusemax-binding
workload: bert-base
variables:
  W: {from: 8, to: 128, step: 16}
  buffer: {from: 8 MiB, to: 32 MiB, step: 8 MiB}
  dram_bandwidth: {from: 25 GiB/s, to: 400 GiB/s, step: 25 GiB/s}
constraints: [energy_j < 1]
batch: 24
"""


def create(folder: Path, planned: Plan) -> Store:
    return Store.create(folder, planned.about(), planned.study.varying, tuple(planned.study.columns))


def command(spec: Path, out: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "einsight", "sweep", str(spec), "--out", str(out), *options]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "killed.yaml"
    path.write_text(SPEC, encoding="utf-8")
    return path


def whole(folder: Path) -> list[tuple[Any, ...]]:
    """Everything in a finished store's table of points, read by SQLite itself."""
    connection = sqlite3.connect(folder / FILE)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM batches WHERE NOT done").fetchone() == (0,)
        return connection.execute("SELECT * FROM points ORDER BY point").fetchall()
    finally:
        connection.close()


def killed_and_resumed(spec: Path, folder: Path, moments: list[float], *options: str) -> int:
    """Start the sweep and kill it after each of `moments`, then let it end; how often it was killed at work."""
    struck = 0
    for moment in moments:
        process = subprocess.Popen(command(spec, folder, *options), cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            struck += 1
        process.kill()
        process.wait()
    subprocess.run(command(spec, folder, *options), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return struck


def killed_equals_undisturbed(spec: Path, tmp_path: Path, kills: int, *options: str) -> None:
    start = time.perf_counter()
    subprocess.run(command(spec, tmp_path / "undisturbed"), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    took_s = time.perf_counter() - start
    rng = random.Random(7)
    moments = sorted(rng.uniform(0.2, max(0.9 * took_s, 0.5)) for _ in range(kills))
    struck = killed_and_resumed(spec, tmp_path / "killed", moments, *options)
    assert struck >= kills / 2
    assert whole(tmp_path / "killed") == whole(tmp_path / "undisturbed")


def test_a_sweep_that_was_killed_ends_like_one_that_was_not(spec: Path, tmp_path: Path) -> None:
    killed_equals_undisturbed(spec, tmp_path, 2)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--workers", "2")], ids=["in process", "processes"])
def test_killed_at_twenty_random_moments(spec: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    killed_equals_undisturbed(spec, tmp_path, 20, *options)


def test_two_processes_on_one_folder_repeat_nothing(spec: Path, tmp_path: Path) -> None:
    both = [
        subprocess.Popen([*command(spec, tmp_path / "both"), "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    added = []
    for process in both:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        added.append(int(out.split('"added": ')[1].split(",")[0]))
    subprocess.run(command(spec, tmp_path / "alone"), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    assert sum(added) == len(whole(tmp_path / "alone"))
    assert whole(tmp_path / "both") == whole(tmp_path / "alone")


def test_an_owner_lives_as_long_as_its_process(tmp_path: Path) -> None:
    program = (
        "import time; from pathlib import Path; from explorer.owners import Owner\n"
        f"owner = Owner(Path({str(tmp_path)!r})); print(owner.name, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    name = process.stdout.readline().strip()
    assert alive(tmp_path, name)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not alive(tmp_path, name)
    own = Owner(tmp_path)
    assert alive(tmp_path, own.name)
    own.close()
    assert not alive(tmp_path, own.name)


def test_a_batch_has_one_owner_until_that_one_is_gone(ready: Ready, tmp_path: Path) -> None:
    planned = ready()
    with create(tmp_path, planned) as second:
        with create(tmp_path, planned) as first:
            assert first.claim(0) and first.claim(1)
            assert not second.claim(0)
            first.commit(evaluate(planned.study, _task(planned, 0)))
        assert not second.claim(0)
        assert second.claim(1)


def _task(planned: Plan, batch: int) -> Task:
    points = np.arange(batch * 5, batch * 5 + 5)
    return Task(batch, points, planned.points.inputs(points))


def test_a_full_disk_is_one_sentence_and_costs_nothing_that_was_stored(
    ready: Ready, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swept: Callable[..., Rows]
) -> None:
    planned = ready(variables={"W": list(range(8, 248)), "L": [4096]}, mapping="fusemax-binding", batch=20)
    connect = store._connect

    def small_disk(path: Path) -> sqlite3.Connection:
        connection = connect(path)
        connection.execute("PRAGMA max_page_count = 6")
        return connection

    with monkeypatch.context() as patched:
        patched.setattr(store, "_connect", small_disk)
        with pytest.raises(EinsightError, match="the disk is full") as caught:
            swept(planned, folder=tmp_path)
        assert caught.value.file == str(tmp_path)
    with create(tmp_path, planned) as kept:
        assert 0 < kept.count() < 240 and kept.count() == 20 * len(kept.done())
    assert swept(planned, folder=tmp_path) == swept(planned)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variables": {"W": [64]}}, "the results of another sweep, 'small'"),
        ({"columns": {"latency": {"value": "2 * latency_s"}}}, "another sweep"),
        ({"constraints": ["W < 128"]}, "another sweep"),
        ({"batch": 6}, "another sweep"),
    ],
)
def test_a_folder_of_another_sweep_is_refused(
    ready: Ready, tmp_path: Path, swept: Callable[..., Rows], changes: dict[str, Any], message: str
) -> None:
    before = swept(ready(), folder=tmp_path)
    with pytest.raises(SpecError, match=message):
        swept(ready(**{"objectives": ["latency"], **changes}), folder=tmp_path)
    assert swept(ready(), folder=tmp_path) == before


def test_titles_and_objectives_may_change_afterwards(ready: Ready, tmp_path: Path, swept: Callable[..., Rows]) -> None:
    before = swept(ready(), folder=tmp_path)
    assert swept(ready(objectives=["energy"], description="changed"), folder=tmp_path) == before
    with Store.open(tmp_path) as found:
        assert found.about()["objectives"] == [{"minimize": "energy"}]


def test_changed_descriptions_and_another_version_are_noticed(
    ready: Ready, tmp_path: Path, swept: Callable[..., Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = tmp_path / "w.yaml"
    text = "workload: w\nvariables: {B: 1, L: 1024, P: L, M: L, H: 1, E: 64, F: E}\n"
    workload.write_text(text, encoding="utf-8")
    swept(ready(workload=str(workload)), folder=tmp_path)
    workload.write_text("# the same\n" + text, encoding="utf-8")
    swept(ready(workload=str(workload)), folder=tmp_path)
    workload.write_text(text.replace("H: 1", "H: 2"), encoding="utf-8")
    with pytest.raises(SpecError, match="the descriptions that 'small' uses have changed"):
        swept(ready(workload=str(workload)), folder=tmp_path)
    workload.write_text(text, encoding="utf-8")
    monkeypatch.setattr("explorer.preparation.model_version", lambda: "another")
    with pytest.raises(SpecError, match="another version of Einsight's model"):
        swept(ready(workload=str(workload)), folder=tmp_path)
    assert len(identity.model_version()) == 16


def test_results_are_put_aside_not_lost(ready: Ready, tmp_path: Path, swept: Callable[..., Rows]) -> None:
    swept(ready(), folder=tmp_path)
    aside = put_aside(tmp_path)
    assert aside == tmp_path / "results-1.sqlite"
    swept(ready(batch=6), folder=tmp_path)
    assert put_aside(tmp_path) == tmp_path / "results-2.sqlite"
    assert put_aside(tmp_path) is None
    assert len(sqlite3.connect(aside).execute("SELECT * FROM points").fetchall()) == 24


def test_results_that_are_in_use_are_not_put_aside(ready: Ready, tmp_path: Path) -> None:
    with create(tmp_path, ready()), pytest.raises(SpecError, match="another process is at work"):
        put_aside(tmp_path)
    assert put_aside(tmp_path)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="holds no results of a sweep"):
        Store.open(tmp_path)
    (tmp_path / FILE).write_text("this is no database " * 100)
    with pytest.raises(SpecError, match=r"results\.sqlite cannot be used: file is not a database"):
        Store.open(tmp_path)


def test_a_point_counts_by_its_values(ready: Ready) -> None:
    study = ready().study

    def key(**changes: Any) -> bytes:
        inputs = {"mapping": "fusemax-binding", "W": 64, "L": 1024, **changes}
        return study.keys({name: np.array([value]) for name, value in inputs.items()})[0]

    same = [key(), key(W=64.0)]
    different = [key(W=65), key(L=1025), key(W=1024, L=64), key(mapping="fusemax-architecture")]
    assert len({*same, *different}) == 5
    inputs = {"mapping": np.array(["fusemax-binding"]), "W": np.array([64]), "L": np.array([1024])}
    assert ready(set={"H": 3}).study.keys(inputs)[0] not in same


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_exported_points_are_all_there(ready: Ready, tmp_path: Path, ending: str) -> None:
    planned = ready(variables={"W": [64, 128], "buffer": ["1 KiB", "16 MiB"]})
    path = tmp_path / f"points.{ending}"
    with create(tmp_path, planned) as made:
        run(planned, made, InProcess(planned.study))
        export(made, path)
        names, expected = made.names(), [row for part in made.chunks(made.names()) for row in zip(*part, strict=True)]
    if ending == "csv":
        with path.open(newline="", encoding="utf-8") as stream:
            found: list[dict[str, Any]] = list(csv.DictReader(stream))
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        found = parquet.read_table(path).to_pylist()
    assert len(found) == len(expected) == 8
    for row, values in zip(found, expected, strict=True):
        assert row["workload"] == "bert-base"
        wanted = dict(zip(names, values, strict=True))
        assert row["key"] == wanted["key"].hex()
        for name in ("point", "W", "buffer", "latency", "energy"):
            assert (float(row[name]) if row[name] not in ("", None) else None) == wanted[name]
        assert (row["error"] or None) == wanted["error"]
    with create(tmp_path, planned) as made, pytest.raises(SpecError, match=r"expected a name that ends in \.csv or \.parquet"):
        export(made, tmp_path / "points.xlsx")
