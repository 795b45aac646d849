"""Linformer's attention (Wang et al., arXiv 2006.04768)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ftmamba.mixers.attention.layer import HeadsMixer
from ftmamba.mixers.linformer import LinformerSpec
from ftmamba.ragged import without_pads


class LinformerMixer(HeadsMixer):
    """Attention to ``E^T K`` and ``F^T V``, whose rows are sums of all tokens; E and F belong to a number of tokens."""

    def __init__(self, spec: LinformerSpec, d_model: int, n_tokens: int) -> None:
        super().__init__(spec, d_model)
        rank = min(spec.rank, n_tokens)
        bound = rank**-0.5
        self.sum_keys = nn.Parameter(torch.empty(n_tokens, rank).uniform_(-bound, bound))
        self.sum_values = nn.Parameter(torch.empty(n_tokens, rank).uniform_(-bound, bound))

    def mix(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
        (made_for, _), n_tokens = self.sum_keys.shape, k.shape[1]
        if n_tokens > made_for or (n_tokens < made_for and lengths is None):
            raise ValueError(f"a Linformer layer made for {made_for} tokens got {n_tokens}")
        k, v = (
            torch.einsum("tr,bthd->brhd", sums[:n_tokens], without_pads(each, lengths))
            for sums, each in ((self.sum_keys, k), (self.sum_values, v))
        )
        return super().mix(q, k, v)
