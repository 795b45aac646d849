"""Matrix factorisation of implicit likes by alternating least squares (Hu, Koren, Volinsky, doi 10.1109/ICDM.2008.22).

The loss is ``sum over likes (w.h - 1)^2 + unobserved * sum over all pairs (w.h)^2 + penalty * sum of |vector|^2``, as
Rendle et al. write it (arXiv 2110.14037). Their penalty by the number of a vector's terms (nu = 1) ranked worse here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse

from bench.baselines.known import Fitted, liked, popular_for_strangers
from bench.data.dataset import DataSet

Vectors = npt.NDArray[np.float32]

SWEEPS = 12
BLOCK = 1024  # systems of equations that are held at a time


def fit(data: DataSet, seed: int, *, width: float, unobserved: float, penalty: float) -> Fitted:
    by_user = liked(data)
    by_item = by_user.T.tocsr()
    random = np.random.default_rng(seed)
    items = random.normal(0, 0.1 / width**0.5, (data.items.n_rows, int(width))).astype(np.float32)
    for _ in range(SWEEPS):
        users = solve(by_user, items, unobserved, penalty)
        items = solve(by_item, users, unobserved, penalty)
    return popular_for_strangers(data, lambda some, block: users[some] @ items[block].T)


def solve(likes: sparse.csr_array, fixed: Vectors, unobserved: float, penalty: float) -> Vectors:
    """The vectors of one side that are best for those of the other.

    Args:
        likes: a row for each vector that is sought, a column for each of the ``fixed``.
        fixed: the other side's, (n, width).
        unobserved: weight of a pair, liked or not.
        penalty: on the squared length.
    """
    counts, width = np.diff(likes.indptr), fixed.shape[1]
    common = unobserved * fixed.T @ fixed + penalty * np.eye(width, dtype=np.float32)
    found = np.empty((len(counts), width), np.float32)
    for start in range(0, len(counts), BLOCK):
        rows = range(start, min(start + BLOCK, len(counts)))
        own = [fixed[likes.indices[likes.indptr[row] : likes.indptr[row + 1]]] for row in rows]
        left = np.stack([each.T @ each for each in own]) + common
        right = np.stack([each.sum(axis=0) for each in own])
        found[start : rows.stop] = np.linalg.solve(left, right[..., None])[..., 0]
    return found
