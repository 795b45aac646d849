"""Attention under a mask: the weights of all pairs stand in memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def window_attention(q: Tensor, k: Tensor, v: Tensor, *, half: int, at: int) -> Tensor:
    """Each token attends to those at most ``half`` away and to the one ``at``.

    Args:
        q, k, v: (batch, n_tokens, n_heads, d_head).
        half: tokens on each side.
        at: index of the token that all see.

    Returns:
        (batch, n_tokens, n_heads, d_head).
    """
    place = torch.arange(q.shape[1], device=q.device)
    seen = (place[:, None] - place).abs() <= half
    seen |= place == at
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    return torch.einsum("bhqk,bkhd->bqhd", logits.masked_fill(~seen, -math.inf).softmax(-1), v)
