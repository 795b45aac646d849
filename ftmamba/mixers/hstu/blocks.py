"""Attention by SiLU, some queries at a time; a backward pass computes their weights again."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ftmamba.mixers.hstu import BLOCK


def silu_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """See ``ftmamba.mixers.hstu.reference``."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    n_queries = q.shape[2]
    outputs = []
    for first in range(0, n_queries, BLOCK):
        end = min(first + BLOCK, n_queries)
        seen = end if causal else k.shape[2]
        inputs = (q[:, :, first:end], k[:, :, :seen], v[:, :, :seen], first if causal else None)
        if torch.is_grad_enabled() and n_queries > BLOCK:
            outputs.append(checkpoint(_some, *inputs, use_reentrant=False, preserve_rng_state=False))
        else:
            outputs.append(_some(*inputs))
    return torch.cat(outputs, 2).transpose(1, 2)


def _some(q: Tensor, k: Tensor, v: Tensor, diagonal: int | None) -> Tensor:
    weights = F.silu(q @ k.transpose(-1, -2))
    return (weights if diagonal is None else weights.tril(diagonal)) @ v
