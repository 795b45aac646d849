"""Embeddings of whole tables and of all users' histories."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ftmamba.features import FeatureBatch
from ftmamba.history import HistoryBatch

BLOCK_ROWS = 1024
BLOCK_EVENTS = 2**16  # of a block of histories


@torch.inference_mode()
def embed(tower: nn.Module, rows: FeatureBatch | HistoryBatch, static: FeatureBatch | None = None) -> Tensor:
    """Embeddings of any number of rows, block by block, so that memory holds the activations of one block alone.

    Args:
        tower: an ``FTEncoder``, for histories a ``HistoryEncoder``, or another module of the same interface; it is in
            evaluation mode meanwhile.
        rows: on the tower's device, in its dtype. Histories are taken from the longest to the shortest.
        static: further columns of the rows of histories, where the tower has them.

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
        if isinstance(rows, HistoryBatch):
            blocks = _blocks(rows.lengths)
            outputs = [tower(rows.rows(i), None if static is None else static.rows(i)) for i in blocks]
            return torch.cat(outputs)[torch.cat(blocks).argsort()]
        starts = range(0, max(rows.n_rows, 1), BLOCK_ROWS)
        return torch.cat([tower(rows.rows(slice(start, start + BLOCK_ROWS))) for start in starts])
    finally:
        tower.train(was_training)


def _blocks(lengths: Tensor) -> list[Tensor]:
    """Rows, the longest first, in blocks of at most so many rows, and events with their pads, or of one row."""
    ends, order = lengths.sort(descending=True, stable=True)
    blocks: list[Tensor] = []
    first = 0
    while first < len(order) or not blocks:
        longest = int(ends[first]) if len(order) else 0
        size = min(max(BLOCK_EVENTS // (longest + 1), 1), BLOCK_ROWS)
        blocks.append(order[first : first + size])
        first += size
    return blocks
