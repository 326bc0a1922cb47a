"""A measurement file holds its columns, grows a line at a time, and reads back what was written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einsum.errors import EinsightError
from kernels.case import KERNELS, Case
from kernels.measurement import COLUMNS, Measurement, MeasurementFile

SHARED_COLUMNS = (
    "kernel,dtype,batch,heads,kv_heads,q_len,kv_len,head_dim,causal,window,block_m,block_n,warps,stages,variant,ms,"
    "ms_p10,ms_p90,repetitions,sm_clock_mhz,mem_clock_mhz,temperature_c,status,reason,dram_read_bytes,dram_write_bytes"
)
CASE = Case("flash_attention", heads=4, kv_heads=4, q_len=64, kv_len=64, head_dim=64, block_m=64, block_n=32, warps=4)


def test_the_columns_are_those_that_compare_reads() -> None:
    assert ",".join(COLUMNS).startswith(SHARED_COLUMNS)


def test_a_row_is_a_line_of_text(tmp_path: Path) -> None:
    path = tmp_path / "new" / "m.csv"
    MeasurementFile(path).append(CASE, Measurement(ms=0.123456789, repetitions=30, sm_clock_mhz=1980.0))
    header, line = path.read_text().splitlines()
    row = dict(zip(header.split(","), line.split(","), strict=True))
    assert row["ms"] == "0.123457"
    assert (row["causal"], row["stages"], row["sm_clock_mhz"], row["dram_read_bytes"]) == ("false", "", "1980", "")


@settings(max_examples=30, deadline=None)
@given(
    kernel=st.sampled_from(KERNELS),
    sizes=st.lists(st.integers(1, 10**6), min_size=4, max_size=4),
    causal=st.booleans(),
    pattern=st.sampled_from(["", "local-2+global-1@64"]),
    numbers=st.lists(st.none() | st.integers(0, 10**12).map(float), min_size=3, max_size=3),
    reason=st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=40),
)
def test_what_is_written_reads_back(
    tmp_path_factory: pytest.TempPathFactory, kernel: str, sizes: list[int], causal: bool, pattern: str,
    numbers: list[float | None], reason: str,
) -> None:  # fmt: skip
    path = tmp_path_factory.mktemp("csv") / "m.csv"
    case = Case(kernel, q_len=sizes[0], kv_len=sizes[1], head_dim=sizes[2], block_m=sizes[3], causal=causal,
                pattern=pattern)  # fmt: skip
    row = Measurement(*numbers, status="failed", reason=" ".join(reason.split()))
    MeasurementFile(path).append(case, row)
    read = MeasurementFile(path).rows
    assert list(read) == [case]
    assert read[case].reason == row.reason
    for written, back in ((row.ms, read[case].ms), (row.ms_p10, read[case].ms_p10), (row.ms_p90, read[case].ms_p90)):
        assert (written is None) == (back is None)
        assert written is None or back == pytest.approx(written, rel=1e-5)


def test_updating_keeps_the_order_and_replaces_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    table = MeasurementFile(path)
    other = Case("copy", q_len=10, kv_len=10)
    table.append(CASE, Measurement(ms=1.0))
    table.append(other, Measurement(ms=2.0))
    table.update({CASE: {"dram_read_bytes": 1e9}})
    again = MeasurementFile(path)
    assert list(again.rows) == [CASE, other]
    assert again.rows[CASE] == Measurement(ms=1.0, dram_read_bytes=1e9)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.csv"]


def test_a_line_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    table = MeasurementFile(path)
    table.append(CASE, Measurement(ms=1.0))
    whole = path.read_text()
    path.write_text(whole + "copy,fp16,1,1,1,3")
    assert list(MeasurementFile(path).rows) == [CASE]
    assert path.read_text() == whole


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda rows: [["a", "b"], *rows[1:]], "the columns are not those of a measurement file"),
        (lambda rows: [rows[0], [*rows[1][:15], "fast", *rows[1][16:]]], "line 2: could not convert string to float"),
        (lambda rows: [rows[0], ["flash", *rows[1][1:]]], "line 2: kernel: unknown kernel 'flash'"),
    ],
)
def test_mistakes_name_the_file_and_line(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "m.csv"
    MeasurementFile(path).append(CASE, Measurement(ms=1.0))
    with path.open() as stream:
        rows = list(csv.reader(stream))
    with path.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(change(rows))  # type: ignore[operator]
    with pytest.raises(EinsightError) as caught:
        MeasurementFile(path)
    assert str(caught.value).startswith(f"{path}: {message}")
