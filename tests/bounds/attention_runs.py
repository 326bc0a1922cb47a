"""Attention schedules executed word by word on a `Machine`: the meaning of the closed forms in `bounds`.

Addresses are ("q", i, l), ("k", j, l), ("v", j, l), ("o", i, l), ("s", i, j), and ("m", i), ("z", i), ("a", i) for
a row's running maximum, sum and rescaling factor. Rows are stacked queries; `keys[i]` lists the keys of row i. With
`plain` there is no softmax: the scores are used as they are and rows have no statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf

import numpy as np

from tests.bounds.machine import Machine


class Attention:
    """One problem on a machine: inputs in slow memory, the pattern, and the steps that schedules share."""

    def __init__(
        self, q, k, v, keys: Sequence[Sequence[int]], capacity: float, plain: bool = False, shared: int = 0
    ) -> None:
        self.shared = shared
        self.q, self.k, self.v, self.keys, self.plain = q, k, v, [list(row) for row in keys], plain
        slow = {("q", i, x): q[i, x] for i in range(len(q)) for x in range(q.shape[1])}
        slow |= {(n, j, x): a[j, x] for n, a in (("k", k), ("v", v)) for j in range(len(a)) for x in range(a.shape[1])}
        self.machine = Machine(slow, capacity)
        self.d, self.dv = q.shape[1], v.shape[1]
        self.rows, self.columns = len(q), len(k)

    # Words of a column; the first `shared` of its value are those of its key

    def value(self, j: int, x: int) -> tuple:
        return ("k" if x < self.shared else "v", j, x)

    def column(self, j: int) -> list[tuple]:
        return [("k", j, x) for x in range(self.d)] + [("v", j, x) for x in range(self.shared, self.dv)]

    # What is needed

    def row_tiles(self, size: int) -> list[list[int]]:
        return [list(range(a, min(a + size, self.rows))) for a in range(0, self.rows, size)]

    def needed(self, rows: Sequence[int]) -> list[int]:
        return sorted({j for i in rows for j in self.keys[i]})

    def users(self, columns: Sequence[int]) -> list[int]:
        return [i for i in range(self.rows) if set(self.keys[i]) & set(columns)]

    def pairs(self, rows: Sequence[int], columns: Sequence[int]) -> list[tuple[int, int]]:
        return [(i, j) for i in rows for j in columns if j in self.keys[i]]

    # Steps

    def scores(self, rows, columns, hold_q=False, hold_k=False) -> None:
        """s = q k for a tile; what is not resident comes by columns of l, the shorter side held, the other streamed."""
        m, pairs = self.machine, self.pairs(rows, columns)
        for i, j in pairs:
            m["s", i, j] = 0.0
        for x in range(self.d):
            if hold_q or hold_k:
                held, streamed = [], [("k", j, x) for j in columns] if hold_q else [("q", i, x) for i in rows]
            else:
                sides = [("q", i, x) for i in rows], [("k", j, x) for j in columns]
                held, streamed = sorted(sides, key=len)
            m.load(*held)
            for word in streamed:
                m.load(word)
                for i, j in pairs:
                    if word in (("q", i, x), ("k", j, x)):
                        m["s", i, j] = m["s", i, j] + m["q", i, x] * m["k", j, x]
                m.drop(word)
            m.drop(*held)

    def begin(self, rows) -> None:
        for i in rows:
            if not self.plain:
                self.machine["m", i], self.machine["z", i] = -inf, 0.0

    def softmax_step(self, i, columns, rescaled=()) -> float:
        """Turn row i's scores of these columns into weights; rescale the outputs given; return the factor used."""
        m, mine = self.machine, [j for j in columns if j in self.keys[i]]
        if self.plain:
            return 1.0
        new = max([m["m", i], *(m["s", i, j] for j in mine)])
        factor = exp(m["m", i] - new) if m["m", i] > -inf else 0.0
        for word in rescaled:
            m[word] = m[word] * factor
        for j in mine:
            m["s", i, j] = exp(m["s", i, j] - new)
        m["z", i] = m["z", i] * factor + sum(m["s", i, j] for j in mine)
        m["m", i] = new
        return factor

    def finish(self, i, x) -> None:
        if not self.plain:
            self.machine["o", i, x] = self.machine["o", i, x] / self.machine["z", i]

    def end(self, rows) -> None:
        if not self.plain:
            self.machine.drop(*[(n, i) for i in rows for n in ("m", "z")])

    def drop_scores(self, rows, columns) -> None:
        self.machine.drop(*[("s", i, j) for i, j in self.pairs(rows, columns)])

    def result(self) -> np.ndarray:
        assert not self.machine.fast, "words are left behind"
        return np.array([[self.machine.slow["o", i, x] for x in range(self.dv)] for i in range(self.rows)])


