"""The recurrence of Mamba-2 by matrix products over chunks of tokens (arXiv 2405.21060, section 6)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def ssd(x: Tensor, decay: Tensor, B: Tensor, C: Tensor, *, chunk: int) -> Tensor:
    """See ``ftmamba.mixers.mamba2.reference``."""
    n_tokens = x.shape[1]
    if C.shape[1] == 1:
        kept = decay.flip(1).cumsum(1).flip(1) - decay  # summed from the end, where it must be exact
        weights = (B @ C.transpose(1, 2)) * kept.exp()
        return (weights.unsqueeze(-1) * x).sum(1, keepdim=True)
    chunk = min(chunk, n_tokens)
    n_chunks = -(-n_tokens // chunk)
    x, decay, B, C = (_chunks(each, n_chunks, chunk) for each in (x, decay.unsqueeze(-1), B, C))
    x, run = x.transpose(2, 3), decay.squeeze(-1).transpose(2, 3).cumsum(-1)  # (batch, n_chunks, n_heads, chunk, ...)
    weights = (C @ B.transpose(-1, -2)).unsqueeze(2) * within(run)
    ends = run[..., -1:]
    added = B.transpose(-1, -2).unsqueeze(2) @ (x * (ends - run).exp().unsqueeze(-1))
    before = carried(added, ends.exp().unsqueeze(-1))
    y = weights @ x + (C.unsqueeze(2) @ before) * run.exp().unsqueeze(-1)
    return y.transpose(2, 3).flatten(1, 2)[:, :n_tokens]


def _chunks(x: Tensor, n_chunks: int, chunk: int) -> Tensor:
    """Tokens of zeros behind the last; (batch, n_tokens, ...) -> (batch, n_chunks, chunk, ...)."""
    padding = [0, 0] * (x.dim() - 2) + [0, n_chunks * chunk - x.shape[1]]
    return torch.unflatten(F.pad(x, padding), 1, (n_chunks, chunk))


def within(run: Tensor) -> Tensor:
    """What is left of one token at a later one of its chunk, 0 at earlier ones; from the decays' running sum."""
    left = run.unsqueeze(-1) - run.unsqueeze(-2)
    later = torch.ones(left.shape[-2:], dtype=torch.bool, device=run.device).triu(1)
    return left.masked_fill(later, -torch.inf).exp()


def carried(added: Tensor, kept: Tensor) -> Tensor:
    """States that chunks start with, from what each adds and what share it keeps; chunks are the second axis."""
    state = torch.zeros_like(added[:, 0])
    states = []
    for added_by, kept_by in zip(added.unbind(1), kept.unbind(1), strict=True):
        states.append(state)
        state = kept_by * state + added_by
    return torch.stack(states, 1)
