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


SCORES = (("q", "k", ("gm", "sd", "dl")), ("do", "v", ("gm", "sd", "dl")))
VERSIONS = ("a", "g")
OUTPUTS = {"row output 0": ("dq", "g", "k"), "column output 0": ("dv", "a", "do"), "column output 1": ("dk", "g", "q")}


def spilled_scores(run: Backward, place: int, kind: str, height: int, width: int) -> None:
    """A version of the scores: tiles of pairs, or all pairs of a resident side, then the row values."""
    m, (row, column, values) = run.machine, SCORES[place]
    users = [[i for i in range(run.rows) if j in run.keys[i]] for j in range(run.columns)]
    if kind == "columns resident":
        for own in chunks(range(run.columns), width):
            m.load(*[w for j in own for w in run.words([column], j)])
            for i in sorted({i for j in own for i in users[j]}):
                product(run, place, [i], [j for j in own if j in run.keys[i]], streamed="row")
                finish(run, place, [i], own, values)
            m.drop(*[w for j in own for w in run.words([column], j)])
        return
    for rows in chunks(range(run.rows), height):
        resident = kind == "rows resident"
        own = [w for i in rows for w in run.words([row, *values], i)] if resident else []
        m.load(*own)
        needed = sorted({j for i in rows for j in run.keys[i]})
        for columns in chunks(needed, 1 if resident else width):
            product(run, place, rows, columns, streamed="column" if resident else "both")
            finish(run, place, rows, columns, () if resident else values)
        m.drop(*own)


def product(run: Backward, place: int, rows, columns, streamed: str) -> None:
    """Sums of a tile, one coordinate of the width at a time; the shorter side held where both come and go."""
    m, (row, column, _) = run.machine, SCORES[place]
    pairs = [(i, j) for i in rows for j in columns if j in run.keys[i]]
    for i, j in pairs:
        m["sum", i, j] = 0.0
    for x in range(run.width[row]):
        across = {"row": [(row, i, x) for i in rows], "column": [(column, j, x) for j in columns]}
        held = [] if streamed != "both" else min(across.values(), key=len)
        coming = across[streamed] if streamed != "both" else max(reversed(across.values()), key=len)
        m.load(*held)
        for word in coming:
            m.load(word)
            for i, j in pairs:
                if word in ((row, i, x), (column, j, x)):
                    m["sum", i, j] = m["sum", i, j] + m[row, i, x] * m[column, j, x]
            m.drop(word)
        m.drop(*held)


def finish(run: Backward, place: int, rows, columns, values) -> None:
    """Row values turn sums into the version, which is written; the second version reads the first."""
    m = run.machine
    for i in rows:
        m.load(*[(n, i) for n in values])
        for j in (j for j in columns if j in run.keys[i]):
            if place == 0:
                found = exp(m["sum", i, j] - m["gm", i]) / m["sd", i]
            else:
                m.load(("a", i, j))
                found = m["a", i, j] * (m["sum", i, j] - m["dl", i])
                m.drop(("a", i, j))
            m.drop(("sum", i, j))
            m[VERSIONS[place], i, j] = found
            m.store((VERSIONS[place], i, j))
            m.drop((VERSIONS[place], i, j))
        m.drop(*[(n, i) for n in values])


def accumulate(run: Backward, name: str, height: int, chunk: int) -> None:
    """An output from its version of the scores: a tile of outputs resident, scores read once for each chunk."""
    m, (output, version, other) = run.machine, OUTPUTS[name]
    by_rows = output == "dq"
    count = run.rows if by_rows else run.columns
    users = [[i for i in range(run.rows) if j in run.keys[i]] for j in range(run.columns)]
    partners = run.keys if by_rows else users
    for tile in chunks(range(count), height):
        for xs in chunks(range(run.width[output]), chunk):
            own = [(output, t, x) for t in tile for x in xs]
            for word in own:
                m[word] = 0.0
            for partner in sorted({p for t in tile for p in partners[t]}):
                mine = [t for t in tile if partner in partners[t]]
                scores = {t: (version, t, partner) if by_rows else (version, partner, t) for t in mine}
                operand = [(other, partner, x) for x in xs]
                outer, inner = (operand, [scores[t] for t in mine])
                if len(xs) <= len(tile):
                    outer, inner = inner, operand
                m.load(*inner)
                for word in outer:
                    m.load(word)
                    for t in mine:
                        for x in xs:
                            if word in (scores[t], (other, partner, x)):
                                m[output, t, x] = m[output, t, x] + m[scores[t]] * m[other, partner, x]
                    m.drop(word)
                m.drop(*inner)
            m.store(*own)
            m.drop(*own)


def run_step(run: Backward, step: str) -> None:
    """One step by its name and sizes."""
    family, _, sizes = step.rpartition(" ")
    height, width = (int(n) for n in (sizes.split("x") * 2)[:2])
    if family.startswith("scores"):
        place, kind = family.removeprefix("scores ").split(", ")
        spilled_scores(run, int(place), kind, height, width)
    elif family in OUTPUTS:
        accumulate(run, family, height, width)
    else:
        FAMILIES[family](run, height)


FAMILIES = {
    "row pass": lambda run, size: tile_pass(run, size, by_rows=True, at_once=False),
    "column pass": lambda run, size: tile_pass(run, size, by_rows=False, at_once=False),
    "rows at once": lambda run, size: tile_pass(run, size, by_rows=True, at_once=True),
    "columns at once": lambda run, size: tile_pass(run, size, by_rows=False, at_once=True),
}
