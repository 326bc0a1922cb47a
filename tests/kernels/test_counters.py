"""Nsight Compute's report becomes bytes and shares of busy cycles for each case."""

from __future__ import annotations

import math

import pytest

from kernels.counters import FLUSH_KERNEL, METRICS, parse_report, summarise

HEAD = ["ID", "Process ID", "Kernel Name", "Grid Size", *METRICS]
UNITS = ["", "", "", "", "ns", "byte", "byte", "sector", "sector", "%", "%"]
KERNEL_A = ["0", "7", "_scores", "(4, 1, 1)", "1,000", "4,096", "2048", "256", "128", "50.0", "10"]
KERNEL_B = ["1", "7", "_softmax", "(4, 1, 1)", "3000", "64", "32", "2", "1", "10.0", "n/a"]
FLUSH = ["2", "7", FLUSH_KERNEL, "(9, 1, 1)", "99999", "77777", "500", "1", "1", "0", "0"]


def report(*rows: list[str]) -> str:
    lines = [",".join(f'"{cell}"' for cell in row) for row in (HEAD, UNITS, *rows)]
    return "\n".join(["==PROF== Connected to process 7", *lines, "==PROF== Disconnected"])


def test_a_flush_ends_each_case() -> None:
    profiles = parse_report(report(KERNEL_A, KERNEL_B, FLUSH, KERNEL_B, FLUSH))
    assert [len(profile) for profile in profiles] == [3, 2]
    assert profiles[0][0]["dram__bytes_read.sum"] == 4096


def test_kernels_of_a_case_add_up() -> None:
    counted = summarise(parse_report(report(KERNEL_A, KERNEL_B, FLUSH))[0])
    assert counted["dram_read_bytes"] == 4096 + 64
    assert counted["dram_write_bytes"] == 2048 + 32
    assert counted["dram_drain_bytes"] == 500
    assert counted["l2_read_bytes"] == 32 * 258
    assert counted["l2_write_bytes"] == 32 * 129
    assert counted["profiled_ms"] == pytest.approx(0.004)
    assert counted["tensor_activity"] == pytest.approx((0.5 * 1000 + 0.1 * 3000) / 4000)
    assert math.isnan(counted["xu_activity"])


def test_a_report_without_kernels_is_empty() -> None:
    assert parse_report("==ERROR== nothing was profiled") == []
