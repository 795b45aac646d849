"""Inference: a batch of rows through the tower."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bench.plan.tasks import Task
from bench.plan.tower import ROW_AXES, TOWER_AXES, check_tower, tower_cost

if TYPE_CHECKING:
    from torch import Tensor

    from ftmamba.encoder import FTEncoder
    from ftmamba.features import FeatureBatch


def prepare(tower: FTEncoder, batch: FeatureBatch) -> Callable[[], Tensor]:
    import torch

    tower.eval()

    def step() -> Tensor:
        with torch.no_grad():
            return tower(batch)  # type: ignore[no-any-return]

    return step


TASK = Task(
    words="forward", noun="a forward pass", axes=(*TOWER_AXES, *ROW_AXES, "precision"), check=check_tower,
    cost=tower_cost,
)  # fmt: skip
