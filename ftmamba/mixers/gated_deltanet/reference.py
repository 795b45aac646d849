"""The gated delta rule in plain torch, a loop over tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def gated_delta_rule(q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor, *, chunk: int) -> Tensor:
    """``S = e^g S + beta k (v - (e^g S)^T k)^T``, ``o = S^T q`` (arXiv 2412.06464, equation 10).

    Args:
        q, k, v: (batch, n_tokens, n_heads, d_head); keys of length 1.
        decay: logarithm g of what is kept, (batch, n_tokens, n_heads), at most 0.
        beta: share of the correction that is made, (batch, n_tokens, n_heads).
        chunk: tokens that the chunked form solves for together.

    Returns:
        (batch, n_tokens, n_heads, d_head).
    """
    state = v.new_zeros(*v.shape[:1], *v.shape[2:], v.shape[-1])
    outputs = []
    for q_t, k_t, v_t, decay_t, beta_t in zip(*(each.unbind(1) for each in (q, k, v, decay, beta)), strict=True):
        y, state = advance(state, q_t, k_t, v_t, decay_t, beta_t)
        outputs.append(y)
    return torch.stack(outputs, 1)


def advance(state: Tensor, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Output and state (batch, n_heads, d_head, d_head) behind one token more; its parts are without a token's axis."""
    state = decay.exp()[..., None, None] * state
    correction = beta.unsqueeze(-1) * (v - torch.einsum("bhkv,bhk->bhv", state, k))
    state = state + k.unsqueeze(-1) * correction.unsqueeze(-2)
    return torch.einsum("bhkv,bhk->bhv", state, q), state
