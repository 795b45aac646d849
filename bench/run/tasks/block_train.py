"""Forward and backward of one block on its own, with gradients of its parameters and of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bench.plan.tasks import Task
from bench.plan.tower import TOWER_AXES, cell_block_cost, check_tower

if TYPE_CHECKING:
    from torch import Tensor

    from ftmamba.encoder import FTEncoder
    from ftmamba.features import FeatureBatch


def prepare(tower: FTEncoder, batch: FeatureBatch) -> Callable[[], Tensor]:
    import torch

    from ftmamba.blocks import build_block

    with torch.no_grad():
        tokens = tower.tokenizer(batch)
    block = build_block(tower.spec.mixer_of(0), tower.spec.d_model, tokens.shape[1]).to(batch.numeric).train()
    tokens.requires_grad_()
    upstream = torch.randn_like(tokens)
    wanted = [tokens, *block.parameters()]

    def step() -> Tensor:
        return torch.autograd.grad(block(tokens), wanted, upstream)[0]

    return step


TASK = Task(
    words="block forward + backward",
    noun="a block's forward and backward pass",
    axes=TOWER_AXES,
    check=check_tower,
    cost=cell_block_cost,
    training=True,
)
