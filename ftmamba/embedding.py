"""Embeddings of whole tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ftmamba.features import FeatureBatch

BLOCK_ROWS = 1024


@torch.inference_mode()
def embed(tower: nn.Module, rows: FeatureBatch) -> Tensor:
    """Embeddings of any number of rows, block by block, so that memory holds the activations of one block alone.

    Args:
        tower: an ``FTEncoder`` or another module of its interface; it is in evaluation mode meanwhile.
        rows: on the tower's device, in its dtype.

    Returns:
        (n_rows, d_out), without gradients; an inference tensor, of which training can take a ``clone()``.

    Examples:
        >>> import torch
        >>> from ftmamba import AttentionSpec, EncoderSpec, FeatureBatch, FeatureSpec, FTEncoder, embed
        >>> tower = FTEncoder(EncoderSpec(mixer=AttentionSpec(), d_model=16, n_layers=1), FeatureSpec(2))
        >>> embed(tower, FeatureBatch(torch.randn(3000, 2), torch.empty(3000, 0, dtype=torch.int64))).shape
        torch.Size([3000, 16])
    """
    was_training = tower.training
    tower.eval()
    try:
        starts = range(0, max(rows.n_rows, 1), BLOCK_ROWS)
        return torch.cat([tower(rows.rows(slice(start, start + BLOCK_ROWS))) for start in starts])
    finally:
        tower.train(was_training)
