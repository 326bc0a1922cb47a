"""The results store: one SQLite file, one row for each point, whole batches or nothing.

Tables: `about` (what the results are of), `batches` (who works on which, and which are done), `points` (number, key,
varying inputs, quantities, whether the constraints hold, and the error of a point that failed), `mappings` (number of a
point, the mapping that was found for it as YAML).
A process claims a batch before it evaluates it and stores all its points in the transaction that marks it done. So a
process may be killed at any moment: its claims fall to others, or to the next run, and no point is stored twice.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.errors import EinsightError, SpecError
from explorer.owners import Owner, alive, others
from explorer.points import Cells
from explorer.study import Outcome

FILE = "results.sqlite"
_WAIT_S = 120.0
_ROWS = 100_000


class Store:
    """The results of one sweep in a folder. Use it in a `with` statement."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._connection = connection
        self._owner: Owner | None = None

    @staticmethod
    def create(folder: Path, about: Mapping[str, Any], inputs: Sequence[str], columns: Sequence[str]) -> Store:
        """Open the store in `folder` for a sweep, and make it if there is none.

        about    what the results are of; its "identity" has to be equal to that of a store that is there already
        inputs   inputs that vary
        columns  quantities

        Raises SpecError for a store of another sweep, and where nothing can be stored.
        """
        with _explained(folder):
            store = Store(folder, _connect(folder / FILE))
            try:
                with store._transaction():
                    if not store._about_exists():
                        store._make(about, inputs, columns)
                found = store.about()
                for name, expected in about["identity"].items():
                    if found["identity"].get(name) != expected:
                        raise SpecError(_DIFFERENT[name].format(found["name"]), file=str(folder))
                store._owner = Owner(folder)
                with store._transaction():
                    store._connection.execute("UPDATE about SET document = ?", [json.dumps(dict(about))])
            except BaseException:
                store.close()
                raise
        return store

    @staticmethod
    def open(folder: str | Path) -> Store:
        """Open the store in a folder to read it. Raises SpecError where there is none."""
        path = Path(folder) / FILE
        if not path.is_file():
            raise SpecError(f"holds no results of a sweep: there is no {FILE}", file=str(folder))
        with _explained(Path(folder)):
            store = Store(Path(folder), _connect(path))
            if store._about_exists():
                return store
            store.close()
        raise SpecError(f"holds no results of a sweep: {FILE} is empty", file=str(folder))

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back the claims of this process and close the file."""
        with suppress(sqlite3.Error):
            if self._owner:
                with self._transaction():
                    self._connection.execute("DELETE FROM batches WHERE owner = ? AND NOT done", [self._owner.name])
        self._connection.close()
        if self._owner:
            self._owner.close()
            self._owner = None

    def _about_exists(self) -> bool:
        found = self._connection.execute("SELECT name FROM sqlite_master WHERE name = 'about'").fetchone()
        return found is not None

    def _make(self, about: Mapping[str, Any], inputs: Sequence[str], columns: Sequence[str]) -> None:
        names = ", ".join(_quoted(name) for name in (*inputs, *columns))
        execute = self._connection.execute
        execute("CREATE TABLE about (document TEXT NOT NULL)")
        execute("CREATE TABLE batches (number INTEGER PRIMARY KEY, owner TEXT NOT NULL, done INTEGER NOT NULL)")
        execute(
            f"CREATE TABLE points (point INTEGER PRIMARY KEY, key BLOB NOT NULL, {names}, feasible INTEGER, error TEXT)"
        )
        execute("CREATE TABLE mappings (point INTEGER PRIMARY KEY, document TEXT NOT NULL)")
        execute("INSERT INTO about VALUES (?)", [json.dumps(dict(about))])

    def about(self) -> dict[str, Any]:
        """What the results are of."""
        document = json.loads(self._connection.execute("SELECT document FROM about").fetchone()[0])
        assert isinstance(document, dict)
        return document

    def done(self) -> set[int]:
        """Numbers of the batches that are done."""
        return {number for (number,) in self._connection.execute("SELECT number FROM batches WHERE done")}

    def claim(self, batch: int) -> bool:
        """Whether this process may evaluate a batch: nobody else does, and nobody has."""
        with _explained(self.folder):
            assert self._owner, "a store that was opened to be read claims nothing"
            mine = self._owner.name
            with self._transaction():
                added = self._connection.execute("INSERT OR IGNORE INTO batches VALUES (?, ?, 0)", [batch, mine])
                if added.rowcount == 1:
                    return True
            row = self._connection.execute("SELECT owner, done FROM batches WHERE number = ?", [batch]).fetchone()
            if row is None or row[1] or alive(self.folder, row[0]):
                return False
            with self._transaction():
                taken = self._connection.execute(
                    "UPDATE batches SET owner = ? WHERE number = ? AND owner = ? AND NOT done", [mine, batch, row[0]]
                )
                return taken.rowcount == 1

    def commit(self, outcome: Outcome) -> None:
        """Store the points of a batch that this process has claimed. Raises EinsightError when the disk is full."""
        task = outcome.task
        cells = [values.tolist() for values in (*task.inputs.values(), *outcome.columns.values())]
        rows = zip(task.points.tolist(), outcome.keys, *cells, outcome.feasible, outcome.errors, strict=True)
        # Inputs may come in another order than the table's columns.
        names = ["point", "key", *task.inputs, *outcome.columns, "feasible", "error"]
        places = ", ".join("?" * len(names))
        with _explained(self.folder), self._transaction():
            marked = self._connection.execute("UPDATE batches SET done = 1 WHERE number = ? AND NOT done", [task.batch])
            if marked.rowcount == 1:
                columns = ", ".join(map(_quoted, names))
                self._connection.executemany(f"INSERT INTO points ({columns}) VALUES ({places})", rows)
                self._connection.executemany("INSERT INTO mappings VALUES (?, ?)", outcome.mappings.items())

    def finish(self) -> None:
        """Make the index by which a point is found by its key, which also proves that no key occurs twice."""
        with _explained(self.folder), self._transaction():
            self._connection.execute("CREATE UNIQUE INDEX IF NOT EXISTS points_by_key ON points (key)")

    def names(self) -> tuple[str, ...]:
        """The columns of the table of points."""
        return tuple(row[1] for row in self._connection.execute("PRAGMA table_info(points)"))

    def count(self, condition: str = "1") -> int:
        """Number of points that satisfy an SQL condition."""
        count = self._connection.execute(f"SELECT count(*) FROM points WHERE {condition}").fetchone()[0]
        assert isinstance(count, int)
        return count

    def mapping(self, point: int) -> str:
        """The mapping that was found for a point, as YAML. Raises SpecError where there is none."""
        with _explained(self.folder):
            found = self._connection.execute("SELECT document FROM mappings WHERE point = ?", [point]).fetchone()
            if found is not None:
                return str(found[0])
            stored = self._connection.execute("SELECT error FROM points WHERE point = ?", [point]).fetchone()
        if stored is None:
            raise SpecError(
                f"there is no point {point:,} among the {self.count():,} stored ones", file=str(self.folder)
            )
        why = f"it failed: {stored[0]}" if stored[0] else "its mapping was given, not found"
        raise SpecError(f"no mapping was found for point {point:,}; {why}", file=str(self.folder))

    def failures(self, most: int) -> list[tuple[int, str]]:
        """How many points failed with each error, the most frequent first."""
        query = "SELECT count(*), error FROM points WHERE error IS NOT NULL GROUP BY error ORDER BY 1 DESC, 2 LIMIT ?"
        return [(int(count), str(text)) for count, text in self._connection.execute(query, [most])]

    def read(
        self, names: Sequence[str], condition: str = "1", points: NDArray[np.int64] | None = None
    ) -> dict[str, Cells]:
        """Columns by name, in the order of the points; numbers as float64 with NaN for none, anything else as objects.

        condition  in SQL, or `points`: numbers of the points wanted
        """
        parts = list(self.chunks(names, condition, points))
        return {name: _joined([part[place] for part in parts]) for place, name in enumerate(names)}

    def chunks(
        self, names: Sequence[str], condition: str = "1", points: NDArray[np.int64] | None = None
    ) -> Iterator[list[tuple[Any, ...]]]:
        """Columns of stored points, some rows at a time: for each column a tuple of values."""
        if points is not None:
            self._connection.execute("CREATE TEMP TABLE IF NOT EXISTS wanted (point INTEGER PRIMARY KEY)")
            with self._transaction():
                self._connection.execute("DELETE FROM wanted")
                self._connection.executemany("INSERT INTO wanted VALUES (?)", ((int(point),) for point in points))
            condition = "point IN (SELECT point FROM wanted)"
        columns = ", ".join(map(_quoted, names))
        cursor = self._connection.execute(f"SELECT {columns} FROM points WHERE {condition} ORDER BY point")
        while rows := cursor.fetchmany(_ROWS):
            yield list(zip(*rows, strict=True))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise


_DIFFERENT = {
    "sweep": "holds the results of another sweep, '{}'; choose another folder, or --force to put them aside",
    "descriptions": "the descriptions that '{}' uses have changed since its first points were stored; choose another "
    "folder, or --force to put the old results aside",
    "version": "the results of '{}' were made by another version of Einsight's model; choose another folder, or "
    "--force to put them aside",
}
"""What to say of a store whose identity differs in one of its parts."""


def put_aside(folder: Path) -> Path | None:
    """Rename the results in a folder, so that new ones can be stored; the new name, or None where there are none.

    Raises SpecError while another process works on them.
    """
    path = folder / FILE
    if not path.exists():
        return None
    if others(folder):
        raise SpecError("another process is at work on the results here; wait until it ends", file=str(folder))
    with _explained(folder):
        connection = _connect(path)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode=DELETE")
        connection.close()
        number = next(n for n in range(1, 1_000_000) if not path.with_stem(f"{path.stem}-{n}").exists())
        return path.rename(path.with_stem(f"{path.stem}-{number}"))


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None)
    # A log beside the file lets others read while one writes. With NORMAL a killed process costs nothing that was
    # committed; a power failure may cost the last batches, which are then evaluated again.
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA cache_size=-65536")
    return connection


def _joined(parts: Sequence[Sequence[Any]]) -> Cells:
    """One column from its parts; it holds text or numbers throughout, but for what is missing."""
    first = next((value for part in parts for value in part if value is not None), None)
    kind = object if isinstance(first, str | bytes) else np.float64
    return np.concatenate([np.array(part, dtype=kind) for part in parts]) if parts else np.empty(0, dtype=kind)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


_FULL = "the disk is full; all earlier batches are stored, and the same command continues once there is space"


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn errors of SQLite and of the operating system into one sentence."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "full" in text or "disk I/O" in text:
            raise EinsightError(_FULL, file=str(folder)) from None
        raise SpecError(f"{FILE} cannot be used: {text}", file=str(folder)) from None
    except OSError as error:
        raise EinsightError(f"cannot be written: {(error.strerror or str(error)).lower()}", file=str(folder)) from None
