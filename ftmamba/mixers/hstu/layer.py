"""The HSTU layer (Zhai et al., arXiv 2402.17152, equations 1 to 3), without norm and residual of the block."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmamba.mixers import usable_devices
from ftmamba.mixers.hstu import HSTUSpec
from ftmamba.ragged import last, without_pads


class HSTUMixer(nn.Module):
    """``W (u . LN(A v))`` with ``A = SiLU(q k^T) / n_tokens`` and u, v, q, k the SiLU of projections.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given.
    """

    def __init__(self, spec: HSTUSpec, d_model: int) -> None:
        super().__init__()
        self.spec = spec
        self._prepare()
        self.kv_proj = nn.Linear(d_model, 2 * d_model, bias=False)
        self.uq_proj = nn.Linear(d_model, 2 * d_model, bias=False)
        self.norm = nn.LayerNorm(d_model)
        self.out_proj = nn.Linear(d_model, d_model)

    def _prepare(self) -> None:
        self.spec.backends.prepare(self.spec.backend, usable_devices())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._prepare()

    def forward(self, x: Tensor, read: int | None = None, lengths: Tensor | None = None) -> Tensor:
        x, causal = without_pads(x, lengths), self.spec.causal and read is None  # a pad's keys and values are 0 too
        n_tokens = x.shape[1] if lengths is None else lengths.view(-1, 1, 1, 1)
        if read is not None and self.spec.causal and lengths is None:  # what comes later is not seen
            x, read = x[:, : read % max(x.shape[1], 1) + 1], -1
        queries = x
        if read is not None:
            queries = x.select(1, read).unsqueeze(1) if lengths is None else last(x, lengths, read)
        k, v = torch.unflatten(F.silu(self.kv_proj(x)), -1, (2, self.spec.n_heads, -1)).unbind(2)
        u, q = F.silu(self.uq_proj(queries)).chunk(2, dim=-1)
        backend = self.spec.backends.load_for(self.spec.backend, x.device.type, x.dtype == torch.float64)
        y = backend.silu_attention(torch.unflatten(q, -1, (self.spec.n_heads, -1)), k, v / n_tokens, causal=causal)
        y = self.out_proj(u * self.norm(y.flatten(-2)))
        return y if read is not None else without_pads(y, lengths)
