"""The recurrence of Mamba-2 in plain torch, a loop over tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def ssd(x: Tensor, decay: Tensor, B: Tensor, C: Tensor, *, chunk: int) -> Tensor:
    """``h = exp(decay) h + B x^T``, ``y = C h`` (arXiv 2405.21060, equation 6).

    Args:
        x: (batch, n_tokens, n_heads, d_head), times its step size.
        decay: logarithm of what is kept of a state, (batch, n_tokens, n_heads), at most 0.
        B: (batch, n_tokens, d_state).
        C: (batch, n_tokens, d_state), or (batch, 1, d_state) where the last token alone is read.
        chunk: tokens that the chunked form weighs pair by pair.

    Returns:
        (batch, n_tokens or 1, n_heads, d_head).
    """
    h = x.new_zeros(x.shape[0], *x.shape[2:], B.shape[-1])
    states = []
    for token in zip(x.unbind(1), decay.unbind(1), B.unbind(1), strict=True):
        h = advance(h, *token)
        states.append(h)
    return torch.einsum("bthps,bts->bthp", torch.stack(states[-C.shape[1] :], 1), C)


def advance(h: Tensor, x: Tensor, decay: Tensor, B: Tensor) -> Tensor:
    """The state (batch, n_heads, d_head, d_state) behind one token more; the token's parts are without its axis."""
    return decay.exp()[..., None, None] * h + x.unsqueeze(-1) * B[:, None, None]
