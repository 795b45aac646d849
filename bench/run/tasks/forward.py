"""Inference: a batch of rows through the tower."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ftmamba.encoder import FTEncoder
from ftmamba.features import FeatureBatch


def prepare(tower: FTEncoder, batch: FeatureBatch) -> Callable[[], Tensor]:
    tower.eval()

    def step() -> Tensor:
        with torch.no_grad():
            return tower(batch)  # type: ignore[no-any-return]

    return step
