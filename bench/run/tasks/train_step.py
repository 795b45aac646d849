"""One step of training a tower: forward, loss, backward, AdamW.

The loss is the paper's (arXiv 2409.17165): the squared error of the inner product with the other side's embedding
against a label of 0 or 1. The other side stands still, so that one tower's cost is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from bench.plan.tasks import Task
from bench.plan.tower import ROW_AXES, TOWER_AXES, check_tower, tower_cost

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ftmamba.encoder import FTEncoder
    from ftmamba.features import FeatureBatch


def training(score: Callable[[], Tensor], labels: Tensor, parameters: Iterable[nn.Parameter]) -> Callable[[], Tensor]:
    """A training step of what gives the scores."""
    import torch.nn.functional as F

    from bench.run.optimizer import StandingAdamW

    optimizer = StandingAdamW(parameters)

    def step() -> Tensor:
        loss = F.mse_loss(score(), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def prepare(tower: FTEncoder, batch: FeatureBatch) -> Callable[[], Tensor]:
    import torch

    tower.train()
    weight = tower.head.output.weight
    other = torch.randn(batch.n_rows, weight.shape[0], device=weight.device, dtype=weight.dtype)
    labels = (torch.arange(batch.n_rows, device=weight.device) % 2).to(weight.dtype)
    return training(lambda: (tower(batch) * other).sum(-1), labels, tower.parameters())


TASK = Task(
    words="train step",
    noun="a training step",
    axes=(*TOWER_AXES, *ROW_AXES, "precision"),
    check=check_tower,
    cost=tower_cost,
    training=True,
)
