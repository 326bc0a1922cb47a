"""Schedules of attention's backward pass executed word by word, as `bounds/gradient_schedules.py` describes them."""

from __future__ import annotations

from math import exp

import numpy as np

from tests.bounds.attention_runs import chunks
from tests.bounds.machine import Machine

ROW_INPUTS, ROW_VALUES, COLUMN_INPUTS = ("q", "do"), ("gm", "sd", "dl"), ("k", "v")


class Backward:
    """One problem: q, do and row values of the rows, k, v of the columns; dq, dk, dv are left in slow memory."""

    def __init__(self, arrays: dict[str, np.ndarray], keys: list[list[int]], capacity: float) -> None:
        slow = {(n, *at): float(x) for n, array in arrays.items() for at, x in np.ndenumerate(array)}
        self.machine = Machine(slow, capacity)
        self.keys, self.d, self.dv = keys, arrays["q"].shape[1], arrays["v"].shape[1]
        self.width = {"q": self.d, "k": self.d, "dq": self.d, "dk": self.d, "do": self.dv, "v": self.dv, "dv": self.dv}
        self.rows, self.columns = len(arrays["q"]), len(arrays["k"])

    def words(self, names, index) -> list[tuple]:
        return [(n, index, x) if n in self.width else (n, index) for n in names for x in range(self.width.get(n, 1))]

    def pair(self, i: int, j: int) -> None:
        """The weight, and the gradient of the score, from whole inputs: two words."""
        m = self.machine
        m["a", i, j] = sum(m["q", i, x] * m["k", j, x] for x in range(self.d))
        m["a", i, j] = exp(m["a", i, j] - m["gm", i]) / m["sd", i]
        m["g", i, j] = sum(m["do", i, x] * m["v", j, x] for x in range(self.dv))
        m["g", i, j] = m["a", i, j] * (m["g", i, j] - m["dl", i])

    def add(self, output: str, i: int, j: int) -> None:
        for x in range(self.width[output]):
            self.add_word(output, i, j, x)

    def add_word(self, output: str, i: int, j: int, x: int) -> None:
        m = self.machine
        index, scores, other = {
            "dq": (i, "g", ("k", j)),
            "dk": (j, "g", ("q", i)),
            "dv": (j, "a", ("do", i)),
        }[output]
        m[output, index, x] = m[output, index, x] + m[scores, i, j] * m[(*other, x)]


def tile_pass(run: Backward, size: int, by_rows: bool, at_once: bool) -> None:
    """Tiles of rows (or columns) resident with their outputs; the other side comes one by one."""
    m = run.machine
    users = [[i for i in range(run.rows) if j in run.keys[i]] for j in range(run.columns)]
    count, partners, back = (run.rows, run.keys, users) if by_rows else (run.columns, users, run.keys)
    row_names, column_names = (*ROW_INPUTS, *ROW_VALUES), COLUMN_INPUTS
    inputs, streamed = (row_names, column_names) if by_rows else (column_names, row_names)
    outputs, fro = (("dq",), ("dk", "dv")) if by_rows else (("dk", "dv"), ("dq",))
    first = {}
    for tile in chunks(range(count), size):
        own = [w for t in tile for w in run.words(inputs, t)]
        made = [w for t in tile for w in run.words(outputs, t)]
        m.load(*own)
        for word in made:
            m[word] = 0.0
        for other in sorted({o for t in tile for o in partners[t]}):
            m.load(*run.words(streamed, other))
            pairs = [(t, other) if by_rows else (other, t) for t in tile if t in back[other]]
            for i, j in pairs:
                run.pair(i, j)
                for output in outputs:
                    run.add(output, i, j)
            for output in fro if at_once else ():
                send(run, output, other, pairs, fresh=(output, other) not in first)
                first[output, other] = True
            m.drop(*run.words(streamed, other), *[(n, i, j) for i, j in pairs for n in ("a", "g")])
        m.store(*made)
        m.drop(*own, *made)


def send(run: Backward, output: str, index: int, pairs, fresh: bool) -> None:
    """An output of the streamed side, word by word: loaded unless it is new, added to, stored."""
    m = run.machine
    for x in range(run.width[output]):
        if fresh:
            m[output, index, x] = 0.0
        else:
            m.load((output, index, x))
        for i, j in pairs:
            run.add_word(output, i, j, x)
        m.store((output, index, x))
        m.drop((output, index, x))


FAMILIES = {
    "row pass": lambda run, size: tile_pass(run, size, by_rows=True, at_once=False),
    "column pass": lambda run, size: tile_pass(run, size, by_rows=False, at_once=False),
    "rows at once": lambda run, size: tile_pass(run, size, by_rows=True, at_once=True),
    "columns at once": lambda run, size: tile_pass(run, size, by_rows=False, at_once=True),
}
