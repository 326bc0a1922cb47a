"""The least I/O of tiny problems by exact search over all states of fast and slow memory, recomputation allowed.

A sum is in fast or slow memory with any subset of its terms added so far (in place). Free moves: add a term whose
operands are in fast memory and complete, start a sum. Moves of one word: load, store. A word leaves when room is
needed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

ABSENT = -1


@dataclass(frozen=True)
class Sum:
    """An accumulator: `terms` are the words that each term multiplies (inputs first, then sums)."""

    terms: tuple[tuple[int, ...], ...]
    final: bool

    @property
    def complete(self) -> int:
        return (1 << len(self.terms)) - 1


def least_io(inputs: int, sums: tuple[Sum, ...], memory: int) -> int:
    """Words of the cheapest schedule: 0-1 breadth-first search."""
    start = ((0,) * inputs, (ABSENT,) * len(sums), (ABSENT,) * len(sums))
    best = {start: 0}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        cost = best[state]
        if all(slow == s.complete for s, slow in zip(sums, state[2], strict=True) if s.final):
            return cost
        for price, following in _moves(state, inputs, sums, memory):
            if cost + price < best.get(following, 1 << 30):
                best[following] = cost + price
                (queue.append if price else queue.appendleft)(following)
    raise AssertionError("no schedule fits")


def _moves(state, inputs: int, sums: tuple[Sum, ...], memory: int):
    held, fast, slow = state
    used = sum(held) + sum(mask != ABSENT for mask in fast)

    def ready(word: int) -> bool:
        return bool(held[word]) if word < inputs else fast[word - inputs] == sums[word - inputs].complete

    for k, own in enumerate(sums):
        if fast[k] not in (ABSENT, own.complete):
            for t, operands in enumerate(own.terms):
                if not fast[k] >> t & 1 and all(ready(word) for word in operands):
                    yield 0, (held, _with(fast, k, fast[k] | 1 << t), slow)
        if fast[k] not in (ABSENT, 0, slow[k]):
            yield 1, (held, fast, _with(slow, k, fast[k]))
    if used == memory:
        for word in range(inputs):
            if held[word]:
                yield 0, (_with(held, word, 0), fast, slow)
        for k in range(len(sums)):
            if fast[k] != ABSENT:
                yield 0, (held, _with(fast, k, ABSENT), slow)
        return
    for word in range(inputs):
        if not held[word]:
            yield 1, (_with(held, word, 1), fast, slow)
    for k, own in enumerate(sums):
        if fast[k] == ABSENT:
            if slow[k] != ABSENT:
                yield 1, (held, _with(fast, k, slow[k]), slow)
            if any(all(ready(word) for word in operands) for operands in own.terms):
                yield 0, (held, _with(fast, k, 0), slow)


def _with(values: tuple[int, ...], k: int, value: int) -> tuple[int, ...]:
    return (*values[:k], value, *values[k + 1 :])


def attention_sums(keys: list[list[int]], columns: int, d: int, dv: int) -> tuple[int, tuple[Sum, ...]]:
    """Inputs q, k, v in this order, and the sums of scores and outputs of a problem without a softmax."""
    rows = len(keys)
    q, k, v = (
        (lambda i, x: i * d + x),
        (lambda j, x: (rows + j) * d + x),
        (lambda j, x: (rows + columns) * d + j * dv + x),
    )
    inputs = (rows + columns) * d + columns * dv
    pairs = [(i, j) for i in range(rows) for j in keys[i]]
    scores = [Sum(tuple((q(i, x), k(j, x)) for x in range(d)), False) for i, j in pairs]
    outputs = [
        Sum(tuple((inputs + pairs.index((i, j)), v(j, x)) for j in keys[i]), True)
        for i in range(rows)
        for x in range(dv)
    ]
    return inputs, tuple(scores + outputs)


def matmul_sums(m: int, n: int, k: int) -> tuple[int, tuple[Sum, ...]]:
    """Inputs A, B in this order, and the sums of C = A B."""
    sums = tuple(Sum(tuple((i * k + x, m * k + x * n + j) for x in range(k)), True) for i in range(m) for j in range(n))
    return m * k + k * n, sums
