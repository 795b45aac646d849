"""Linear attention as attention: the weights of all pairs stand in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """Weights ``q . k`` over their sum for each query.

    Args:
        q: positive features, (batch, n_queries, n_heads, n_features); all tokens' where ``causal``.
        k: (batch, n_tokens, n_heads, n_features).
        v: (batch, n_tokens, n_heads, d_head).
        causal: whether a query sees the keys up to its own alone.

    Returns:
        (batch, n_queries, n_heads, d_head).
    """
    weights = torch.einsum("bqhf,bkhf->bhqk", q, k)
    weights = weights.tril() if causal else weights
    return torch.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdim=True), v)
