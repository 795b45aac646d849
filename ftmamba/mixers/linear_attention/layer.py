"""Linear attention (Katharopoulos et al., arXiv 2006.16236)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmamba.mixers.attention.layer import HeadsMixer
from ftmamba.ragged import without_pads
from ftmamba.state import Steps, Sums


class LinearAttentionMixer(Steps, HeadsMixer):
    """Attention whose weights are ``phi(q) . phi(k)`` over their sum, with ``phi(x) = elu(x) + 1``."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
        backend, causal = self.backend(q), self.spec.causal and q.shape[1] > 1
        if causal and (fused := getattr(backend, "causal", None)):
            return fused(q, k, v, lengths)  # type: ignore[no-any-return]
        k = without_pads(F.elu(k) + 1, lengths)
        return backend.linear_attention(F.elu(q) + 1, k, v, causal=causal)  # type: ignore[no-any-return]

    def _start(self, batch: int, room: int | None) -> Sums:
        weight, n_heads = self.q_proj.weight, self.spec.n_heads
        d_head = len(weight) // n_heads
        return Sums.zeros(weight, batch, n_heads, d_head, d_head)

    @torch.no_grad()
    def step(self, x: Tensor, state: Sums) -> tuple[Tensor, Sums]:
        """One token more, (batch, 1, d_model): its output, and the state behind it."""
        q, k, v = self.project(x, x)
        y, state = state.step(F.elu(q) + 1, F.elu(k) + 1, v)
        return self.out_proj(y), state
