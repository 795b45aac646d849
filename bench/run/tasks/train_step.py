"""One step of training a tower: forward, loss, backward, AdamW.

The loss is the paper's (arXiv 2409.17165): the squared error of the inner product with the other side's embedding
against a label of 0 or 1. The other side stands still, so that one tower's cost is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bench.plan.tasks import Task
from bench.plan.tower import TOWER_AXES, check_tower, tower_cost

if TYPE_CHECKING:
    from torch import Tensor

    from ftmamba.encoder import FTEncoder
    from ftmamba.features import FeatureBatch


def prepare(tower: FTEncoder, batch: FeatureBatch) -> Callable[[], Tensor]:
    import torch
    import torch.nn.functional as F

    from bench.run.optimizer import StandingAdamW

    tower.train()
    weight = tower.head.output.weight
    other = torch.randn(batch.n_rows, weight.shape[0], device=weight.device, dtype=weight.dtype)
    labels = (torch.arange(batch.n_rows, device=weight.device) % 2).to(weight.dtype)
    optimizer = StandingAdamW(tower.parameters())

    def step() -> Tensor:
        loss = F.mse_loss((tower(batch) * other).sum(-1), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


TASK = Task(
    words="train step",
    noun="a training step",
    axes=(*TOWER_AXES, "precision"),
    check=check_tower,
    cost=tower_cost,
    training=True,
)
