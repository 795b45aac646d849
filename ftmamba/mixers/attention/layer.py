"""Multi-head self-attention (Vaswani et al., arXiv 1706.03762, section 3.2), without norm and residual."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ftmamba.mixers import usable_devices
from ftmamba.mixers.attention import AttentionSpec


class AttentionMixer(nn.Module):
    """Every token looks at every token.

    Args:
        spec: heads and backend; ``auto`` takes the preferred backend of the device that the input is on.
        d_model: width of a token.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given.
    """

    def __init__(self, spec: AttentionSpec, d_model: int) -> None:
        super().__init__()
        self.spec = spec
        self._prepare()
        self.q_proj = nn.Linear(d_model, d_model)
        self.kv_proj = nn.Linear(d_model, 2 * d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        for projection in (self.q_proj, self.kv_proj, self.out_proj):
            nn.init.zeros_(projection.bias)

    def _prepare(self) -> None:
        self.spec.backends.prepare(self.spec.backend, usable_devices())

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._prepare()

    def forward(self, x: Tensor, read: int | None = None) -> Tensor:
        if self.spec.causal and read is not None:  # what comes later is not seen
            x, read = x[:, : read % max(x.shape[1], 1) + 1], -1
        queries = x if read is None else x.select(1, read).unsqueeze(1)
        q = self.q_proj(queries).unflatten(-1, (self.spec.n_heads, -1))
        k, v = self.kv_proj(x).unflatten(-1, (2, self.spec.n_heads, -1)).unbind(2)
        return self.out_proj(self.mix(q, k, v).flatten(-2))  # type: ignore[no-any-return]

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(batch, n_queries or n_tokens, n_heads, d_head) each -> that of q."""
        return self.backend(q).attention(q, k, v)  # type: ignore[no-any-return]

    def backend(self, x: Tensor) -> ModuleType:
        """That which computes x."""
        return self.spec.backends.load_for(self.spec.backend, x.device.type, x.dtype == torch.float64)
