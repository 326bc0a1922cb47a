"""The order statistics that summarise repetitions."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.gpu import Readings
from kernels.plan import TimingPlan
from kernels.timing import Stopwatch, quantile


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("count", [1, 2, 10, 41])
def test_quantiles_are_numpys(count: int, share: float) -> None:
    values = sorted(np.random.default_rng(count).random(count).tolist())
    assert quantile(values, share) == pytest.approx(np.quantile(values, share))


class Disturbed(Stopwatch):
    """A stopwatch that has such runs in turn, without a GPU."""

    def __init__(self, attempts: list[list[float]]) -> None:
        self.attempts, self.asked = attempts, 0

    def flush(self) -> None:
        """Nothing to flush."""

    def _repeat(self, run: object, prepare: object, count: int) -> tuple[list[float], Readings]:
        if count == 3:  # the estimate
            return [1.0] * 3, Readings()
        self.asked += 1
        return self.attempts[self.asked - 1], Readings(self.asked)


STEADY, WILD, WORSE = [1.0, 1.01, 1.02, 1.03], [1.0, 3.0, 3.1, 9.0], [1.0, 9.0, 9.0, 9.0]


@pytest.mark.parametrize(
    "attempts, asked, taken",
    [([STEADY, WILD], 1, 1), ([WILD, STEADY], 2, 2), ([WORSE, WILD, WORSE], 3, 2)],
)
def test_disturbed_runs_are_done_again(attempts: list[list[float]], asked: int, taken: int) -> None:
    watch = Disturbed(attempts)
    found = watch.time(lambda: None, TimingPlan(min_repetitions=10))
    assert watch.asked == asked
    assert found.ms == quantile(attempts[taken - 1], 0.5) and found.readings == Readings(taken)
