"""Longformer's attention (Beltagy et al., arXiv 2004.05150) with one global token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmamba.mixers.attention.layer import HeadsMixer
from ftmamba.mixers.longformer import LongformerSpec


class LongformerMixer(HeadsMixer):
    """Every token sees those within half a window and the global one; the global one sees all, by its own weights."""

    spec: LongformerSpec

    def __init__(self, spec: LongformerSpec, d_model: int) -> None:
        super().__init__(spec, d_model)
        self.q_global_proj = nn.Linear(d_model, d_model)
        self.kv_global_proj = nn.Linear(d_model, 2 * d_model)

    def forward(self, x: Tensor, read: int | None = None) -> Tensor:
        n_tokens = x.shape[1]
        at = 0 if self.spec.global_token == "first" else n_tokens - 1
        y = self._global(x, at)
        if read is None or read % max(n_tokens, 1) != at:
            q = self.q_proj(x).unflatten(-1, (self.spec.n_heads, -1))
            k, v = self.kv_proj(x).unflatten(-1, (2, self.spec.n_heads, -1)).unbind(2)
            local = self.backend(x).window_attention(q, k, v, half=self.spec.window // 2, at=at)
            y = torch.cat([y, local[:, 1:]] if at == 0 else [local[:, :at], y], dim=1)
            y = y if read is None else y.select(1, read).unsqueeze(1)
        return self.out_proj(y.flatten(-2))  # type: ignore[no-any-return]

    def _global(self, x: Tensor, at: int) -> Tensor:
        q = self.q_global_proj(x.select(1, at).unsqueeze(1)).unflatten(-1, (self.spec.n_heads, -1))
        k, v = self.kv_global_proj(x).unflatten(-1, (2, self.spec.n_heads, -1)).unbind(2)
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