def chunks(items: Sequence[int], size: int) -> list[list[int]]:
    return [list(items[a : a + size]) for a in range(0, len(items), size)]


def row_tiles(run: Attention, height: int, width: int, hold_q: bool, hold_o: bool) -> None:
    m = run.machine
    for rows in run.row_tiles(height):
        outputs = [("o", i, x) for i in rows for x in range(run.dv)]
        run.begin(rows)
        if hold_q:
            m.load(*[("q", i, x) for i in rows for x in range(run.d)])
        if hold_o:
            for word in outputs:
                m[word] = 0.0
        parts = chunks(run.needed(rows), width)
        for number, columns in enumerate(parts):
            run.scores(rows, columns, hold_q=hold_q)
            for i in rows:
                mine = [("o", i, x) for x in range(run.dv)] if hold_o else []
                factor = run.softmax_step(i, columns, mine)
                if not hold_o:
                    m["a", i] = factor
            if hold_o:
                for j in columns:
                    for x in range(run.dv):
                        m.load(("v", j, x))
                        for i, _ in run.pairs(rows, [j]):
                            m["o", i, x] = m["o", i, x] + m["s", i, j] * m["v", j, x]
                        m.drop(("v", j, x))
            else:
                _outputs_by_columns(run, rows, columns, number == 0, number == len(parts) - 1)
                m.drop(*[("a", i) for i in rows])
            run.drop_scores(rows, columns)
        if hold_o:
            for word in outputs:
                run.finish(word[1], word[2])
            m.store(*outputs)
            m.drop(*outputs)
        if hold_q:
            m.drop(*[("q", i, x) for i in rows for x in range(run.d)])
        run.end(rows)


def _outputs_by_columns(run: Attention, rows, columns, first, last) -> None:
    """o = a o + p v, one output column at a time; `first` and `last`: of all rows, or of each."""
    m = run.machine
    of = (lambda flag, i: flag[i]) if isinstance(first, dict) else (lambda flag, i: flag)

    def fetch(i, x):
        if of(first, i):
            m["o", i, x] = 0.0
        else:
            m.load(("o", i, x))
            m["o", i, x] = m["o", i, x] * m["a", i]

    def put_back(i, x):
        if of(last, i):
            run.finish(i, x)
        m.store(("o", i, x))
        m.drop(("o", i, x))

    for x in range(run.dv):
        if len(rows) <= len(columns):
            for i in rows:
                fetch(i, x)
            for j in columns:
                m.load(("v", j, x))
                for i, _ in run.pairs(rows, [j]):
                    m["o", i, x] = m["o", i, x] + m["s", i, j] * m["v", j, x]
                m.drop(("v", j, x))
            for i in rows:
                put_back(i, x)
        else:
            m.load(*[("v", j, x) for j in columns])
            for i in rows:
                fetch(i, x)
                for _, j in run.pairs([i], columns):
                    m["o", i, x] = m["o", i, x] + m["s", i, j] * m["v", j, x]
                put_back(i, x)
            m.drop(*[("v", j, x) for j in columns])


