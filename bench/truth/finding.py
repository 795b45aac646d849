"""What one truth test found, and the rule by which its mark is reached."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

Outcome = Literal["pass", "ambiguous", "fail"]
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One figure against its mark.

    Attributes:
        name: what was tested.
        figure: what was found, for people.
        mark: what passes, for people.
        outcome: ``fail`` where the figure misses its mark by more than its own uncertainty; ``ambiguous`` where it
            misses it by less, so that this machine was too busy, or the test too short, to tell.
    """

    name: str
    figure: str
    mark: str
    outcome: Outcome


def judge_error(error: float, low: float, high: float, tolerance: float, *, disturbed: bool) -> Outcome:
    """Whether ``error``, with its 95 % interval from ``low`` to ``high``, is within ``tolerance`` of zero.

    Args:
        disturbed: whether others took the processor away meanwhile. That lengthens long iterations more than short
            ones in every round alike, which no interval can show.
    """
    if abs(error) <= tolerance:
        return "pass"
    return "ambiguous" if disturbed or (low <= tolerance and high >= -tolerance) else "fail"


def judge_share(count: int, total: int, *, at_most: float | None = None, at_least: float | None = None) -> Outcome:
    """Whether ``count`` of ``total`` is within a bound; beyond it, whether the exact binomial interval still is."""
    if at_least is not None:
        return judge_share(total - count, total, at_most=1 - at_least)
    assert at_most is not None
    if count <= at_most * total + 1e-9:
        return "pass"
    low = stats.binomtest(count, total).proportion_ci(LEVEL).low
    return "ambiguous" if low <= at_most else "fail"


def median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median of ``values`` and Student's 95 % interval around it, with the median's larger variance."""
    centre = float(np.median(values))
    if len(values) < 2:
        return centre, -math.inf, math.inf
    error = float(np.std(values, ddof=1)) * math.sqrt(math.pi / 2 / len(values))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * error
    return centre, centre - half, centre + half
