"""Rankings that need no tower: what any model must beat."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from bench.data.dataset import TRAIN, DataSet, Ints
from bench.training.ranking import Scorer


def random(data: DataSet, users: Ints, seed: int) -> Scorer:
    """Every order is as likely as any other."""
    generator = torch.Generator().manual_seed(seed)
    return lambda block, items: torch.rand(block.stop - block.start, items.stop - items.start, generator=generator)


def popularity(data: DataSet, users: Ints, seed: int) -> Scorer:
    """The items that most training users liked; of equally popular ones the lower row number comes first."""
    order = np.argsort(-item_popularity(data), kind="stable")
    rank = np.empty(len(order), np.float32)  # exact up to 2**24 items
    rank[order] = np.arange(len(order))
    scores = torch.from_numpy(-rank)
    return lambda block, items: scores[items].repeat(block.stop - block.start, 1)


def oracle(data: DataSet, users: Ints, seed: int) -> Scorer:
    """The probabilities that a simulated data set was drawn from: what no model can beat but by luck.

    Raises:
        ValueError: the data set is not simulated.
    """
    if data.truth is None:
        raise ValueError(f"{data.name} is not simulated: nobody knows its best ranking, so that oracle cannot run")
    truth = data.truth
    return lambda block, items: torch.from_numpy(truth(users[block], items))


def item_popularity(data: DataSet) -> Ints:
    """Training positives of each item, (n_items,)."""
    return np.bincount(data.positives(TRAIN)[1], minlength=data.items.n_rows)


# Each takes the data set, the row numbers of the users to rank for, and a seed.
BASELINES: dict[str, Callable[[DataSet, Ints, int], Scorer]] = {
    "random": random,
    "popularity": popularity,
    "oracle": oracle,
}