def column_tiles(run: Attention, height: int, width: int, hold_k: bool, hold_v: bool) -> None:
    m = run.machine
    tiles = chunks(range(run.columns), width)
    visits = {i: [b for b, columns in enumerate(tiles) if i in run.users(columns)] for i in range(run.rows)}
    for b, columns in enumerate(tiles):
        if hold_k:
            m.load(*[("k", j, x) for j in columns for x in range(run.d)])
        own = range(run.shared if hold_k else 0, run.dv)
        if hold_v:
            m.load(*[("v", j, x) for j in columns for x in own])
        for rows in chunks(run.users(columns), height):
            first = {i: visits[i][0] == b for i in rows}
            last = {i: visits[i][-1] == b for i in rows}
            run.scores(rows, columns, hold_k=hold_k)
            fresh = [i for i in rows if first[i]]
            run.begin(fresh)
            if not run.plain:
                m.load(*[(n, i) for i in rows if not first[i] for n in ("m", "z")])
            for i in rows:
                m["a", i] = run.softmax_step(i, columns)
            if hold_v:
                for i in rows:
                    for x in range(run.dv):
                        if first[i]:
                            m["o", i, x] = 0.0
                        else:
                            m.load(("o", i, x))
                            m["o", i, x] = m["o", i, x] * m["a", i]
                        for _, j in run.pairs([i], columns):
                            value = run.value(j, x) if hold_k else ("v", j, x)
                            m["o", i, x] = m["o", i, x] + m["s", i, j] * m[value]
                        if last[i]:
                            run.finish(i, x)
                        m.store(("o", i, x))
                        m.drop(("o", i, x))
            else:
                _outputs_by_columns(run, rows, columns, first, last)
            if not run.plain:
                m.store(*[(n, i) for i in rows if not last[i] for n in ("m", "z")])
            run.end(rows)
            m.drop(*[("a", i) for i in rows])
            run.drop_scores(rows, columns)
        if hold_k:
            m.drop(*[("k", j, x) for j in columns for x in range(run.d)])
        if hold_v:
            m.drop(*[("v", j, x) for j in columns for x in own])


def scores_q_resident(run: Attention, height: int) -> None:
    m = run.machine
    for rows in run.row_tiles(height):
        own = [("q", i, x) for i in rows for x in range(run.d)]
        m.load(*own)
        for j in run.needed(rows):
            run.scores(rows, [j], hold_q=True)
            m.store(*[("s", i, j) for i, _ in run.pairs(rows, [j])])
            run.drop_scores(rows, [j])
        m.drop(*own)


def scores_k_resident(run: Attention, width: int) -> None:
    m = run.machine
    for columns in chunks(range(run.columns), width):
        own = [("k", j, x) for j in columns for x in range(run.d)]
        m.load(*own)
        for i in run.users(columns):
            run.scores([i], columns, hold_k=True)
            m.store(*[("s", i, j) for _, j in run.pairs([i], columns)])
            run.drop_scores([i], columns)
        m.drop(*own)


def scores_tiled(run: Attention, height: int, width: int) -> None:
    for rows in run.row_tiles(height):
        for columns in chunks(run.needed(rows), width):
            run.scores(rows, columns)
            run.machine.store(*[("s", i, j) for i, j in run.pairs(rows, columns)])
            run.drop_scores(rows, columns)


def outputs_tiled(run: Attention, height: int, chunk: int, online: bool = True) -> None:
    """The second phase: scores (or, without `online`, weights) are read once for each chunk of output columns."""
    m = run.machine
    for rows in run.row_tiles(height):
        for xs in chunks(range(run.dv), chunk):
            own = [("o", i, x) for i in rows for x in xs]
            if online:
                run.begin(rows)
            for word in own:
                m[word] = 0.0
            for j in run.needed(rows):
                users = [i for i, _ in run.pairs(rows, [j])]
                if len(xs) <= len(rows):
                    m.load(*[("v", j, x) for x in xs])
                    for i in users:
                        m.load(("s", i, j))
                        if online:
                            run.softmax_step(i, [j], [("o", i, x) for x in xs])
                        for x in xs:
                            m["o", i, x] = m["o", i, x] + m["s", i, j] * m["v", j, x]
                        m.drop(("s", i, j))
                    m.drop(*[("v", j, x) for x in xs])
                    continue
                m.load(*[("s", i, j) for i in users])
                for i in users if online else ():
                    run.softmax_step(i, [j], [("o", i, x) for x in xs])
                for x in xs:
                    m.load(("v", j, x))
                    for i in users:
                        m["o", i, x] = m["o", i, x] + m["s", i, j] * m["v", j, x]
                    m.drop(("v", j, x))
                run.drop_scores(rows, [j])
            for word in own if online else ():
                run.finish(word[1], word[2])
            m.store(*own)
            m.drop(*own)
            if online:
                run.end(rows)


