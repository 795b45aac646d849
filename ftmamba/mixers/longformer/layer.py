"""Longformer's attention (Beltagy et al., arXiv 2004.05150) with one global token."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmamba.mixers.attention.layer import HeadsMixer
from ftmamba.mixers.longformer import LongformerSpec
from ftmamba.ragged import check_read, last, token, valid, without_pads


class LongformerMixer(HeadsMixer):
    """Every token sees those within half a window and the global one; the global one sees all, by its own weights."""

    spec: LongformerSpec

    def __init__(self, spec: LongformerSpec, d_model: int) -> None:
        super().__init__(spec, d_model)
        self.q_global_proj = nn.Linear(d_model, d_model)
        self.kv_global_proj = nn.Linear(d_model, 2 * d_model)

    def forward(self, x: Tensor, read: int | None = None, lengths: Tensor | None = None) -> Tensor:
        n_tokens, first, x = x.shape[1], self.spec.global_token == "first", without_pads(x, lengths)
        ends = torch.tensor([n_tokens], device=x.device) if lengths is None else lengths
        at = torch.zeros_like(ends[:1]) if first else ends - 1
        y = self._global(x, at, lengths)
        if lengths is not None:
            check_read(read)
        if read is None or read % max(n_tokens, 1) != (0 if first else n_tokens - 1):
            q = self.q_proj(x).unflatten(-1, (self.spec.n_heads, -1))
            k, v = self.kv_proj(x).unflatten(-1, (2, self.spec.n_heads, -1)).unbind(2)
            masks = {"window": self.spec.window // 2, "lengths": lengths, "global_token": 0 if first else -1}
            local = self.backend(x).attention(q, k, v, **masks)
            y = torch.where((torch.arange(n_tokens, device=x.device) == at[:, None])[..., None, None], y, local)
            if read is not None:
                y = y.select(1, read).unsqueeze(1) if lengths is None else last(y, lengths, read)
        y = self.out_proj(y.flatten(-2))
        return y if read is not None else without_pads(y, lengths)

    def _global(self, x: Tensor, at: Tensor, lengths: Tensor | None) -> Tensor:
        q = self.q_global_proj(token(x, at)).unflatten(-1, (self.spec.n_heads, -1))
        k, v = self.kv_global_proj(x).unflatten(-1, (2, self.spec.n_heads, -1)).unbind(2)
        q, k, v = (each.transpose(1, 2) for each in (q, k, v))
        seen = None if lengths is None else valid(lengths, x.shape[1])[:, None, None]
        return F.scaled_dot_product_attention(q, k, v, seen).transpose(1, 2)
