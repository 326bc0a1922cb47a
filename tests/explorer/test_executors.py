"""Executors: the same results wherever batches run, and whoever is killed on the way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einsum.errors import EinsightError, SpecError
from explorer import executors
from explorer.executors import Cluster, InProcess, Processes
from explorer.running import Plan, choose_workers, run
from explorer.store import Store
from explorer.study import Study, Task

Ready = Callable[..., Plan]
Rows = dict[int, tuple[Any, ...]]
ROOT = Path(__file__).parents[2]
MANY = {"variables": {"W": [64, 128, 256], "buffer": ["1 KiB", "8 MiB", "16 MiB"], "L": [1024, 2048, 4096]}, "batch": 3}


def store_rows(planned: Plan, folder: Path, executor: Any, rows: Callable[[Store], Rows], at: Any = None) -> Rows:
    with Store.create(folder, planned.about(), planned.study.varying, tuple(planned.study.columns)) as store:
        run(planned, store, executor, at or (lambda progress: None))
        return rows(store)


def test_processes_find_what_one_process_finds(
    ready: Ready, tmp_path: Path, rows: Callable[[Store], Rows], swept: Callable[..., Rows]
) -> None:
    planned = ready(**MANY)
    with Processes(planned.study, 2) as executor:
        assert store_rows(planned, tmp_path, executor, rows) == swept(planned)


def test_a_killed_worker_process_costs_no_point(
    ready: Ready, tmp_path: Path, rows: Callable[[Store], Rows], swept: Callable[..., Rows]
) -> None:
    planned = ready(**MANY)
    struck: list[int] = []
    with Processes(planned.study, 2) as executor:

        def strike(progress: Any) -> None:
            if progress.added and not struck:
                struck.append(next(iter(executor._pool._processes)))
                os.kill(struck[0], signal.SIGKILL)

        assert store_rows(planned, tmp_path, executor, rows, strike) == swept(planned)
    assert struck


def _die(task: Task) -> None:
    os._exit(9)


def test_workers_that_always_die_end_the_sweep_with_a_sentence(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = ready(**MANY)
    monkeypatch.setattr(executors, "_evaluate_here", _die)
    with (
        Processes(planned.study, 1) as executor,
        pytest.raises(EinsightError, match="killed again and again, perhaps for want of memory"),
    ):
        list(executor.run([Task(0, np.arange(1), planned.points.inputs(np.arange(1)))]))


def test_workers_end_with_their_parent(ready: Ready, tmp_path: Path) -> None:
    program = (
        "import os, time; from explorer.executors import Processes\n"
        "def work():\n"
        "    executor = Processes(None, 1)\n"
        "    print(executor._pool.submit(os.getpid).result(), flush=True); time.sleep(60)\n"
        "if __name__ == '__main__': work()\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(program, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(worker)


def _runs(process: int) -> bool:
    """Whether a process runs still; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="ascii").split(")")[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """The address of a scheduler on loopback, and its two workers: three processes."""
    pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    module = [sys.executable, "-m"]
    quiet: dict[str, Any] = {"cwd": ROOT, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    quiet["env"] = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_TEMPORARY_DIRECTORY": str(tmp_path)}
    host, port = address.removeprefix("tcp://").split(":")
    scheduler = subprocess.Popen(
        [*module, "distributed.cli.dask_scheduler", "--host", host, "--port", port, "--no-dashboard"], **quiet
    )
    workers = [
        subprocess.Popen(
            [*module, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"],
            **quiet,
        )
        for _ in range(2)
    ]
    yield address, workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait()


def test_a_cluster_finds_what_one_process_finds_though_a_worker_is_killed(
    ready: Ready,
    tmp_path: Path,
    rows: Callable[[Store], Rows],
    swept: Callable[..., Rows],
    cluster: tuple[str, list[subprocess.Popen[bytes]]],
) -> None:
    address, workers = cluster
    planned = ready(**{**MANY, "batch": 1})
    struck: list[int] = []
    with Cluster(planned.study, address) as executor:
        executor._client.wait_for_workers(2, timeout=30)

        def strike(progress: Any) -> None:
            if progress.added > 10 and not struck:
                struck.append(progress.added)
                workers[0].kill()

        assert store_rows(planned, tmp_path, executor, rows, strike) == swept(planned)
        assert 10 < struck[0] < 54
        assert len(executor._client.nthreads()) == 1


def test_a_scheduler_that_is_not_there_is_one_sentence(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "_ANSWER_S", 0.3)
    with pytest.raises(SpecError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        Cluster(ready().study, "tcp://127.0.0.1:9")
    with pytest.raises(SpecError, match="no Dask scheduler answers at nowhere:port"):
        Cluster(ready().study, "nowhere:port")


def test_without_dask_the_sentence_says_what_to_install(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SpecError, match=r"pip install 'einsight\[cluster\]'"):
        Cluster(ready().study, "tcp://127.0.0.1:9")


def test_processes_are_started_where_they_pay(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explorer.running.processors", lambda: 4)
    assert choose_workers(ready(), None) == 1
    assert choose_workers(ready(batch=1), None) == 4
    assert choose_workers(ready(fidelity="event", batch=12), None) == 2
    assert choose_workers(ready(batch=1), 3) == 3
    study = ready().study
    assert isinstance(study, Study)
    assert list(InProcess(study).run([])) == []
