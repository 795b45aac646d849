"""Answers drawn from a planted truth, for the data sets that are simulated: nothing ranks better than it on average."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from bench.data.dataset import FIRST_80, DataSet, Ints, interactions, split_by_time

Floats = npt.NDArray[np.float64]


def draw(
    random: np.random.Generator,
    traits: tuple[Floats, Floats],
    bias: tuple[Floats, Floats],
    *,
    each: int,
    moments: int,
    moment_s: int,
    **about: Any,
) -> DataSet:
    """A data set whose users like an item by the sigmoid of ``trait . trait + user's bias + item's bias``.

    Args:
        random: generator of all draws.
        traits: hidden vectors of the users and of the items.
        bias: log-odds of the users and of the items, whomever they meet.
        each: items that each user meets, all where there are fewer.
        moments: how many moments there are at which they meet.
        moment_s: seconds from one moment to the next.
        about: the other attributes of the data set.
    """
    (taste, content), (leaning, standing) = traits, bias
    n_users, n_items = len(taste), len(content)
    n = min(each, n_items)
    user = np.repeat(np.arange(n_users), n)
    item = np.concatenate([random.choice(n_items, n, replace=False) for _ in range(n_users)]).astype(np.int64)
    odds = leaning[user] + standing[item] + np.einsum("nk,nk->n", taste[user], content[item])
    label = random.random(len(user)) < expit(odds)
    time = random.integers(0, moments, len(user)) * moment_s

    def truth(users: Ints, items: slice) -> Floats:
        return np.asarray(expit(leaning[users, None] + standing[items] + taste[users] @ content[items].T))

    return DataSet(
        interactions=interactions(user, item, time, label, split_by_time(time)),
        split_rule=FIRST_80.replace("time", "simulated time"),
        truth=truth,
        **about,
    )
