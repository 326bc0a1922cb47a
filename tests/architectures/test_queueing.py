"""Closed queueing networks against a simulation of the same network, and at the limits that can be worked out."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from architectures.queueing import Station, throughput_per_s

US = 1e-6


def simulated_per_s(requests: int, delay_s: float, stations: list[tuple[int, float]], wanted: int = 20_000) -> float:
    """Requests per second, played one by one: first come, first served at a server that is drawn evenly."""
    random = np.random.default_rng(0)
    free = [np.zeros(servers) for servers, _ in stations]
    queue = [(0.0, request, 0) for request in range(requests)]
    done, now = 0, 0.0
    while done < wanted:
        now, request, stage = heapq.heappop(queue)
        if stage == len(stations):
            done += 1
            heapq.heappush(queue, (now + delay_s, request, 0))
            continue
        servers, service = stations[stage]
        server = random.integers(servers)
        free[stage][server] = max(now, free[stage][server]) + service
        heapq.heappush(queue, (float(free[stage][server]), request, stage + 1))
    return done / now


@pytest.mark.parametrize(
    ("requests", "delay_s", "stations"),
    [
        (1, 50 * US, [(16, 75 * US), (8, 10 * US)]),
        (32, 50 * US, [(16, 75 * US), (8, 10.7 * US)]),
        (32, 50 * US, [(16, 75 * US), (8, 21.5 * US)]),
        (128, 0.0, [(64, 25 * US), (8, 2.9 * US)]),
        (8, 10 * US, [(64, 45 * US), (8, 18.7 * US)]),
        (4, 0.0, [(16, 45 * US)]),
        (64, 0.0, [(8, 10 * US)]),
    ],
)
def test_throughput_is_that_of_the_simulated_network(
    requests: int, delay_s: float, stations: list[tuple[int, float]]
) -> None:
    model = float(throughput_per_s(requests, delay_s, [Station(*station) for station in stations]))
    assert model == pytest.approx(simulated_per_s(requests, delay_s, stations), rel=0.03)


def test_one_request_waits_for_nothing() -> None:
    stations = [Station(16, 75 * US), Station(8, 10 * US)]
    assert float(throughput_per_s(1, 20 * US, stations)) == pytest.approx(1 / (105 * US))


def test_many_requests_fill_the_busiest_station() -> None:
    rate = throughput_per_s([10_000, 100_000], 0.0, [Station(64, 25 * US), Station(8, 3 * US)])
    np.testing.assert_allclose(rate, [min(64 / 25, 8 / 3) / US] * 2, rtol=0.01)
    assert (rate <= 2.56 / US).all()


def test_more_requests_never_slow_it_down() -> None:
    requests = np.arange(1, 400)
    rate = throughput_per_s(requests, 10 * US, [Station(16, 75 * US), Station(8, 10 * US)])
    assert (np.diff(rate) >= 0).all()
    single = [float(throughput_per_s(n, 10 * US, [Station(16, 75 * US), Station(8, 10 * US)])) for n in (1, 32, 399)]
    np.testing.assert_allclose(rate[[0, 31, 398]], single, rtol=1e-6)


def test_alike_classes_have_the_solution_of_one() -> None:
    """(points, classes): the same, worked out once or for each class."""
    requests = np.array([[4.0], [40.0]])
    stations = [Station(np.array([[16.0], [8.0]]), 75 * US), Station(8, np.array([10 * US] * 3))]
    together = throughput_per_s(requests, 10 * US, stations)
    assert together.shape == (2, 3)
    for point, servers in enumerate((16, 8)):
        alone = throughput_per_s(requests[point, 0], 10 * US, [Station(servers, 75 * US), Station(8, 10 * US)])
        np.testing.assert_allclose(together[point], alone, rtol=1e-9)
