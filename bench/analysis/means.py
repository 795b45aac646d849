"""Means over users and seeds with their intervals, and whether two models differ by more than chance.

A metric is a matrix: a row a seed, a column a user. Both were drawn from many, so both add to the interval of the
mean: the two-way random-effects model without replication, whose mean has the variance
``(MS_users + MS_seeds - MS_residual) / (n_seeds * n_users)``, with Satterthwaite's degrees of freedom (Searle, Casella,
McCulloch: Variance Components, 1992, chapter 4).

Whether two models differ is tested user by user, both models' seeds averaged: flipping the sign of a user's difference
is as likely as not when there is none (Smucker, Allan, Carterette, CIKM 2007, doi 10.1145/1321440.1321528). P-values of
one data set are corrected together by Holm's method.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]

LEVEL = 0.95
N_FLIPS = 10_000
FLIPS_A_TEST = 100  # at least, for each test that is corrected with it: the smallest p there can be stays below 0.01
FLIP_CELLS = 20_000_000  # signs held at a time


@dataclass(frozen=True)
class Mean:
    """A mean over users and seeds with its 95 % interval.

    Attributes:
        value: the mean.
        low, high: ends of the interval; NaN where a single user gives none.
        covers_seeds: whether seeds add to the interval; one seed says nothing of others.
    """

    value: float
    low: float
    high: float
    covers_seeds: bool


def mean_of(matrix: Floats) -> Mean:
    """Mean of (n_seeds, n_users) with its interval."""
    value, error, df = standard_error(matrix)
    half = error * float(special.stdtrit(df, (1 + LEVEL) / 2)) if df > 0 else math.nan
    return Mean(value, value - half, value + half, len(matrix) > 1)


def mean_share(matrix: Floats) -> Mean:
    """The same of shares, whose mean lies between 0 and 1."""
    mean = mean_of(matrix)
    return replace(mean, low=float(np.clip(mean.low, 0, 1)), high=float(np.clip(mean.high, 0, 1)))


def permutation_p(differences: Floats, key: str, n_tests: int = 1) -> float:
    """Two-sided p-value of a mean difference of zero, by random flips of the users' signs.

    Args:
        differences: one a user; users who do not differ say nothing and are left out.
        key: names the test; the same key gives the same flips in every process.
        n_tests: that it will be corrected with.
    """
    given = differences[differences != 0]
    if not len(given):
        return 1.0
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
    observed = abs(given.sum()) * (1 - 1e-12)  # sums of the same numbers in another order are still the same
    at_once = max(1, FLIP_CELLS // len(given))
    as_large, done, n_flips = 0, 0, max(N_FLIPS, FLIPS_A_TEST * n_tests)
    while done < n_flips:
        n = min(at_once, n_flips - done)
        signs = random.integers(0, 2, (n, len(given)), dtype=np.int8) * 2.0 - 1.0
        as_large += int((np.abs(signs @ given) >= observed).sum())
        done += n
    return (as_large + 1) / (n_flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm, 1979): none is called significant too often, however they depend."""
    order = np.argsort(p_values, kind="stable")
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[int(index)] = largest
    return corrected


def standard_error(matrix: Floats) -> tuple[float, float, float]:
    """Mean, its standard error, and the degrees of freedom of that."""
    n_seeds, n_users = matrix.shape
    value = float(matrix.mean())
    if n_users < 2:
        return value, math.nan, 0.0
    of_users = n_seeds * float(np.var(matrix.mean(axis=0), ddof=1))
    if n_seeds == 1:
        return value, math.sqrt(of_users / n_users), n_users - 1.0
    of_seeds = n_users * float(np.var(matrix.mean(axis=1), ddof=1))
    residual = matrix - matrix.mean(axis=0) - matrix.mean(axis=1)[:, None] + value
    df_residual = (n_users - 1) * (n_seeds - 1)
    of_residual = float((residual**2).sum()) / df_residual
    # Where seeds differ by less than chance would have it, they add nothing.
    total = max(of_users + of_seeds - of_residual, of_users, of_seeds)
    parts = ((of_users, n_users - 1), (of_seeds, n_seeds - 1), (of_residual, df_residual))
    spread = sum(part**2 / df for part, df in parts)
    df = total**2 / spread if spread > 0 else n_users - 1.0
    return value, math.sqrt(total / (n_seeds * n_users)), max(1.0, df)
