"""Flash drives: throughputs that are published for machines, from their geometry, and the limits of a drive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from architectures import Architecture
from architectures.flash import EvaluatedFlash
from einsum import SpecError

KIB = 1024
DRIVE: dict[str, Any] = {
    "channels": 4,
    "dies": 2,
    "planes": 2,
    "page": "16 KiB",
    "sector": "4 KiB",
    "read_time": "50 us",
    "program_time": "500 us",
    "channel_bandwidth": "1 GB/s",
    "queue_depth": 16,
}


def machine(**changes: Any) -> Architecture:
    drive = {**DRIVE, **changes}
    return Architecture.parse(
        {"architecture": "box", "clock": "1 GHz", "word_bits": 16, "memories": {"DRAM": {}}, "flash": {"ssd": drive}}
    )


def drive(env: dict[str, Any] | None = None, **changes: Any) -> EvaluatedFlash:
    found = machine(**changes).evaluate(env or {}).devices["ssd"]
    assert isinstance(found, EvaluatedFlash)
    return found


def library(name: str, part: str) -> EvaluatedFlash:
    found = Architecture.load(name).evaluate({}).devices[part]
    assert isinstance(found, EvaluatedFlash)
    return found


def test_random_reads_of_the_laptop_are_those_that_its_paper_measured() -> None:
    """LLM in a flash: 1.25 GB/s in chunks of 8 KiB, 2.25 GB/s of 16 KiB with 32 threads, 6.1 GB/s in large reads."""
    rates = library("m1-max-flash", "ssd").read_bytes_per_s([8 * KIB, 16 * KIB, KIB * KIB], 32)
    np.testing.assert_allclose(rates, [1.25e9, 2.25e9, 6.1e9], rtol=0.05)


def test_small_reads_are_bound_by_latency_and_large_ones_by_the_channels() -> None:
    """LLM in a flash: chunks of 32 KiB and more, and many threads, are needed."""
    laptop = library("m1-max-flash", "ssd")
    sizes = np.array([4, 8, 16, 32, 64, 128, 1024]) * KIB
    rates = laptop.read_bytes_per_s(sizes, 32)
    assert (np.diff(rates) > 0).all()
    assert rates[0] < 0.15 * rates[-1] and rates[3] > 0.5 * rates[-1]
    assert laptop.read_bytes_per_s(4 * KIB, 1) < 0.1 * rates[0]


def test_the_drive_reads_pages_as_fast_as_published() -> None:
    """InstInfer: 7.66 GB/s of 11.2 GB/s while SparF reads whole pages."""
    csd = library("instcsd", "csd")
    assert csd.bandwidth_bytes_per_s == pytest.approx(11.2e9)
    assert float(csd.read_bytes_per_s(4 * KIB)) == pytest.approx(7.66e9, rel=0.05)


def test_the_ssd_reads_and_writes_at_the_rates_of_its_data_sheet() -> None:
    """Samsung 980 Pro: 7 GB/s in sequential reads; 82 MB/s in each of 32 dies when nothing caches writes."""
    ssd = library("flexgen-ssd", "ssd")
    assert float(ssd.read_bytes_per_s(KIB * KIB, 32)) == pytest.approx(7e9, rel=0.03)
    assert 16 * KIB / float(ssd.program_s(1)) == pytest.approx(32 * 82e6, rel=0.03)


def test_a_lone_read_takes_sensing_and_transfer() -> None:
    box = drive(request_latency="10 us")
    transfer = 4 * KIB / 1e9
    assert float(box.read_s(1, 4000, 1)) == pytest.approx(60e-6 + transfer)
    assert float(box.read_s(10, 4000, 1)) == pytest.approx(10 * (60e-6 + transfer))


def test_neighbouring_pages_are_sensed_together() -> None:
    box = drive()
    assert float(box.pages(33 * KIB)) == 3 and float(box.operations(33 * KIB)) == 2
    both = float(box.read_s(1, 32 * KIB, 1))
    assert both == pytest.approx(50e-6 + 32 * KIB / 1e9)


def test_planes_that_read_on_their_own_serve_small_requests_side_by_side() -> None:
    """Each plane of a die takes another request of a page or less; what needs all planes gains nothing."""
    together, apart = drive(planes=4), drive(planes=4, sense_units=4)
    many = 100_000
    assert many / float(together.read_s(many, 4 * KIB, 4096)) == pytest.approx(8 / 50e-6, rel=0.02)
    assert many / float(apart.read_s(many, 4 * KIB, 4096)) == pytest.approx(32 / 50e-6, rel=0.03)
    half = drive(planes=4, sense_units=2, channel_bandwidth="10 GB/s")
    for size, requests in ((33 * KIB, 1), (32 * KIB, 2)):  # three pages take both groups of two planes
        assert many / float(half.read_s(many, size, 4096)) == pytest.approx(requests * 8 / 50e-6, rel=0.03)
    for size in (64 * KIB, 128 * KIB):
        assert float(apart.read_s(many, size, 16)) == float(together.read_s(many, size, 16))
    assert float(apart.program_s(16)) == float(together.program_s(16))
    assert float(apart.read_s(1, 4 * KIB, 1)) == float(together.read_s(1, 4 * KIB, 1))


def test_random_reads_of_the_ssd_are_nearer_to_its_data_sheet_with_planes_on_their_own() -> None:
    """980 Pro of 2 TB: a million reads of 4 KiB a second; what limits its controller is not modelled."""
    assert float(library("flexgen-ssd", "ssd").read_bytes_per_s(4 * KIB, 512)) / 4096 == pytest.approx(1e6, rel=0.35)


def test_a_drive_at_full_rate_draws_what_its_data_sheet_says() -> None:
    """980 Pro: 6.2 W on average, 8.49 W at most, from the energy of its pages."""
    ssd = library("flexgen-ssd", "ssd")
    pages_per_s = float(ssd.read_bytes_per_s(KIB * KIB, 32)) / (16 * KIB)
    assert 0.9 * 6.2 < pages_per_s * float(ssd.read_energy_j) < 8.49


@pytest.mark.parametrize("units", [3, 4])
def test_groups_that_do_not_divide_the_planes_are_refused(units: int) -> None:
    with pytest.raises(SpecError, match=rf"flash\.ssd\.sense_units: '{units}' does not divide the planes"):
        drive(sense_units=units)


def test_pages_are_programmed_in_all_planes_or_as_fast_as_the_channels_bring_them() -> None:
    assert float(drive().program_s(16)) == pytest.approx(500e-6)
    slow = drive(channel_bandwidth="10 MB/s")
    assert float(slow.program_s(16)) == pytest.approx(16 * 16 * KIB / 40e6)


def test_picking_vectors_out_of_pages_can_be_slower_than_reading_them() -> None:
    pages = 10_000
    assert float(drive().pick_s(pages)) == float(drive().read_s(pages, 16 * KIB))
    assert float(drive(filter_bandwidth="10 MB/s").pick_s(pages)) == pytest.approx(pages * 16 * KIB / 10e6)


def test_nothing_takes_no_time() -> None:
    np.testing.assert_array_equal(drive().read_s([0, 5], [4096, 0]), [0, 0])


def test_design_points_are_independent() -> None:
    source = {"architecture": "box", "clock": "1 GHz", "word_bits": 16, "variables": {"N": 4}, "memories": {"DRAM": {}}}
    box = Architecture.parse({**source, "flash": {"ssd": {**DRIVE, "channels": "N"}}})
    together = box.evaluate({"N": np.array([2.0, 4.0, 8.0])}).devices["ssd"]
    assert isinstance(together, EvaluatedFlash)
    apart = [drive(channels=n) for n in (2, 4, 8)]
    found = together.read_s(np.full((3, 1), 1000.0), np.array([[4096.0, 65536.0]]))
    expected = [[float(each.read_s(1000, size)) for size in (4096, 65536)] for each in apart]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_drive_without_a_page_is_refused_by_name() -> None:
    with pytest.raises(SpecError, match=r"flash\.ssd: the field 'page' is missing"):
        Architecture.parse({
            "architecture": "box", "clock": "1 GHz", "word_bits": 16, "memories": {"DRAM": {}},
            "flash": {"ssd": {key: value for key, value in DRIVE.items() if key != "page"}},
        })  # fmt: skip
    with pytest.raises(SpecError, match="taken"):
        Architecture.parse({
            "architecture": "box", "clock": "1 GHz", "word_bits": 16, "memories": {"ssd": {}}, "flash": {"ssd": DRIVE},
        })  # fmt: skip
