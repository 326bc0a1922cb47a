"""Traces of attention whose sizes are known only at run time: one row for each head that was computed.

A trace is a CSV file with a header; -1 stands for "off". A row says of one head in one layer and iteration how many
keys and values were fetched, in how many bits, and what was decided on the way:

iteration_id, layer_id, head_id    where the row belongs
embedding_length_D                 elements of a key
sentence_length_L                  tokens of the context
key_fetch_num, value_fetch_num     keys that were fetched, and values, of the keys with the largest probabilities
quant_key_bit, quant_value_bit, quant_query_bit    bits of one element; with planes, of the most significant plane
auto_requant_thres                 largest probability below which the least significant plane of the keys is fetched
if_requant, auto_requant_incre     whether it was, and its bits
if_accumulate_importance, if_rescale_previous_importance    whether the probabilities were added to the importance
if_topk, topk                      whether a token top-k followed, and how many tokens it kept

Two columns may be missing: query_num, the queries that share the head's keys and values (1: generation), and count,
alike heads of the same layer and iteration that the row stands for (1).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from einsum.errors import SpecError, nearest

Column = NDArray[np.float64]

FLAGS = frozenset({"if_requant", "if_accumulate_importance", "if_rescale_previous_importance", "if_topk"})
MOST_BITS = 64
"""Bits of the widest element."""


class Whole(NamedTuple):
    """What a column of whole numbers may hold: from `least` to `most`, and -1 for "off" if `off`."""

    least: int
    off: bool = False
    most: int = 2**53

    def __str__(self) -> str:
        most = f" and at most {self.most}" if self.most < 2**53 else ""
        return f"a whole number of at least {self.least}{most}" + (", or -1 for off" if self.off else "")

    def refused(self, values: Column) -> NDArray[np.bool_]:
        """Where there is something else."""
        held = (values >= self.least) & (values <= self.most) & (np.floor(values) == values)
        return np.asarray(~held & ~(self.off & (values == -1)))


_BITS = Whole(1, off=True, most=MOST_BITS)
NUMBERS: Mapping[str, Whole] = {
    "iteration_id": Whole(0),
    "layer_id": Whole(0),
    "head_id": Whole(0),
    "embedding_length_D": Whole(1),
    "sentence_length_L": Whole(1),
    "key_fetch_num": Whole(1),
    "quant_key_bit": _BITS,
    "quant_query_bit": _BITS,
    "auto_requant_incre": _BITS,
    "value_fetch_num": Whole(1),
    "quant_value_bit": _BITS,
    "topk": Whole(1, off=True),
    "query_num": Whole(1),
    "count": Whole(1),
}
"""Columns of whole numbers."""
SHARES = frozenset({"auto_requant_thres"})
"""Columns with a share from 0 to 1, or -1 for "off"."""
DEFAULTS = {"query_num": 1.0, "count": 1.0}
COLUMNS = (*NUMBERS, *sorted(SHARES), *sorted(FLAGS))
"""Every column of a trace."""
MOST_ROWS = 10_000_000


@dataclass(frozen=True)
class HeadTrace:
    """The rows of a trace: column -> values, (rows,); flags are 0 and 1. Messages number the rows from 1."""

    columns: Mapping[str, Column]
    file: str | None = None

    def __len__(self) -> int:
        return len(self.columns["layer_id"])

    @classmethod
    def load(cls, path: str | Path) -> HeadTrace:
        """Read a CSV file; SpecError says what is wrong, in which row."""
        try:
            with Path(path).open(newline="", encoding="utf-8-sig") as stream:  # a byte order mark is no part of a name
                return cls.parse(stream, file=str(path))
        except OSError as error:
            raise SpecError(f"cannot be read: {(error.strerror or str(error)).lower()}", file=str(path)) from None
        except (UnicodeDecodeError, csv.Error) as error:
            raise SpecError(f"is no CSV file: {error}", file=str(path)) from None

    @classmethod
    def parse(cls, lines: Iterator[str] | Sequence[str], file: str | None = None) -> HeadTrace:
        """The trace that the lines of a CSV file hold; those that begin with # are comments."""
        reader = csv.reader(line for line in lines if not line.startswith("#"))
        header = [name.strip() for name in next(reader, [])]
        rows = [row for row in reader if row]
        try:
            return cls.of(_columns(header, rows), file)
        except SpecError as error:
            raise error.located(file=file) from None

    @classmethod
    def of(cls, columns: Mapping[str, Column], file: str | None = None) -> HeadTrace:
        """The trace with these columns, all of one length; SpecError for a row that contradicts itself."""
        size = len(next(iter(columns.values())))
        if not size:
            raise SpecError("the trace has no rows", file=file)
        filled = {name: np.full(size, value) for name, value in DEFAULTS.items() if name not in columns}
        trace = cls({**columns, **filled}, file)
        trace._check()
        return trace

    def save(self, path: str | Path) -> None:
        """Write the trace as CSV."""
        names = [name for name in COLUMNS if name in self.columns]
        cells = [self.columns[name].astype(bool) if name in FLAGS else self.columns[name] for name in names]
        with Path(path).open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(names)
            for row in zip(*(cell.tolist() for cell in cells), strict=True):
                writer.writerow([value if isinstance(value, bool) else f"{value:.12g}" for value in row])

    def layer_columns(self) -> dict[str, Column]:
        """What the rows of one layer in one iteration have in common, for each row.

        layer_heads   heads that were computed there
        most_heads    the most heads that any layer computed
        leads_layer   1 for the first row of its layer and iteration
        """
        place = np.stack([self.columns["iteration_id"], self.columns["layer_id"]], axis=1)
        _values, first, layer = np.unique(place, axis=0, return_index=True, return_inverse=True)
        heads = np.bincount(layer.reshape(-1), self.columns["count"])
        leads = np.zeros(len(self))
        leads[first] = 1.0
        most = np.full(len(self), heads.max())
        return {"layer_heads": heads[layer.reshape(-1)], "most_heads": most, "leads_layer": leads}

    def refuse(self, wrong: NDArray[np.bool_], sentence: str) -> None:
        """Raise SpecError for the first row that is `wrong`; {column} in the sentence becomes the row's value."""
        if not wrong.any():
            return
        row = int(np.argmax(wrong))
        values = {name: f"{cells[row]:.12g}" for name, cells in self.columns.items()}
        raise SpecError(f"row {row + 1}: {sentence.format(**values)}", file=self.file)

    def _check(self) -> None:
        """Refuse what no run can have done."""
        c = self.columns
        self.refuse(
            c["key_fetch_num"] > c["sentence_length_L"],
            "key_fetch_num is {key_fetch_num}, more keys than the {sentence_length_L} tokens of the context",
        )
        self.refuse(
            c["value_fetch_num"] > c["key_fetch_num"],
            "value_fetch_num is {value_fetch_num}, but a top-k of {value_fetch_num} cannot select from "
            "{key_fetch_num} keys",
        )
        kept = (c["if_topk"] > 0) & (c["topk"] < 1)
        self.refuse(kept, "if_topk is set, but topk is {topk}; expected how many tokens are kept")
        self.refuse(
            (c["if_topk"] > 0) & (c["topk"] > c["sentence_length_L"]),
            "topk is {topk}, but a top-k of {topk} cannot select from {sentence_length_L} tokens",
        )
        self.refuse(
            (c["if_requant"] > 0) & ((c["auto_requant_incre"] < 1) | (c["quant_key_bit"] < 1)),
            "if_requant is set, but quant_key_bit is {quant_key_bit} and auto_requant_incre {auto_requant_incre}; "
            "expected the bits of both planes",
        )


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Column]:
    if not header:
        raise SpecError("the file is empty, expected a header and rows")
    missing = [name for name in COLUMNS if name not in header and name not in DEFAULTS]
    if missing:
        others = set(header) - set(COLUMNS)
        hint = nearest(missing[0], others) if others else ""
        more = f" (and {', '.join(missing[1:4])}{', ...' if missing[4:] else ''})" if missing[1:] else ""
        raise SpecError(f"the column '{missing[0]}' is missing{more or hint}")
    twice = next((name for name in COLUMNS if header.count(name) > 1), None)
    if twice:
        raise SpecError(f"the column '{twice}' occurs twice")
    if len(rows) > MOST_ROWS:
        raise SpecError(f"the trace has {len(rows):,} rows, more than {MOST_ROWS:,}")
    for number, row in enumerate(rows, 1):
        if len(row) != len(header):
            raise SpecError(f"row {number} has {len(row)} values, expected {len(header)}")
    cells = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(header, ())
    return {name: _column(name, cells[name]) for name in COLUMNS if name in cells}


