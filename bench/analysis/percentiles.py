"""How long the slow ones of many readings take: percentiles with distribution-free intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy import special

from bench.analysis.estimate import LEVEL, Estimate

PERCENTILES = (50, 90, 99)


def percentile(readings: Sequence[float], percent: int) -> Estimate | None:
    """A percentile and its 95 % interval between two order statistics; None where so few readings hold none.

    The number of readings below the true percentile is binomial, so the ranks are quantiles of that distribution
    (Conover, Practical Nonparametric Statistics, section 3.2): 6 readings hold a 50th percentile, 36 a 90th, 368 a
    99th.

    Args:
        readings: taken independently.
        percent: 50 is the median.
    """
    n, share, tail = len(readings), percent / 100, (1 - LEVEL) / 2
    ranks = range(1, n + 1)
    below = special.bdtr([rank - 1 for rank in ranks], n, share)  # that the reading of a rank is above it
    low = int((below <= tail).sum())  # the last rank that is too high that rarely
    high = int((below < 1 - tail).sum()) + 1
    if not 1 <= low < high <= n:
        return None
    ordered = sorted(readings)
    return Estimate(ordered[math.ceil(n * share) - 1], ordered[low - 1], ordered[high - 1], "samples")
