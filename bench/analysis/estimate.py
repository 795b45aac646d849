"""A number and its 95 % interval, from readings taken in several rounds.

A round is a fresh process at a fresh moment, so the spread *between* rounds is what a reader who reruns the sweep
will see; samples inside one round share its luck. With R rounds the interval therefore comes from the R round
medians, on the log scale: Student's t around their median. Below six rounds no distribution-free 95 % interval
exists at all (the range of R values holds the median with probability 1 - 2^(1-R)), so the spread of one cell is
steadied by that of the other cells of its run: the empirical-Bayes variance of Smyth (2004,
doi 10.2202/1544-6115.1027).

Every estimate carries draws from its distribution, so that whatever is computed from several estimates (an exponent,
a crossing) gets its interval by doing the same computation draw by draw.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

Floats = NDArray[np.float64]
Covers = Literal["rounds", "samples", "nothing"]

LEVEL = 0.95
N_DRAWS = 2000
# Variance of the median of many normal values over that of their mean; for three or more it is at most this.
MEDIAN_VARIANCE = math.pi / 2
# Of an error on the log scale: two wild rounds have tails beyond what a float holds.
MOST_LOG = 50.0
# Fewer spreads than this say nothing about how spreads themselves vary.
MIN_SPREADS = 4


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        value: the point estimate.
        low, high: ends of the interval; NaN where the readings allow none.
        covers: which variation the interval covers: between ``rounds`` (samples inside them included), between the
            ``samples`` of a single round, or ``nothing`` (one reading).
        draws: ``(N_DRAWS,)`` draws from the estimate's distribution, for intervals of derived quantities.
        error: standard error of the value's logarithm; NaN for derived quantities.
        df: degrees of freedom of ``error``.
    """

    value: float
    low: float
    high: float
    covers: Covers = "rounds"
    draws: Floats = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    error: float = math.nan
    df: float = math.nan

    @classmethod
    def from_draws(cls, value: float, draws: Floats, covers: Covers = "rounds") -> Estimate:
        """Interval ends are the outer quantiles of the draws, which may be infinite."""
        low = high = math.nan
        if covers != "nothing":
            first = int((1 - LEVEL) / 2 * (len(draws) - 1))
            ends = first, len(draws) - 1 - first
            low, high = np.partition(draws, ends)[[*ends]].tolist()
        return cls(value, low, high, covers, draws)

    def map(self, factor: float, power: float = 1.0) -> Estimate:
        """The estimate of ``factor * x ** power``."""
        ends = (factor * self.low**power, factor * self.high**power)
        low, high = ends if power > 0 else ends[::-1]
        return Estimate(factor * self.value**power, low, high, self.covers, factor * self.draws**power)

    def times(self, other: Estimate) -> Estimate:
        """The product of two independent estimates."""
        return Estimate.from_draws(self.value * other.value, self.draws * other.draws, weakest((self, other)))

    def over(self, other: Estimate) -> Estimate:
        """The ratio of two independent estimates."""
        return Estimate.from_draws(self.value / other.value, self.draws / other.draws, weakest((self, other)))


@dataclass(frozen=True)
class Spread:
    """What a run's cells together say about the between-round variance of one cell (log scale).

    Attributes:
        variance: the typical variance of a round median.
        df: how many degrees of freedom that knowledge is worth; 0 when the cells say nothing.
    """

    variance: float = 0.0
    df: float = 0.0


def pool_spreads(cells: Sequence[Sequence[Sequence[float]]]) -> Spread:
    """The prior of between-round variances, by moments of their logarithms (Smyth 2004, section 6.2).

    Args:
        cells: for each cell, the samples of each of its rounds.
    """
    logs = [_round_medians(rounds) for rounds in cells if len(rounds) > 1]
    pairs = [(float(np.var(values, ddof=1)), len(values) - 1) for values in logs]
    variances, dfs = (np.array(column, dtype=float) for column in zip(*pairs, strict=True)) if pairs else ([], [])
    positive = np.asarray(variances) > 0
    if np.count_nonzero(positive) < MIN_SPREADS:
        return Spread()
    variances, dfs = np.asarray(variances)[positive], np.asarray(dfs)[positive]
    z = np.log(variances) - special.digamma(dfs / 2) + np.log(dfs / 2)
    excess = float(np.var(z, ddof=1) - np.mean(special.polygamma(1, dfs / 2)))
    # The data cannot be worth more degrees of freedom than they have.
    df = min(2 * _inverse_trigamma(excess), float(dfs.sum())) if excess > 0 else float(dfs.sum())
    return Spread(math.exp(float(z.mean()) + float(special.digamma(df / 2)) - math.log(df / 2)), df)


def weakest(estimates: Iterable[Estimate]) -> Covers:
    """What the interval of a quantity covers that is derived from several estimates."""
    order: tuple[Covers, ...] = ("nothing", "samples", "rounds")
    return min((each.covers for each in estimates), key=order.index)


def estimate(rounds: Sequence[Sequence[float]], spread: Spread, *, key: str) -> Estimate:
    """Median over rounds of the round medians, with its interval.

    Args:
        rounds: the samples of each round, all positive.
        spread: prior knowledge of the between-round variance.
        key: names the estimate; the same key gives the same draws in every process.
    """
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode(errors="replace")).digest()[:8], "big"))
    logs = _round_medians(rounds)
    centre = statistics.median(logs)
    df = len(logs) - 1 + spread.df
    if df > 0:
        own = float(np.var(logs)) * len(logs)
        variance = (own + spread.variance * spread.df) / df
        penalty = MEDIAN_VARIANCE if len(logs) > 2 else 1.0
        error = math.sqrt(variance * penalty / len(logs))
        draws = np.exp(centre + np.clip(error * rng.standard_t(df, N_DRAWS), -MOST_LOG, MOST_LOG))
        return replace(Estimate.from_draws(math.exp(centre), draws), error=error, df=df)
    return _within_one_round(np.sort(np.asarray(rounds[0], dtype=float)), rng)


def _within_one_round(samples: Floats, rng: np.random.Generator) -> Estimate:
    """The share of a distribution below its sample median is Beta distributed, whatever the distribution."""
    n = len(samples)
    value = float(np.median(samples))
    if n == 1:
        return Estimate.from_draws(value, np.full(N_DRAWS, value), "nothing")
    shares = rng.beta((n + 1) / 2, (n + 1) / 2, N_DRAWS)
    draws = np.interp(shares, np.arange(1, n + 1) / (n + 1), samples)
    return replace(Estimate.from_draws(value, draws, "samples"), error=float(np.std(np.log(draws))), df=n - 1)


def _round_medians(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [math.log(statistics.median(samples)) for samples in rounds]


def _inverse_trigamma(value: float) -> float:
    """x with trigamma(x) = value; trigamma falls steadily from infinity to 0."""
    if value > 1e7:
        return 1 / math.sqrt(value)
    if value < 1e-6:
        return 1 / value
    return float(optimize.brentq(lambda x: float(special.polygamma(1, x)) - value, 1e-4, 1e7))
