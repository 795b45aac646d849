"""The linear model of each item by all others, in closed form (EASE: Steck, arXiv 1905.03375, equation 8)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from bench.baselines.known import Fitted, liked, popular_for_strangers
from bench.data.dataset import DataSet

MOST_ITEMS = 20_000  # three square matrices of float64 are 10 GB then


def fit(data: DataSet, seed: int, *, penalty: float) -> Fitted:
    """The weights are ``-P / diag(P)`` off the diagonal, with ``P`` the inverse of ``X' X + penalty``."""
    known = liked(data)
    weights = weights_of(known, penalty)
    return popular_for_strangers(data, lambda users, items: known[users] @ weights[:, items])


def weights_of(known: sparse.csr_array, penalty: float) -> npt.NDArray[np.float32]:
    """Of each item (column) for all others, from 1 where a user had an item, (n_users, n_items).

    Raises:
        MemoryError: the catalogue is too large for a matrix of all pairs of items.
    """
    n_items = known.shape[1]
    if n_items > MOST_ITEMS:
        raise MemoryError(f"ease keeps a matrix of all pairs of items, and {n_items:,} are too many for it")
    gram = (known.T @ known).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += penalty
    weights = np.linalg.inv(gram)
    weights /= -np.diag(weights)
    np.fill_diagonal(weights, 0)
    return weights.astype(np.float32)
