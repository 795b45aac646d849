"""What baselines know: who liked what in training, and how many liked each item."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse

from bench.data.dataset import TRAIN, DataSet, Ints

Scorer = Callable[[slice, slice], torch.Tensor]  # positions of some users and rows of some items -> their scores
Fitted = Callable[[Ints], Scorer]  # row numbers of the users to rank for -> their scores
Numbers = npt.NDArray[np.number[Any]]


def item_popularity(data: DataSet) -> Ints:
    """Training positives of each item, (n_items,)."""
    return np.bincount(data.positives(TRAIN)[1], minlength=data.items.n_rows)


def liked(data: DataSet) -> sparse.csr_array:
    """1 where a user liked an item in training, (n_users, n_items)."""
    users, items = data.positives(TRAIN)
    shape = (data.users.n_rows, data.items.n_rows)
    return sparse.csr_array((np.ones(len(users), np.float32), (users, items)), shape=shape)


def in_order(scores: Numbers) -> npt.NDArray[np.float32]:
    """Scores of the same order in which no two are equal: the lower row number comes first. Exact up to 2**24 items."""
    rank = np.empty(len(scores), np.float32)
    rank[np.argsort(-scores, kind="stable")] = -np.arange(len(scores))
    return rank


def popular_for_strangers(data: DataSet, score: Callable[[Ints, slice], Numbers]) -> Fitted:
    """Scores by what users liked; those who liked nothing in training get what is popular.

    Args:
        data: the data set.
        score: from users and items to their scores, (n_users, n_items).
    """
    popular = in_order(item_popularity(data))
    strangers = np.bincount(data.positives(TRAIN)[0], minlength=data.users.n_rows) == 0

    def of_users(users: Ints) -> Scorer:
        def scores(block: slice, items: slice) -> torch.Tensor:
            found = np.array(score(users[block], items), np.float32)
            found[strangers[users[block]]] = popular[items]
            return torch.from_numpy(found)

        return scores

    return of_users
