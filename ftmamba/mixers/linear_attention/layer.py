"""Linear attention (Katharopoulos et al., arXiv 2006.16236)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ftmamba.mixers.attention.layer import HeadsMixer
from ftmamba.ragged import without_pads


class LinearAttentionMixer(HeadsMixer):
    """Attention whose weights are ``phi(q) . phi(k)`` over their sum, with ``phi(x) = elu(x) + 1``."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
        causal, k = self.spec.causal and q.shape[1] > 1, without_pads(F.elu(k) + 1, lengths)
        return self.backend(q).linear_attention(F.elu(q) + 1, k, v, causal=causal)  # type: ignore[no-any-return]
