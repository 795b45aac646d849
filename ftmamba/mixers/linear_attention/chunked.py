"""Linear attention by sums over keys: memory grows with the number of tokens, not with its square."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmamba.mixers.linear_attention import CHUNK


def linear_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """See ``ftmamba.mixers.linear_attention.reference``; the sum of weights is one more column of the values."""
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), F.pad(v, (0, 1), value=1.0).transpose(1, 2)
    y = _causal(q, k, v) if causal else q @ (k.transpose(-1, -2) @ v)
    return (y[..., :-1] / y[..., -1:]).transpose(1, 2)


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    n_tokens = q.shape[2]
    chunk = min(CHUNK, n_tokens)
    n_chunks = -(-n_tokens // chunk)
    padding = (0, 0, 0, n_chunks * chunk - n_tokens)
    q, k, v = (torch.unflatten(F.pad(each, padding), 2, (n_chunks, chunk)) for each in (q, k, v))
    sums = (k.transpose(-1, -2) @ v).cumsum(2)  # up to the end of each chunk; a chunk starts with those before it
    before = F.pad(sums[:, :, :-1], (0, 0, 0, 0, 1, 0))
    y = q @ before + (q @ k.transpose(-1, -2)).tril() @ v
    return y.flatten(2, 3)[:, :, :n_tokens]
