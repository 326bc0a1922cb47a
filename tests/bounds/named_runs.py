"""The named schedules executed word by word: FlashAttention-1 as printed and without needless transfers, -2, FLAT,
unfused."""

from __future__ import annotations

from math import exp, inf

from tests.bounds.attention_runs import Attention, chunks


def _block(run: Attention, rows, columns) -> None:
    """Scores of a block from resident Q and K, then weights and outputs with resident O; K makes room for scratch."""
    m = run.machine
    pairs = run.pairs(rows, columns)
    for i, j in pairs:
        m["s", i, j] = sum(m["q", i, x] * m["k", j, x] for x in range(run.d))
    m.drop(*[("k", j, x) for j in columns for x in range(run.d)])
    for i in rows:
        m["new"] = 0.0  # one word of scratch for the new maximum
        run.softmax_step(i, columns, [("o", i, x) for x in range(run.dv)])
        m.drop("new")
    for i, j in pairs:
        for x in range(run.dv):
            m["o", i, x] = m["o", i, x] + m["s", i, j] * m["v", j, x]
    run.drop_scores(rows, columns)


def flash_attention_2(run: Attention, height: int, width: int) -> None:
    m = run.machine
    blocks = chunks(range(run.columns), width)
    for rows in run.row_tiles(height):
        queries, outputs = ([(n, i, x) for i in rows for x in range(size)] for n, size in (("q", run.d), ("o", run.dv)))
        m.load(*queries)
        for word in outputs:
            m[word] = 0.0
        run.begin(rows)
        needed = set(run.needed(rows))
        for columns in blocks:
            if needed & set(columns):
                m.load(*[("k", j, x) for j in columns for x in range(run.d)])
                m.load(*[("v", j, x) for j in columns for x in range(run.dv)])
                _block(run, rows, columns)
                m.drop(*[("v", j, x) for j in columns for x in range(run.dv)])
        for word in outputs:
            run.finish(word[1], word[2])
        m.store(*outputs)
        m.drop(*outputs, *queries)
        run.end(rows)


def flash_attention_1(run: Attention, height: int, width: int, printed: bool) -> None:
    m = run.machine
    blocks = chunks(range(run.columns), width)
    tiles = run.row_tiles(height)
    visited = {a: [b for b, c in enumerate(blocks) if set(run.needed(rows)) & set(c)] for a, rows in enumerate(tiles)}
    statistics = [(n, i) for i in range(run.rows) for n in ("m", "z")]
    if printed:
        outputs = [("o", i, x) for i in range(run.rows) for x in range(run.dv)]
        for word, value in [(w, 0.0) for w in outputs] + [(w, -inf if w[0] == "m" else 0.0) for w in statistics]:
            m[word] = value
            m.store(word)
            m.drop(word)
    for b, columns in enumerate(blocks):
        keys = [("k", j, x) for j in columns for x in range(run.d)]
        m.load(*keys, *[("v", j, x) for j in columns for x in range(run.dv)])
        values = {word: m[word] for word in keys}
        for a, rows in enumerate(tiles):
            if b not in visited[a]:
                continue
            first, last = visited[a][0] == b, visited[a][-1] == b
            outputs = [("o", i, x) for i in rows for x in range(run.dv)]
            own = [(n, i) for i in rows for n in ("m", "z")]
            m.load(*[("q", i, x) for i in rows for x in range(run.d)])
            if printed or not first:
                m.load(*outputs, *own)
            else:
                for word in outputs:
                    m[word] = 0.0
                run.begin(rows)
            if printed and not first:  # the printed algorithm keeps O normalized between visits
                for _, i, x in outputs:
                    m["o", i, x] = m["o", i, x] * m["z", i]
            _block_keeping_keys(run, rows, columns, values)
            if printed or last:
                for _, i, x in outputs:
                    if m["z", i] > 0:  # a row of the block may have no key yet
                        run.finish(i, x)
            m.store(*outputs)
            if printed or not last:
                m.store(*own)
            m.drop(*outputs, *own, *[("q", i, x) for i in rows for x in range(run.d)])
        m.drop(*keys, *[("v", j, x) for j in columns for x in range(run.dv)])


def _block_keeping_keys(run: Attention, rows, columns, keys) -> None:
    """As `_block` with K kept: the queries' words, no longer needed, make room for scratch."""
    m = run.machine
    for i, j in run.pairs(rows, columns):
        m["s", i, j] = sum(m["q", i, x] * keys["k", j, x] for x in range(run.d))
    spare = ("q", rows[0], 0)
    value = m[spare]
    m.drop(spare)
    for i in rows:
        m["new"] = 0.0
        run.softmax_step(i, columns, [("o", i, x) for x in range(run.dv)])
        m.drop("new")
    for i, j in run.pairs(rows, columns):
        for x in range(run.dv):
            m["o", i, x] = m["o", i, x] + m["s", i, j] * m["v", j, x]
    run.drop_scores(rows, columns)
    m[spare] = value


def flat(run: Attention, height: int) -> None:
    m = run.machine
    for rows in run.row_tiles(height):
        queries, outputs = ([(n, i, x) for i in rows for x in range(size)] for n, size in (("q", run.d), ("o", run.dv)))
        columns = run.needed(rows)
        m.load(*queries)
        run.scores(rows, columns, hold_q=True)
        for i in rows:
            run.begin([i])
            run.softmax_step(i, columns)
            for j in run.keys[i]:
                m["s", i, j] = m["s", i, j] / m["z", i]
            run.end([i])
        for word in outputs:
            m[word] = 0.0
        for j in columns:
            for x in range(run.dv):
                m.load(("v", j, x))
                for i, _ in run.pairs(rows, [j]):
                    m["o", i, x] = m["o", i, x] + m["s", i, j] * m["v", j, x]
                m.drop(("v", j, x))
        run.drop_scores(rows, columns)
        m.store(*outputs)
        m.drop(*outputs, *queries)


def softmax_resident(run: Attention) -> None:
    m = run.machine
    for i in range(run.rows):
        m.load(*[("s", i, j) for j in run.keys[i]])
        run.begin([i])
        run.softmax_step(i, run.keys[i])
        for j in run.keys[i]:
            m["s", i, j] = m["s", i, j] / m["z", i]
        m.store(*[("s", i, j) for j in run.keys[i]])
        run.drop_scores([i], run.keys[i])
        run.end([i])


def softmax_two_passes(run: Attention) -> None:
    m = run.machine
    for i in range(run.rows):
        run.begin([i])
        for j in run.keys[i]:
            m.load(("s", i, j))
            if m["s", i, j] > m["m", i]:
                m["z", i] = m["z", i] * exp(m["m", i] - m["s", i, j]) + 1
                m["m", i] = m["s", i, j]
            else:
                m["z", i] = m["z", i] + exp(m["s", i, j] - m["m", i])
            m.drop(("s", i, j))
        for j in run.keys[i]:
            m.load(("s", i, j))
            m["s", i, j] = exp(m["s", i, j] - m["m", i]) / m["z", i]
            m.store(("s", i, j))
            m.drop(("s", i, j))
        run.end([i])