def _column(name: str, cells: Sequence[str]) -> Column:
    if name in FLAGS:
        return _flags(name, cells)
    values = _numbers(name, cells)
    if name in SHARES:
        wrong = ~((values >= 0) & (values <= 1)) & (values != -1)
        meaning = "a share from 0 to 1, or -1 for off"
    else:
        wrong, meaning = NUMBERS[name].refused(values), str(NUMBERS[name])
    if wrong.any():
        row = int(np.argmax(wrong))
        raise SpecError(f"row {row + 1}: {name} is {cells[row].strip()[:40]}, expected {meaning}")
    return values


def _numbers(name: str, cells: Sequence[str]) -> Column:
    """The cells as numbers; SpecError names the first row that holds something else."""
    text = "".join(cells)
    plain = text.isascii() and "_" not in text
    try:
        return np.array(cells if plain else [*map(_number, cells)], dtype=np.float64)
    except ValueError:
        row = next(number for number, cell in enumerate(cells) if not _is_number(cell))
        raise SpecError(f"row {row + 1}: {name} is '{cells[row].strip()[:40]}', expected a number") from None


def _flags(name: str, cells: Sequence[str]) -> Column:
    known = {"true": 1.0, "1": 1.0, "false": 0.0, "0": 0.0}
    values = [known.get(cell.strip().lower(), -1.0) for cell in cells]
    if -1.0 in values:
        row = values.index(-1.0)
        raise SpecError(f"row {row + 1}: {name} is '{cells[row][:40]}', expected True or False")
    return np.array(values, dtype=np.float64)


def _number(cell: str) -> float:
    if not cell.isascii() or "_" in cell:
        raise ValueError(cell)
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True
