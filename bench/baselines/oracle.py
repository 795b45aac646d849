"""The probabilities that a simulated data set was drawn from: what no model can beat but by luck."""

from __future__ import annotations

import torch

from bench.baselines.known import Fitted
from bench.data.dataset import DataSet


def fit(data: DataSet, seed: int) -> Fitted:
    """The truth.

    Raises:
        ValueError: the data set is not simulated.
    """
    if data.truth is None:
        raise ValueError(f"{data.name} is not simulated: nobody knows its best ranking, so that oracle cannot run")
    truth = data.truth
    return lambda users: lambda block, items: torch.from_numpy(truth(users[block], items))
