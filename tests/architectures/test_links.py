"""Links: what PCI Express carries, and paths over parts that there are."""

from __future__ import annotations

from typing import Any

import pytest

from architectures import Architecture
from einsum import SpecError


def system(**sections: Any) -> Architecture:
    base = {"architecture": "box", "clock": "1 GHz", "word_bits": 16, "memories": {"DRAM": {"bandwidth": "50 GB/s"}}}
    return Architecture.parse({**base, **sections})


@pytest.mark.parametrize(("lanes", "transfers_per_s", "published"), [(4, 16e9, 7e9), (4, 8e9, 3.5e9), (16, 16e9, 28e9)])
def test_a_link_carries_what_drives_and_gpus_reach_over_it(
    lanes: int, transfers_per_s: float, published: float
) -> None:
    """Drives on four lanes of PCI Express 4 reach 7 GB/s, on those of the third generation 3.5 GB/s."""
    link = system(links={"pcie": {"lanes": lanes, "lane_rate": transfers_per_s / 8}}).evaluate({}).devices["pcie"]
    assert link.bandwidth_bytes_per_s == pytest.approx(published, rel=0.03)


def test_larger_packets_carry_more() -> None:
    rates = [
        system(links={"pcie": {"lanes": 4, "lane_rate": 2e9, "payload": payload}}).evaluate({}).devices["pcie"]
        for payload in (128, 256, 512)
    ]
    small, usual, large = (rate.bandwidth_bytes_per_s for rate in rates)
    assert small < usual < large < 4 * 2e9 * 128 / 130


def test_paths_lead_over_links_and_memories() -> None:
    links = {"pcie": {"lanes": 4, "lane_rate": 2e9}}
    machine = system(links=links, paths={"root": {"over": ["pcie", "DRAM"]}})
    assert machine.evaluate({}).paths == {"root": ("pcie", "DRAM")}
    assert machine.parse(machine.data()).data() == machine.data()
    with pytest.raises(SpecError, match=r"paths\.root\.over: .*'pci' is neither.*'pcie'"):
        system(links=links, paths={"root": {"over": ["pci"]}})


def test_a_links_numbers_have_names() -> None:
    names = system(links={"pcie": {"lanes": 4, "lane_rate": 2e9, "copies": 3}}).evaluate({}).names()
    assert names["pcie.copies"] == 3 and names["pcie.bandwidth_bytes_per_s"] > 7e9
