"""What is read of the GPU while kernels run."""

from __future__ import annotations

from kernels.gpu import Monitor, Readings


class PretendMonitor(Monitor):
    """A GPU whose clock falls with every reading."""

    INTERVAL_S = 0.0

    def __init__(self, clocks: list[float | None]) -> None:
        self.clocks = clocks
        self.reads = 0

    def read(self) -> Readings:
        """The next clock; temperature rises."""
        self.reads += 1
        return Readings(sm_clock_mhz=self.clocks[self.reads - 1], temperature_c=40.0 + self.reads)


def test_clocks_are_the_median_while_work_runs() -> None:
    monitor = PretendMonitor([1980.0, 1800.0, 1500.0, 1400.0])
    readings = monitor.watch(lambda: monitor.reads >= 3)
    assert (monitor.reads, readings.sm_clock_mhz, readings.temperature_c) == (3, 1800.0, 43.0)


def test_work_that_is_over_is_read_once() -> None:
    monitor = PretendMonitor([1980.0])
    assert monitor.watch(lambda: True).sm_clock_mhz == 1980.0
    assert monitor.reads == 1


def test_a_driver_that_says_nothing_leaves_nothing() -> None:
    assert PretendMonitor([None]).watch(lambda: True) == Readings(temperature_c=41.0)
