"""One step of training a tower: forward, loss, backward, AdamW.

The loss is the paper's (arXiv 2409.17165): the squared error of the inner product with the other side's embedding
against a label of 0 or 1. The other side stands still, so that one tower's cost is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from bench.plan.tasks import Task
from bench.plan.tower import ROW_AXES, TOWER_AXES, check_tower, tower_cost
from bench.run.ranks import check_processes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.plan.cell import Cell
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

    from bench.training import ranks

    tower.train()
    weight = tower.head.output.weight
    other = torch.randn(batch.n_rows, weight.shape[0], device=weight.device, dtype=weight.dtype)
    labels = (torch.arange(batch.n_rows, device=weight.device) % 2).to(weight.dtype)
    forward, part = ranks.joined(tower), ranks.part(batch.n_rows)
    rows = batch if ranks.n_ranks() == 1 else batch.rows(torch.arange(batch.n_rows, device=weight.device)[part])
    other, labels = other[part], labels[part]
    return training(lambda: (forward(rows) * other).sum(-1), labels, tower.parameters())


def follow(cell: Cell, request: dict[str, Any]) -> None:
    """A rank beside the first: the same steps, whose pace that sets, until it ends this process."""
    from bench.run.measure import build, warm_up

    warm_up(cell, request["threads"])
    step = build(cell)
    while True:
        step()


def check(cell: Cell) -> None:
    """Refuse what cannot be built, or not be divided."""
    check_tower(cell)
    check_processes(cell)


TASK = Task(
    words="train step",
    noun="a training step",
    axes=(*TOWER_AXES, *ROW_AXES, "precision", "processes"),
    check=check,
    cost=tower_cost,
    training=True,
)
