"""Percentiles exist from as many readings on as the binomial distribution demands, and hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.analysis.percentiles import PERCENTILES, percentile


@pytest.mark.parametrize("percent", PERCENTILES)
def test_so_many_readings_are_needed(percent: int) -> None:
    """The largest of n readings is below the percentile with probability share**n, which has to be at most 2.5 %."""
    share = percent / 100
    least = math.ceil(math.log(0.025) / math.log(share))
    assert percentile(range(1, least), percent) is None
    found = percentile(range(1, least + 1), percent)
    assert found is not None
    assert found.high == least
    assert found.low <= found.value == math.ceil(least * share) <= found.high


def test_ranks_of_a_table() -> None:
    """Ranks of the median, as statistical tables have them."""
    for n, low, high in ((10, 2, 9), (20, 6, 15), (50, 18, 33)):
        found = percentile(list(range(n, 0, -1)), 50)
        assert found is not None
        assert (found.low, found.high) == (low, high)


@pytest.mark.parametrize(("percent", "n"), [(50, 40), (90, 100), (99, 1000)])
def test_intervals_hold_the_true_percentile(percent: int, n: int) -> None:
    rng = np.random.default_rng(percent)
    truth, held = -math.log(1 - percent / 100), 0
    for _ in range(400):
        found = percentile(rng.exponential(size=n).tolist(), percent)
        assert found is not None
        held += found.low <= truth <= found.high
    assert held >= 0.93 * 400
