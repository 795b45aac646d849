"""Attention in plain torch: the (n_queries, n_tokens) weights of every head stand in memory."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ftmamba.ops.attention.masks import seen
from ftmamba.ragged import without_pads


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    lengths: Tensor | None = None,
    global_token: int | None = None,
) -> Tensor:
    """See ``ftmamba.ops.attention.attention``."""
    q, k, v = (without_pads(tensor, lengths) for tensor in (q, k, v))
    logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    if (mask := seen(q, k, causal, window, lengths, global_token)) is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return without_pads(torch.einsum("bhqk,bkhd->bqhd", logits.softmax(dim=-1), v), lengths)
