"""Items like those that the user liked, by shrunk cosine (Deshpande and Karypis, doi 10.1145/963770.963776).

The similarity of two items is ``both / (sqrt(n_i * n_j) + shrinkage + 1e-6)``, and an item's score the sum over its
nearest neighbours among what the user liked, as in RecBole's ItemKNN and Dacrema et al. (arXiv 1907.06902).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from bench.baselines.known import Fitted, liked, popular_for_strangers
from bench.data.dataset import DataSet

BLOCK = 256  # items whose similarities to all others are held at a time


def fit(data: DataSet, seed: int, *, neighbours: float, shrinkage: float) -> Fitted:
    known = liked(data)
    weights = weights_of(known, neighbours, shrinkage)
    return popular_for_strangers(data, lambda users, items: (known[users] @ weights[:, items]).toarray())


def weights_of(known: sparse.csr_array, neighbours: float, shrinkage: float = 0.0) -> sparse.csc_array:
    """Similarity of each item (column) to its neighbours, from 1 where a user had an item, (n_users, n_items)."""
    by_item, lengths = known.T.tocsr(), np.sqrt(known.sum(axis=0))
    columns = []
    for start in range(0, known.shape[1], BLOCK):
        block = np.arange(start, min(start + BLOCK, known.shape[1]))
        alike = (by_item @ known[:, block]).toarray() / (np.outer(lengths, lengths[block]) + shrinkage + 1e-6)
        alike[block, block - start] = 0
        if neighbours < len(alike):
            far = np.argpartition(-alike, int(neighbours) - 1, axis=0)[int(neighbours) :]
            np.put_along_axis(alike, far, 0, axis=0)
        columns.append(sparse.csc_array(alike))
    return sparse.hstack(columns, "csc")
