"""Attention within a window by blocks: a block's keys are its own, its neighbours' and the global token's."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmamba.ragged import token


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, window: int, lengths: Tensor | None, global_token: Literal[0, -1]
) -> Tensor:
    """See ``ftmamba.ops.attention``; of all tokens, what comes of pads are numbers."""
    n_tokens, n_heads = q.shape[1:3]
    block = min(window, n_tokens)
    n_blocks = -(-n_tokens // block)
    left_over = n_blocks * block - n_tokens
    ends = torch.tensor([n_tokens], device=q.device) if lengths is None else lengths
    at = ends - 1 if global_token else torch.zeros_like(ends[:1])
    mask = _mask(n_blocks, block, window, at, ends)  # of each row, where they differ
    mask = mask if len(at) == len(ends) == 1 else mask.repeat_interleave(n_heads, 1)
    q = torch.unflatten(F.pad(q, (0, 0, 0, 0, 0, left_over)), 1, (n_blocks, block))
    q = q.permute(1, 0, 3, 2, 4).flatten(1, 2)
    k, v = (_bands(each, n_blocks, block, left_over, at) for each in (k, v))
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    y = torch.unflatten(y, 1, (-1, n_heads)).permute(1, 0, 3, 2, 4).flatten(1, 2)
    return y[:, :n_tokens]


def _bands(x: Tensor, n_blocks: int, block: int, left_over: int, at: Tensor) -> Tensor:
    """(batch, n_tokens, n_heads, d_head) -> (n_blocks, batch * n_heads, 1 + 3 * block, d_head)."""
    bands = F.pad(x, (0, 0, 0, 0, block, block + left_over)).unfold(1, 3 * block, block).transpose(3, 4)
    whole = token(x, at).unsqueeze(3).expand(-1, n_blocks, -1, -1, -1)
    return torch.cat([whole, bands], dim=3).transpose(0, 1).flatten(1, 2)


def _mask(n_blocks: int, block: int, window: int, at: Tensor, ends: Tensor) -> Tensor:
    """(n_blocks, rows, block, 1 + 3 * block): the global token first, and not once more where a window reaches it."""
    blocks = block * torch.arange(n_blocks, device=at.device).view(-1, 1, 1, 1)
    query = blocks + torch.arange(block, device=at.device).unsqueeze(1)
    key = blocks + torch.arange(-block, 2 * block, device=at.device)
    seen = ((query - key).abs() <= window) & (key >= 0) & (key < ends.view(-1, 1, 1)) & (key != at.view(-1, 1, 1))
    return F.pad(seen, (1, 0), value=True)
