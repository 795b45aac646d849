"""Attention under a mask: the weights of all pairs stand in memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def window_attention(q: Tensor, k: Tensor, v: Tensor, *, half: int, at: Tensor, lengths: Tensor | None) -> Tensor:
    """Each token attends to those at most ``half`` away and to the one ``at``.

    Args:
        q, k, v: (batch, n_tokens, n_heads, d_head).
        half: tokens on each side.
        at: index of the token that all see, (batch or 1,).
        lengths: valid tokens of each row, (batch,), or None for all; what comes of pads are numbers.

    Returns:
        (batch, n_tokens, n_heads, d_head).
    """
    place = torch.arange(q.shape[1], device=q.device)
    seen = (place[:, None] - place).abs() <= half
    seen = seen | (place == at[:, None, None])
    if lengths is not None:
        seen = (seen & (place < lengths[:, None, None])) | (place[:, None] == place)
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bhqk,bkhd->bqhd", logits.masked_fill(~seen.unsqueeze(1), -math.inf).softmax(-1), v)
