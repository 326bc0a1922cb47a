"""The order statistics that summarise repetitions."""

from __future__ import annotations

import numpy as np
import pytest

from kernels.timing import quantile


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("count", [1, 2, 10, 41])
def test_quantiles_are_numpys(count: int, share: float) -> None:
    values = sorted(np.random.default_rng(count).random(count).tolist())
    assert quantile(values, share) == pytest.approx(np.quantile(values, share))
