"""Tiles of a phase that the rows of a trace give: rows become tile classes.

A tile is one query of one head. Rows in which everything that the stages read is equal make one class (two where
several queries share a head's keys: the first, which loads them, and the others). Rows that the `serial` columns tell
apart run one after another; those of the same tiles are one group that is repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from einsum.errors import EinsightError, SpecError, nearest
from einsum.expressions import Expression, closed, resolve
from mappings.plan import PlanPhase
from mappings.program import Array, Step
from mappings.stage_steps import RowError, same_classes, stage_expressions
from mappings.tile_group import TileGroup
from workloads import HeadTrace

FIRST = "first_query"
"""Name of the flag of the tiles that are a head's first query."""


@dataclass(frozen=True)
class RowOrder:
    """The sequence of tile classes of a phase: row by row, head by head, the first query and then the others.

    first, other    class of a head's first query and of its other ones, (rows,)
    heads, queries  how many, (points, rows)
    """

    first: NDArray[np.intp]
    other: NDArray[np.intp]
    heads: Array
    queries: Array

    def __call__(self, point: int, instance: int, limit: int | None = None) -> NDArray[np.int32]:
        """Class of each tile in execution order, or of the first `limit` tiles."""
        heads, queries = (values[point].astype(np.int64) for values in (self.heads, self.queries))
        if limit is not None:
            before = np.cumsum(heads * queries) - heads * queries
            left = np.maximum(limit - before, 0)
            heads = np.minimum(heads, -(-left // np.maximum(queries, 1)))
            queries = np.minimum(queries, limit)
        row = np.repeat(np.arange(heads.size), heads)
        classes = np.stack([self.first[row], self.other[row]], axis=1).reshape(-1)
        tiles = np.stack([np.ones_like(row), queries[row] - 1], axis=1).reshape(-1)
        return np.repeat(classes, tiles)[:limit].astype(np.int32)


def trace_columns(trace: HeadTrace) -> dict[str, Array]:
    """The columns that expressions may use."""
    return {**trace.columns, **trace.layer_columns()}


class TraceClasses:
    """The rows of a trace with the values of all names, the tile classes that they fall into, and their groups.

    definitions  variables as expressions of the columns, of `given` and of each other
    given        values of sizes and settings: numbers, text, or (points, 1)

    SpecError for a row that does not meet the phase's requirements.
    """

    def __init__(
        self,
        trace: HeadTrace,
        phase: PlanPhase,
        definitions: Mapping[str, Expression],
        given: Mapping[str, Any],
        points: int,
    ) -> None:
        assert phase.rows is not None
        self.trace, self.phase, self.rows, self.points = trace, phase, phase.rows, points
        self.columns = trace_columns(trace)
        self.definitions, self.given = definitions, given
        env = self._environment({**self.columns, FIRST: np.ones(len(trace))})
        self.first: NDArray[np.intp]
        self.other: NDArray[np.intp]
        self._require(env)
        self.heads = self._whole(self.rows.heads, env, "heads", 0)
        self.queries = self._whole(self.rows.queries, env, "queries", 1)
        self._classify()
        first = np.repeat([1.0, 0.0], [self.kinds, self.classes - self.kinds])
        chosen = {name: np.resize(cells[self.example], self.classes) for name, cells in self.columns.items()}
        self.env = self._environment({**chosen, FIRST: first})

    def refused(self, error: RowError) -> SpecError:
        """The error with the row that it is about."""
        wrong: NDArray[np.bool_] = np.asarray(error.wrong.any(axis=0))
        row = int(np.argmax(wrong[self.first] | wrong[self.other]))
        return SpecError(f"row {row + 1}: {error.sentence}", file=self.trace.file)

    def groups(self, steps: Sequence[Step]) -> Iterator[TileGroup]:
        """The rows that run together, in the trace's order, given all steps at every class."""
        stands_for = same_classes(steps)
        all_first, all_other = stands_for[self.first], stands_for[self.other]
        found: dict[tuple[bytes, bytes], tuple[TileGroup, int]] = {}
        for name, rows in self._together():
            first, other = all_first[rows], all_other[rows]
            heads, queries = self.heads[:, rows], self.queries[:, rows]
            appearing = np.stack([first, other], axis=1).reshape(-1)
            used = appearing[np.sort(np.unique(appearing, return_index=True)[1])]
            place = np.empty(self.classes, dtype=np.intp)
            place[used] = np.arange(used.size)
            counts = np.zeros((self.points, used.size))
            np.add.at(counts.T, place[first], heads.T)
            np.add.at(counts.T, place[other], (heads * (queries - 1)).T)
            ranked = np.argsort(used)
            key = (used[ranked].tobytes(), counts[:, ranked].tobytes())
            if key in found:
                found[key] = (found[key][0], found[key][1] + 1)
            else:
                found[key] = (TileGroup(name, used, counts, RowOrder(place[first], place[other], heads, queries)), 1)
        for group, times in found.values():
            yield replace(group, repeat=np.full(self.points, times, dtype=np.float64))

    def _together(self) -> Iterator[tuple[str, NDArray[np.intp]]]:
        """Rows that run together, named by their values in the serial columns."""
        unknown = next((name for name in self.rows.serial if name not in self.columns), None)
        if unknown is not None:
            raise SpecError(f"unknown column '{unknown}'{nearest(unknown, self.columns)}", key="rows.serial")
        if not self.rows.serial:
            yield self.phase.phase, np.arange(len(self.trace))
            return
        table = np.stack([self.columns[name] for name in self.rows.serial], axis=1)
        values, start, group = np.unique(table, axis=0, return_index=True, return_inverse=True)
        members = np.split(np.argsort(group.reshape(-1), kind="stable"), np.cumsum(np.bincount(group.reshape(-1)))[:-1])
        for index in np.argsort(start):
            named = zip(self.rows.serial, values[index], strict=True)
            yield ", ".join(f"{name} {value:g}" for name, value in named), members[index]

    def _classify(self) -> None:
        """Rows that agree in every column that a stage reads fall into one class."""
        read = sorted(_closure(stage_expressions(self.phase.stages), self.definitions) & self.columns.keys())
        table = np.stack([self.columns[name] for name in read] or [np.zeros(len(self.trace))], axis=1)
        _values, self.example, kind = np.unique(table, axis=0, return_index=True, return_inverse=True)
        self.kinds = len(self.example)
        shared = bool((self.queries > 1).any())
        self.classes = self.kinds * 2 if shared else self.kinds
        self.first = kind.reshape(-1)
        self.other = self.first + self.kinds if shared else self.first

    def _environment(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        given = {**self.given, **{name: np.asarray(cells)[np.newaxis, :] for name, cells in columns.items()}}
        return resolve(closed(self.definitions, given), given)

    def _require(self, env: Mapping[str, Any]) -> None:
        for place, requirement in enumerate(self.phase.require):
            try:
                unmet = requirement.unmet(env, (self.points, len(self.trace)))
            except EinsightError as error:
                raise error.located(key=f"require[{place}].that") from None
            if unmet is not None:
                raise SpecError(f"row {unmet[0] + 1}: {unmet[1]}", file=self.trace.file)

    def _whole(self, expression: Expression, env: Mapping[str, Any], key: str, least: int) -> Array:
        """Numbers of tiles, (points, rows); SpecError names the first row where one is no whole number."""
        try:
            found = np.asarray(expression.evaluate(env), dtype=np.float64)
        except EinsightError as error:
            raise error.located(key=f"rows.{key}") from None
        spread = np.broadcast_to(found, (self.points, len(self.trace)))
        wrong = ~((spread >= least) & (spread % 1 == 0)).all(axis=0)
        self.trace.refuse(wrong, f"{key} '{expression}' must be a whole number of at least {least}")
        return spread


def _closure(expressions: Iterable[Expression], definitions: Mapping[str, Expression]) -> set[str]:
    """All names that the values of expressions depend on."""
    found: set[str] = set()
    waiting = [name for expression in expressions for name in expression.names]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += definitions[name].names if name in definitions else ()
    return found
