"""Forward and backward of one block on its own, with gradients of its parameters and of its input."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bench.plan.tasks import Task
from bench.plan.tower import TOWER_AXES, cell_block_cost, check_tower
from bench.run.tasks.block_forward import block_and_tokens

if TYPE_CHECKING:
    from torch import Tensor

    from ftmamba.encoder import FTEncoder
    from ftmamba.features import FeatureBatch


def prepare(tower: FTEncoder, batch: FeatureBatch) -> Callable[[], Tensor]:
    import torch

    block, tokens = block_and_tokens(tower, batch)
    block.train()
    tokens.requires_grad_()
    upstream = torch.randn_like(tokens)
    wanted = [tokens, *block.parameters()]

    def step() -> Tensor:
        return torch.autograd.grad(block(tokens), wanted, upstream)[0]

    return step


TASK = Task(
    words="block forward + backward", noun="a block's forward and backward pass", axes=TOWER_AXES, check=check_tower,
    cost=cell_block_cost, training=True,
)  # fmt: skip
