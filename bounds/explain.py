"""Certificates in words: which theorem, over which arrays with which exponents, how long the segments are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

Record = dict[str, Any]


def explain(record: Record) -> list[str]:
    """Lines about a certificate, each a sentence; parts of a sum follow their whole."""
    return list(_lines(record))


def _lines(record: Record) -> Iterator[str]:
    value = f"{record['value']:,.0f} words" if "value" in record else ""
    if "segment" in record:
        yield from _segments(record, value)
    elif "edges" in record:
        names = ", ".join(f"({a}, {b})" for a, b, *_ in record["edges"])
        yield (
            f"Joint count around {record['around']} over the pairs {names}: 2 V / (lambda sqrt(M)) - "
            f"{record['free']} x {record['elements']:,.0f} with V = {record['volume']:,.0f} multiplications, "
            f"lambda = {record['spread']:.4g}, {_copies(record)}: {value}, {record['label']}."
        )
    elif "prices" in record:
        yield from _levels(record, value)
    elif "unpaid" in record:
        cut = ", ".join(f"{name} ({words:,.0f} words)" for name, words in record["unpaid"].items())
        yield f"Cut out of the cascade, less the first presence of {cut or 'nothing'}: {value}."
    elif "returns" in record:
        yield (
            f"{record['tensor']} is traversed in {record['passes']} passes over {record['rank']}: "
            f"{record['copies']:,.0f} fibers of {record['fiber_words']:,.0f} words, of which M stay: {value}."
        )
    elif "compulsory" in record:
        moved = ", ".join(f"{name} {words:,.0f}" for name, words in record["compulsory"].items())
        plus = " and the parts below" if record.get("parts") else ""
        yield f"Each word once of {moved or 'nothing'}{plus}: {value}."
    else:
        yield ", ".join(f"{key}: {text}" for key, text in record.items())
    for part in record.get("parts", ()):
        yield from _lines(part)


def _levels(record: Record, value: str) -> Iterator[str]:
    yield (
        f"{record['pairs']:,.0f} scores computed once, {_copies(record)}: all {record['row_words']:,.0f} words of a "
        f"row meet all {record['column_words']:,.0f} words of each of its columns, counted in segments of "
        f"{record['length']:,.0f} words: {value}."
    )
    if record["prices"]:
        low, high, row, column = min(record["prices"], key=lambda line: sum(line[2:]))
        yield (
            f"Beyond that, each word of {record['rows']:,.0f} rows and of {record['columns']:,.0f} columns wastes "
            f"memory, least around a level of {low:,.0f} to {high:,.0f} row words: {row:,.0f} meetings a row word and "
            f"{column:,.0f} a column word."
        )


def _segments(record: Record, value: str) -> Iterator[str]:
    cut, memory = record["segment"], record["memory_words"]
    if not cut["full"] and not cut["rest"]:
        yield f"All of {record['statement']} in one segment needs {cut['length']:,.0f} words: {value}."
    else:
        yield (
            f"{record['statement']}: {record['volume']:,.0f} multiplications, {_copies(record)}. Segments of r = "
            f"{cut['length']:,.0f} charged words touch at most M + r = {memory + cut['length']:,.0f}; one that starts "
            f"empty, {cut['full']:,} full ones and {cut['rest']:,.0f} charges more: {value}."
        )
    at = "later" if cut["full"] else "first"
    if "point" in record:
        i, j, _, outputs = record["point"]
        yield (
            f"With one word in all, {i:.3g} rows and {j:.3g} columns rebuilt and {outputs:.3g} words of outputs hold "
            f"most multiplications; carried elements of {record['intermediate']} add the root of their number."
        )
    for mode in record.get("modes", ()):
        yield f"Mode '{mode['name']}': multiplications in a segment are at most a product of powers, " + _mode(mode, at)


def _mode(mode: Record, at: str) -> str:
    """The mixture that holds in the full segments: each array with its words and its exponent."""
    arrays: dict[str, Record] = {}
    powers: Counter[str] = Counter()
    for program in mode["programs"].values():
        arrays |= program["arrays"]
        for one in program["inequalities"]:
            powers.update({name: one["weights"][at] * float(Fraction(e)) for name, e in one["exponents"].items()})
    told = [
        f"{name} ({arrays[name]['words']:g} word{'s' if arrays[name]['words'] != 1 else ''}) ^ {power:.4g}"
        for name, power in powers.items()
        if power > 1e-9 and "words" in arrays[name] and name not in mode["programs"]
    ]
    return "; ".join(told) + "." if told else "a constant."


def _copies(record: Record) -> str:
    return f"{record['copies']:,.0f} independent cop{'y' if record['copies'] == 1 else 'ies'}"