def value_chunks(run: Attention, height: int, chunk: int) -> None:
    m = run.machine
    for rows in run.row_tiles(height):
        queries = [("q", i, x) for i in rows for x in range(run.d)]
        m.load(*queries)
        for xs in chunks(range(run.dv), chunk):
            run.begin(rows)
            own = [("o", i, x) for i in rows for x in xs]
            for word in own:
                m[word] = 0.0
            for j in run.needed(rows):
                run.scores(rows, [j], hold_q=True)
                for i, _ in run.pairs(rows, [j]):
                    run.softmax_step(i, [j], [("o", i, x) for x in xs])
                for x in xs:
                    m.load(("v", j, x))
                    for i, _ in run.pairs(rows, [j]):
                        m["o", i, x] = m["o", i, x] + m["s", i, j] * m["v", j, x]
                    m.drop(("v", j, x))
                run.drop_scores(rows, [j])
            for word in own:
                run.finish(word[1], word[2])
            m.store(*own)
            m.drop(*own)
            run.end(rows)
        m.drop(*queries)


def kept_columns(run: Attention, height: int, count: int) -> None:
    """Row tiles with Q and O resident; up to `count` columns that the next tile needs too stay, whole."""
    m, tiles = run.machine, run.row_tiles(height)
    held: list[int] = []

    def words(j: int) -> list[tuple]:
        return [("k", j, x) for x in range(run.d)] + [("v", j, x) for x in range(run.dv)]

    for a, rows in enumerate(tiles):
        queries = [("q", i, x) for i in rows for x in range(run.d)]
        outputs = [("o", i, x) for i in rows for x in range(run.dv)]
        m.load(*queries)
        run.begin(rows)
        for word in outputs:
            m[word] = 0.0
        needed = run.needed(rows)
        shared = set(needed) & set(run.needed(tiles[a + 1])) if a + 1 < len(tiles) else set()
        stay = sorted(shared, key=lambda j: j not in held)[:count]
        for j in [*held, *[j for j in needed if j not in held and j not in stay], *[j for j in stay if j not in held]]:
            whole = j in held or j in stay
            if whole and j not in held:
                m.load(*words(j))
            users = [i for i, _ in run.pairs(rows, [j])]
            for i in users:
                m["s", i, j] = 0.0
            for word in words(j)[: run.d]:
                if not whole:
                    m.load(word)
                for i in users:
                    m["s", i, j] = m["s", i, j] + m["q", i, word[2]] * m[word]
                if not whole:
                    m.drop(word)
            for i in users:
                run.softmax_step(i, [j], [("o", i, x) for x in range(run.dv)])
            for word in words(j)[run.d :]:
                if not whole:
                    m.load(word)
                for i in users:
                    m["o", i, word[2]] = m["o", i, word[2]] + m["s", i, j] * m[word]
                if not whole:
                    m.drop(word)
            run.drop_scores(rows, [j])
            if j in held and j not in stay:
                m.drop(*words(j))
        held = stay
        for word in outputs:
            run.finish(word[1], word[2])
        m.store(*outputs)
        m.drop(*outputs, *queries)
        run.end(rows)


def add_normalized(run: Attention, i: int, j: int, xs: Sequence[int], whole: bool = False) -> None:
    """One score, and the outputs with it, normalized before and after: the log of the sum is the only statistic."""
    m = run.machine
    m["s", i, j] = 0.0
    for x in range(run.d):
        m["s", i, j] = m["s", i, j] + m["q", i, x] * m["k", j, x]
    factor = 1.0
    if not run.plain:
        old = m["z", i]
        m["z", i] = float(np.logaddexp(old, m["s", i, j]))
        m["s", i, j], factor = exp(m["s", i, j] - m["z", i]), exp(old - m["z", i])
    for x in xs:
        m["o", i, x] = m["o", i, x] * factor + m["s", i, j] * m[run.value(j, x) if whole else ("v", j, x)]
    m.drop(("s", i, j))


