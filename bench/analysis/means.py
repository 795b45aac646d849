"""Means over users and seeds with their intervals, and whether two models differ by more than chance.

A metric is a matrix: a row a seed, a column a user. Both were drawn from many, so both add to the interval of the
mean: the two-way random-effects model without replication, whose mean has the variance
``(MS_users + MS_seeds - MS_residual) / (n_seeds * n_users)``, with Satterthwaite's degrees of freedom (Searle, Casella,
McCulloch: Variance Components, 1992, chapter 4).

Whether two models differ is tested user by user, both models' seeds averaged: flipping the sign of a user's difference
is as likely as not when there is none (Smucker, Allan, Carterette, CIKM 2007, doi 10.1145/1321440.1321528).
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


def permutation_p(differences: Floats, key: str, n_tests: int) -> Floats:
    """Two-sided p-values of mean differences of zero, by random flips of the users' signs.

    Args:
        differences: (those that are tested, n_users).
        key: names the flips; the same key gives the same ones in every process.
        n_tests: for which p-values are corrected; the more, the more flips, so that the least p-value can pass.
    """
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
    n_users, n_flips = differences.shape[1], max(N_FLIPS, FLIPS_A_TEST * n_tests)
    # Sums of the same numbers in another order are still the same.
    observed = np.abs(differences.sum(axis=1)) - 1e-12 * np.abs(differences).sum(axis=1)
    at_once = max(1, FLIP_CELLS // max(1, n_users))
    as_large = np.zeros(len(differences))
    for done in range(0, n_flips, at_once):
        signs = random.integers(0, 2, (min(at_once, n_flips - done), n_users), dtype=np.int8) * 2.0 - 1.0
        as_large += (np.abs(signs @ differences.T) >= observed).sum(axis=0)
    return np.asarray((as_large + 1) / (n_flips + 1))


def pooled_p(matrix: Floats, of_seeds: float, df: int) -> float:
    """Two-sided p-value of a mean difference of zero, where the spread of seeds is known from many models.

    Args:
        matrix: differences (n_seeds, n_users).
        of_seeds: variance that seeds add to the mean.
        df: degrees of freedom of that; 0 where a single seed says nothing of others.
    """
    value, n_users = abs(float(matrix.mean())), matrix.shape[1]
    if n_users < 2 or not value:
        return 1.0
    of_users = float(np.var(matrix.mean(axis=0), ddof=1)) / n_users
    spread = of_users**2 / (n_users - 1) + (of_seeds**2 / df if df else 0.0)
    total = of_users + of_seeds
    return float(2 * special.stdtr(total**2 / spread, -value / math.sqrt(total))) if spread else 0.0


def holm(p_values: Sequence[float], n_tests: int | None = None) -> list[float]:
    """P-values corrected for their number (Holm, 1979): none is called significant too often, however they depend.

    Args:
        p_values: as tested.
        n_tests: their number, where those that are given were picked from more.
    """
    order, n = np.argsort(p_values, kind="stable"), n_tests or len(p_values)
    corrected, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (n - place) * p_values[index]))
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
