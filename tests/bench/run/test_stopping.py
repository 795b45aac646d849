"""When timing stops: checked on clocks whose readings are known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from scipy import stats

from bench.run import stopping


class KnownClock:
    """Gives out readings in order, and keeps count of the iterations."""

    def __init__(self, readings: Iterator[float]) -> None:
        self._readings = readings
        self.given: list[float] = []

    def read(self, step: Callable[[], object], n: int) -> list[float]:
        taken = [next(self._readings) for _ in range(n)]
        self.given += taken
        return taken


def nothing() -> None:
    pass


def test_steady_readings_stop_once_the_interval_is_narrow() -> None:
    clock = KnownClock(itertools.repeat(0.001))
    samples, ended_by = stopping.collect(clock, nothing, 1.0, first_s=0.001)
    assert ended_by == "interval of the median within 2%"
    assert 0.1 <= sum(samples) <= 0.1 + 2 * stopping.READING_S


def test_scattered_readings_stop_when_the_budget_is_spent() -> None:
    clock = KnownClock(itertools.cycle([0.01, 0.03]))
    samples, ended_by = stopping.collect(clock, nothing, 1.0, first_s=0.01)
    assert ended_by.startswith("budget of 1 s spent, interval of the median +-50.0%")
    assert 1.0 <= sum(samples) <= 1.0 + 2 * 0.03


class DriftingClock:
    """A machine that grows slower with every reading, under two steps whose ratio is 3."""

    def __init__(self) -> None:
        self.order: list[str] = []

    def read(self, step: Callable[[], object], n: int) -> list[float]:
        self.order.append(str(step()))
        cost = {"ours": 0.01, "theirs": 0.03}[self.order[-1]]
        return [cost * 1.01 ** len(self.order)] * n


def test_turns_cancel_a_drift() -> None:
    clock = DriftingClock()
    found = stopping.collect_in_turns(clock, lambda: "theirs", lambda: "ours", 0.5, first_s=1.0, other_first_s=1.0)
    theirs, ours, ratios, ended_by = found
    assert ended_by == "interval of the median ratio within 2%"
    assert clock.order[:4] == ["theirs", "ours", "ours", "theirs"]  # swapped, so that neither always comes first
    assert np.median(ratios) == pytest.approx(3, rel=0.011)
    assert math.log(theirs[-1] / theirs[0]) > 0.05
    assert len(theirs) == len(ours) == len(ratios)


def test_turns_of_long_iterations_end_soon() -> None:
    clock = KnownClock(itertools.repeat(2.0))
    samples, others, ratios, ended_by = stopping.collect_in_turns(
        clock, nothing, nothing, 1.0, first_s=2.0, other_first_s=2.0
    )
    assert (samples, others, ratios) == ([2.0, 2.0], [2.0, 2.0], [1.0, 1.0])
    assert ended_by == "budget of twice 1 s spent, ratio: too few turns for an interval"


@pytest.mark.parametrize(("seconds", "count"), [(5.0, 2), (0.9, 3), (0.4, 3), (0.3, 4)])
def test_long_iterations_are_run_no_more_than_needed(seconds: float, count: int) -> None:
    clock = KnownClock(itertools.repeat(seconds))
    samples, _ = stopping.collect(clock, nothing, 1.0, first_s=seconds)
    assert len(samples) == count
    assert clock.given == samples


def test_readings_that_still_fall_are_not_counted() -> None:
    falling = [0.010 * 0.8**n for n in range(40)]
    steady = falling[-1]
    clock = KnownClock(itertools.chain(falling, itertools.repeat(steady)))
    samples, _ = stopping.collect(clock, nothing, 1.0, first_s=0.010)
    assert max(samples) <= 1.5 * steady


@pytest.mark.parametrize("n", [6, 7, 10, 25, 50, 51, 200, 1000, 1001, 5000])
def test_the_interval_of_the_median_is_the_narrowest_that_covers(n: int) -> None:
    rank = stopping.interval_rank(n)
    coverage = 1 - 2 * stats.binom.cdf(rank - 1, n, 0.5)
    narrower = 1 - 2 * stats.binom.cdf(rank, n, 0.5)
    assert coverage >= 0.95
    assert narrower < 0.951
    ranks = [float(each) for each in range(1, n + 1)]
    expected = (n + 1 - 2 * rank) / 2 / float(np.median(ranks))
    assert stopping.relative_half_width(ranks) == pytest.approx(expected)


def test_few_samples_have_no_interval() -> None:
    assert stopping.relative_half_width([1.0] * 5) == math.inf
