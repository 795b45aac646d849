"""Inference of one block on its own: every token in, every token out. For peers that offer a layer, not a tower."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bench.plan.tasks import Task
from bench.plan.tower import TOWER_AXES, cell_block_cost, check_tower

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ftmamba.encoder import FTEncoder
    from ftmamba.features import FeatureBatch


def block_and_tokens(tower: FTEncoder, batch: FeatureBatch) -> tuple[nn.Module, Tensor]:
    """A block such as the tower's first one, and what goes into it."""
    import torch

    from ftmamba.blocks import build_block

    with torch.no_grad():
        tokens = tower.tokenizer(batch)
    return build_block(tower.spec.mixer_of(0), tower.spec.d_model, tokens.shape[1]).to(batch.numeric), tokens


def prepare(tower: FTEncoder, batch: FeatureBatch) -> Callable[[], Tensor]:
    import torch

    block, tokens = block_and_tokens(tower, batch)
    block.eval()

    def step() -> Tensor:
        with torch.no_grad():
            return block(tokens)  # type: ignore[no-any-return]

    return step


TASK = Task(
    words="block forward", noun="a block's forward pass", axes=TOWER_AXES, check=check_tower, cost=cell_block_cost
)
