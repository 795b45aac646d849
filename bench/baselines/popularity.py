"""The items that most training users liked, the later ones counting more where a half-life is given.

A like weighs ``2 ** (-age / half_life)``; the age is that at the last training row, which only scales all weights.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from bench.baselines.known import Fitted, in_order
from bench.data.dataset import TRAIN, DataSet

DAY_S = 86_400


def fit(data: DataSet, seed: int, *, half_life_days: float = math.inf) -> Fitted:
    """Of equally popular items the lower row number comes first."""
    rows = data.interactions[(data.interactions["label"] > 0) & (data.interactions["split"] == TRAIN)]
    age_days = (rows["time"].max() - rows["time"].to_numpy()) / DAY_S
    weights = np.exp2(-age_days / half_life_days)
    scores = torch.from_numpy(in_order(np.bincount(rows["item"], weights, minlength=data.items.n_rows)))
    return lambda users: lambda block, items: scores[items].repeat(block.stop - block.start, 1)
