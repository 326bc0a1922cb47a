"""Executors: where batches are evaluated. In this process, in several on this machine, or on a Dask cluster.

Each takes batches as it needs them and gives back what came out in any order. What a batch comes to does not depend on
where it was evaluated.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace
from functools import partial
from multiprocessing import connection, get_context, parent_process
from typing import Any, Protocol, Self

from einsum.errors import EinsightError, SpecError
from explorer.identity import model_version
from explorer.study import Outcome, Study, Task, evaluate

AHEAD = 2
"""Batches that each worker has: one in work and one waiting, so that it never idles."""
LOSSES = 3
"""Times that workers may be lost in a row, without a single batch done in between, before a sweep gives up."""
_ANSWER_S = 10.0
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h> of glibc
_KEPT_ARRAY_BYTES = 32 << 20  # the largest that glibc takes
_KEPT_BYTES = 512 << 20
_GONE = (OSError, TimeoutError, asyncio.CancelledError, CancelledError)
_WORKERS_S = 30.0


class Executor(Protocol):
    """Evaluates batches of a study."""

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """What came out of each task, in any order; tasks are taken when there is room for them."""

    def close(self) -> None:
        """End all that was started."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class _Closing:
    """Closes itself at the end of a `with` statement."""

    def close(self) -> None:
        """End all that was started."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class InProcess(_Closing):
    """One batch after another, in this process."""

    def __init__(self, study: Study) -> None:
        self._study = study
        keep_memory()

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """What came out of each task, in order."""
        for task in tasks:
            yield evaluate(self._study, task)


class Processes(_Closing):
    """Several processes of this machine. One that is killed costs its batches' time, not their results."""

    def __init__(self, study: Study, workers: int) -> None:
        self._study = study
        self._workers = workers
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        # New interpreters rather than forks: no thread, lock or open database is copied.
        return ProcessPoolExecutor(
            self._workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(self._study,)
        )

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """What came out of each task. Raises EinsightError when processes are killed again and again."""
        source = iter(tasks)
        pending: dict[Future[Outcome], Task] = {}
        lost = 0
        while True:
            while len(pending) < AHEAD * self._workers and (task := next(source, None)):
                pending[self._pool.submit(_evaluate_here, task)] = task
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            try:
                for future in done:
                    outcome = future.result()
                    del pending[future]
                    lost = 0
                    yield outcome
            except BrokenProcessPool:
                lost += 1
                if lost == LOSSES:
                    raise EinsightError(
                        "worker processes are killed again and again, perhaps for want of memory: choose fewer workers "
                        "or a smaller batch; what is stored stays"
                    ) from None
                self._pool.shutdown(cancel_futures=True)
                self._pool = self._start()
                pending = {self._pool.submit(_evaluate_here, task): task for task in pending.values()}

    def close(self) -> None:
        """Stop the processes without waiting for their batches."""
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


_study: list[Study] = []


def _begin(study: Study) -> None:
    """Prepare a worker process: it leaves interrupts to its parent, and ends when the parent is gone."""
    keep_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _study[:] = [study]
    parent = parent_process()
    assert parent is not None

    def follow(sentinel: int) -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=follow, args=(parent.sentinel,), daemon=True).start()


def _evaluate_here(task: Task) -> Outcome:
    return evaluate(_study[0], task)


class Cluster(_Closing):
    """The workers of a Dask scheduler. Batches of a worker that is lost go to others."""

    def __init__(self, study: Study, address: str) -> None:
        """Connect to the scheduler at `address`. Raises SpecError when none answers or it has no workers."""
        self._address = address
        self._client = _connect(address)
        self._study = study

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """What came out of each task. Raises EinsightError when the scheduler or all workers are lost."""
        from distributed import wait as wait_for

        source = iter(tasks)
        pending: dict[Any, Task] = {}
        lost = 0
        while True:
            room = AHEAD * max(1, sum(self._guarded(self._client.nthreads).values()))
            while len(pending) < room and (task := next(source, None)):
                pending[self._submit(task)] = task
            if not pending:
                return
            futures = list(pending)
            for future in self._guarded(partial(wait_for, futures, return_when="FIRST_COMPLETED")).done:
                task = pending.pop(future)
                # A result that was lost with its worker after it was done is computed again while this waits.
                error = self._guarded(future.exception)
                if error is None:
                    outcome = self._guarded(future.result)
                    self._check_version(outcome)
                    lost = 0
                    yield outcome
                else:
                    lost = self._count_loss(lost, error)
                    pending[self._submit(task)] = task

    def _submit(self, task: Task) -> Any:
        return self._guarded(partial(self._client.submit, _evaluate_at_worker, self._study, task, pure=False))

    def _count_loss(self, lost: int, error: BaseException) -> int:
        from distributed import KilledWorker

        if isinstance(error, _GONE):
            raise self._gone()
        if not isinstance(error, KilledWorker):
            raise EinsightError(f"a worker of {self._address} failed: {type(error).__name__}: {error}")
        if lost + 1 == LOSSES:
            raise EinsightError(f"the workers of {self._address} are lost again and again; what is stored stays")
        return lost + 1

    def _check_version(self, outcome: Outcome) -> None:
        if outcome.version != self._study.version:
            raise EinsightError(f"the workers of {self._address} have another version of Einsight's model installed")

    def _guarded(self, call: Callable[[], Any]) -> Any:
        """The value of a call to the scheduler, or one sentence when it is gone."""
        try:
            return call()
        except _GONE:
            raise self._gone() from None

    def _gone(self) -> EinsightError:
        return EinsightError(
            f"the scheduler at {self._address} is gone; what is stored stays, and the same command continues"
        )

    def close(self) -> None:
        """Take leave of the scheduler; its workers stay."""
        self._client.close(timeout=2)


def _evaluate_at_worker(study: Study, task: Task) -> Outcome:
    return replace(evaluate(study, task), version=model_version())


def _connect(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        message = "a sweep over a cluster needs Dask distributed: pip install 'einsight[cluster]'"
        raise SpecError(message, key="--scheduler") from None
    import logging

    # What Dask reports of lost workers is handled here.
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=_ANSWER_S)
    except (OSError, TimeoutError, ValueError) as error:
        reason = "" if isinstance(error, OSError | TimeoutError) else f" ({error})"
        raise SpecError(f"no Dask scheduler answers at {address}{reason}", key="--scheduler") from None
    try:
        client.wait_for_workers(1, timeout=_WORKERS_S)
    except TimeoutError:
        client.close()
        raise SpecError(f"the scheduler at {address} has no workers", key="--scheduler") from None
    return client


def keep_memory() -> None:
    """Have the C library keep the memory of arrays that are done with, for the next ones.

    Otherwise glibc hands it back to the system and asks for it again with every batch, which takes a third of the time.
    Elsewhere nothing happens.
    """
    import ctypes

    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(_M_MMAP_THRESHOLD, _KEPT_ARRAY_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
