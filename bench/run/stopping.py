"""When to stop timing: once the median is known well enough, or its time is spent."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from bench.run.probes.wall import Clock

TARGET = 0.02  # half the width of the 95 % interval of the median, over the median
EXACT_UP_TO = 1000  # samples; from there on the normal distribution is close enough, and 2**-n is soon 0
FEWEST = 6  # below six samples no 95 % interval of the median exists
LEAST_SHARE = 0.1  # of the budget, spent whatever the interval says: neighbouring readings are alike by chance
WARM_UP_SHARE = 0.2  # of the budget, at most
READING_S = 0.02  # iterations shorter than this are read several at a time


def collect(clock: Clock, step: Callable[[], object], budget_s: float, *, first_s: float) -> tuple[list[float], str]:
    """Time ``step`` until the interval of the median is narrow enough or ``budget_s`` is spent.

    Args:
        clock: what reads the time.
        step: one iteration.
        budget_s: seconds of timed iterations. An iteration that alone takes longer is timed twice.
        first_s: seconds that an earlier iteration took, roughly.

    Returns:
        Seconds of each iteration, and one line on what ended the timing.
    """
    warm_s = warm_up(clock, step, budget_s * WARM_UP_SHARE, first_s)
    samples: list[float] = []
    spent = 0.0
    while True:
        n = max(1, int(min(READING_S, budget_s - spent) / warm_s))
        readings = clock.read(step, n)
        samples += readings
        spent += sum(readings)
        half = relative_half_width(samples)
        if half <= TARGET and spent >= LEAST_SHARE * budget_s:
            return samples, f"interval of the median within {TARGET:.0%}"
        if spent >= budget_s and len(samples) >= (2 if samples[0] > budget_s else 3):
            width = f"interval of the median +-{half:.1%}" if math.isfinite(half) else "too few samples for an interval"
            return samples, f"budget of {budget_s:g} s spent, {width}"


def collect_in_turns(
    clock: Clock,
    step: Callable[[], object],
    other: Callable[[], object],
    budget_s: float,
    *,
    first_s: float,
    other_first_s: float,
) -> tuple[list[float], list[float], list[float], str]:
    """Time ``step`` and ``other`` a few iterations each in turn, in swapped order every other time.

    Whatever slows the machine for longer than a turn slows both, so their ratio is known better than either.

    Args:
        clock, step, first_s: as in `collect`.
        other, other_first_s: one iteration of what it is compared with, and its seconds, roughly.
        budget_s: seconds of timed iterations of each of the two.

    Returns:
        Seconds of each iteration of ``step`` and of ``other``, for each turn the median of the first over that of the
        second, and one line on what ended the timing.
    """
    both = (step, other)
    firsts = zip(both, (first_s, other_first_s), strict=True)
    n = [max(1, int(READING_S / warm_up(clock, each, budget_s * WARM_UP_SHARE, first))) for each, first in firsts]
    samples: tuple[list[float], list[float]] = ([], [])
    ratios: list[float] = []
    while True:
        medians = [0.0, 0.0]
        for side in (0, 1) if len(ratios) % 2 == 0 else (1, 0):
            readings = clock.read(both[side], n[side])
            samples[side].extend(readings)
            medians[side] = statistics.median(readings)
        ratios.append(medians[0] / medians[1])
        spent, half = sum(samples[0]) + sum(samples[1]), relative_half_width(ratios)
        if half <= TARGET and spent >= 2 * LEAST_SHARE * budget_s:
            return *samples, ratios, f"interval of the median ratio within {TARGET:.0%}"
        if spent >= 2 * budget_s and len(ratios) >= 2:
            width = f"interval of the median +-{half:.1%}" if math.isfinite(half) else "too few turns for an interval"
            return *samples, ratios, f"budget of twice {budget_s:g} s spent, ratio: {width}"


def warm_up(clock: Clock, step: Callable[[], object], most_s: float, first_s: float) -> float:
    """Iterate until readings no longer fall, for ``most_s`` at most; not at all where one iteration takes longer.

    Returns:
        Seconds of an iteration, roughly.
    """
    last, spent = first_s, 0.0
    while spent + last <= most_s:
        readings = clock.read(step, max(3, int(READING_S / max(last, 1e-9))))
        spent += sum(readings)
        typical = statistics.median(readings)
        if typical > last * (1 - TARGET):
            return typical
        last = typical
    return max(last, 1e-9)


def relative_half_width(samples: list[float]) -> float:
    """Half the width of the 95 % interval of the median, over the median; infinite below six samples.

    The interval lies between two order statistics whose ranks come from the binomial distribution with p = 1/2
    (Conover, Practical Nonparametric Statistics, section 3.2).
    """
    n = len(samples)
    if n < FEWEST:
        return math.inf
    rank = interval_rank(n)
    ordered = sorted(samples)
    return (ordered[n - rank] - ordered[rank - 1]) / 2 / statistics.median(ordered)


def interval_rank(n: int) -> int:
    """Rank, from 1, of the sample at the lower end of the 95 % interval; the upper end mirrors it."""
    if n > EXACT_UP_TO:
        return math.floor((n - 1.96 * math.sqrt(n)) / 2)
    rank, term = 0, 2.0**-n
    tail = term
    while tail <= 0.025:
        term *= (n - rank) / (rank + 1)
        tail += term
        rank += 1
    return rank
