"""The linear model of each item by all others, in closed form (EASE: Steck, arXiv 1905.03375, equation 8)."""

from __future__ import annotations

import numpy as np

from bench.baselines.known import Fitted, liked, popular_for_strangers
from bench.data.dataset import DataSet

MOST_ITEMS = 20_000  # three square matrices of float64 are 10 GB then


def fit(data: DataSet, seed: int, *, penalty: float) -> Fitted:
    """The weights are ``-P / diag(P)`` off the diagonal, with ``P`` the inverse of ``X' X + penalty``.

    Raises:
        MemoryError: the catalogue is too large for a matrix of all pairs of items.
    """
    if data.items.n_rows > MOST_ITEMS:
        raise MemoryError(f"ease keeps a matrix of all pairs of items, and {data.items.n_rows:,} are too many for it")
    known = liked(data)
    gram = (known.T @ known).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += penalty
    weights = np.linalg.inv(gram)
    weights /= -np.diag(weights)
    np.fill_diagonal(weights, 0)
    weights = weights.astype(np.float32)
    return popular_for_strangers(data, lambda users, items: known[users] @ weights[:, items])
