"""The masks of attention written out, for backends that hold them in memory."""

from __future__ import annotations

import torch
from torch import Tensor


def seen(
    q: Tensor, k: Tensor, causal: bool, window: int | None, lengths: Tensor | None, global_token: int | None = None
) -> Tensor | None:
    """Which query sees which key, (1 or batch, 1, n_queries, n_tokens); None where each sees all.

    A query that is no valid token sees every key, so that its weights are numbers; its output is for `without_pads`.
    """
    if not causal and window is None and lengths is None:
        return None
    (n_queries, n_tokens), device = (q.shape[1], k.shape[1]), q.device
    keys = torch.arange(n_tokens, device=device)
    queries = torch.arange(n_queries, device=device) + max(n_tokens - n_queries, 0)
    if lengths is None:
        mask = torch.ones(1, n_queries, n_tokens, dtype=torch.bool, device=device)
    else:
        rows = lengths.to(device)[:, None]
        queries = torch.arange(n_queries, device=device) + (rows - n_queries).clamp(min=0)
        mask = (keys < rows)[:, None] & (queries < rows)[:, :, None]
    behind = keys - queries[..., None]  # of a query, negative before it
    valid = mask
    if causal:
        mask = mask & (behind <= 0)
    if window is not None:
        mask = mask & (behind.abs() <= window)
    if global_token is not None:
        ends = n_tokens if lengths is None else rows[:, :, None]
        mask = mask | (valid & (keys == global_token + (ends if global_token < 0 else 0)))
    if lengths is not None:
        mask = mask | (queries >= rows)[:, :, None]
    return mask[:, None]