def begin_normalized(run: Attention, rows: Sequence[int], xs: Sequence[int]) -> list[tuple]:
    """Outputs of some columns, and a statistic for each row; returns the outputs."""
    outputs = [("o", i, x) for i in rows for x in xs]
    for word in outputs:
        run.machine[word] = 0.0
    for i in rows if not run.plain else ():
        run.machine["z", i] = -inf
    return outputs


def end_normalized(run: Attention, rows: Sequence[int], outputs: list[tuple]) -> None:
    run.machine.store(*outputs)
    run.machine.drop(*outputs, *[("z", i) for i in rows if not run.plain])


def in_turn(needed: Sequence[int], following: Sequence[int], held: Sequence[int], count: int) -> tuple[list, list]:
    """The order of the columns of a pass, and those that stay after it: up to `count`, held ones first."""
    stay = sorted(set(needed) & set(following), key=lambda j: j not in held)[:count]
    streamed = [j for j in needed if j not in held and j not in stay]
    return [*held, *streamed, *[j for j in stay if j not in held]], stay


def whole_columns(run: Attention, height: int, count: int) -> None:
    m, tiles = run.machine, run.row_tiles(height)
    held: list[int] = []
    for a, rows in enumerate(tiles):
        queries = [("q", i, x) for i in rows for x in range(run.d)]
        m.load(*queries)
        outputs = begin_normalized(run, rows, range(run.dv))
        following = run.needed(tiles[a + 1]) if a + 1 < len(tiles) else []
        order, stay = in_turn(run.needed(rows), following, held, count)
        for j in order:
            words = run.column(j)
            m.load(*words if j not in held else ())
            for i, _ in run.pairs(rows, [j]):
                add_normalized(run, i, j, range(run.dv), whole=True)
            m.drop(*words if j not in stay else ())
        held = stay
        end_normalized(run, rows, outputs)
        m.drop(*queries)


def kept_keys(run: Attention, height: int, chunk: int, count: int) -> None:
    m, tiles = run.machine, run.row_tiles(height)
    parts = chunks(range(run.dv), chunk)
    held: list[int] = []
    for a, rows in enumerate(tiles):
        queries = [("q", i, x) for i in rows for x in range(run.d)]
        m.load(*queries)
        needed = run.needed(rows)
        for number, xs in enumerate(parts):
            outputs = begin_normalized(run, rows, xs)
            next_tile = run.needed(tiles[a + 1]) if a + 1 < len(tiles) else []
            order, stay = in_turn(needed, needed if number + 1 < len(parts) else next_tile, held, count)
            for j in order:
                keys, values = [("k", j, x) for x in range(run.d)], [("v", j, x) for x in xs]
                m.load(*keys if j not in held else ())
                m.load(*values)
                for i, _ in run.pairs(rows, [j]):
                    add_normalized(run, i, j, xs)
                m.drop(*values)
                m.drop(*keys if j not in stay else ())
            held = stay
            end_normalized(run, rows, outputs)
        m.drop(*queries)


def ring(run: Attention) -> None:
    m = run.machine
    last = {j: max(i for i in range(run.rows) if j in run.keys[i]) for j in range(run.columns)}
    held: set[int] = set()
    for i in range(run.rows):
        columns = run.keys[i]
        for j in sorted(set(columns) - held):
            m.load(*run.column(j))
            held.add(j)
        for j in columns:
            m["s", i, j] = 0.0
        for x in range(run.d):
            m.load(("q", i, x))
            for j in columns:
                m["s", i, j] = m["s", i, j] + m["q", i, x] * m["k", j, x]
            m.drop(("q", i, x))
        run.begin([i])
        run.softmax_step(i, columns)
        for x in range(run.dv):
            m["o", i, x] = 0.0
            for j in columns:
                m["o", i, x] = m["o", i, x] + m["s", i, j] * m[run.value(j, x)]
            run.finish(i, x)
            m.store(("o", i, x))
            m.drop(("o", i, x))
        run.end([i])
        run.drop_scores([i], columns)
        for j in [j for j in held if last[j] == i]:
            m.drop(*run.column(j))
            held.discard(j)
