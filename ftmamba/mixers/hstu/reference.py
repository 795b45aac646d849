"""Attention by SiLU: the weights of all pairs stand in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def silu_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """``SiLU(q k^T) v``.

    Args:
        q: (batch, n_queries, n_heads, d_head); all tokens' where ``causal``.
        k, v: (batch, n_tokens, n_heads, d_head).
        causal: whether a query sees the keys up to its own alone.

    Returns:
        (batch, n_queries, n_heads, d_head).
    """
    weights = F.silu(torch.einsum("bqhd,bkhd->bhqk", q, k))
    return torch.einsum("bhqk,bkhd->bqhd", weights.tril() if causal else weights, v)
