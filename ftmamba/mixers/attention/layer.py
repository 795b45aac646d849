"""Multi-head self-attention (Vaswani et al., arXiv 1706.03762, section 3.2), without norm and residual."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ftmamba.mixers import usable_devices
from ftmamba.mixers.attention import AttentionSpec
from ftmamba.ops import attention


class AttentionMixer(nn.Module):
    """Every token looks at every token, or at those that its masks leave.

    Args:
        spec: heads and backend; ``auto`` takes the preferred backend of the device that the input is on.
        d_model: width of a token.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given.
    """

    def __init__(self, spec: AttentionSpec, d_model: int) -> None:
        super().__init__()
        self.spec = spec
        self.masks: dict[str, Any] = {}
        if spec.causal or spec.window is not None:
            self.masks = {"causal": spec.causal, "window": spec.window}
        self._prepare()
        self.q_proj = nn.Linear(d_model, d_model)
        self.kv_proj = nn.Linear(d_model, 2 * d_model)
        self.out_proj = nn.Linear(d_model, d_model)
        for projection in (self.q_proj, self.kv_proj, self.out_proj):
            nn.init.zeros_(projection.bias)

    def _prepare(self) -> None:
        attention.BACKENDS.prepare(self.spec.backend, usable_devices())
        attention.BACKENDS.load("sdpa")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._prepare()

    def forward(self, x: Tensor, read: int | None = None) -> Tensor:
        queries, masks = x, self.masks
        if read is not None:
            if not -x.shape[1] <= read < x.shape[1]:
                raise IndexError(f"token {read} is out of range: there are {x.shape[1]}")
            at = read % x.shape[1]
            reach = x.shape[1] if self.spec.window is None else self.spec.window
            queries, masks = x[:, at : at + 1], {}
            x = x[:, max(at - reach, 0) : at + 1 + (0 if self.spec.causal else reach)]  # all that this token sees
        q = self.q_proj(queries).unflatten(-1, (self.spec.n_heads, -1))
        k, v = self.kv_proj(x).unflatten(-1, (2, self.spec.n_heads, -1)).unbind(2)
        backend = attention.BACKENDS.load_for(self.spec.backend, x.device.type, x.dtype == torch.float64)
        if self.spec.backend == "auto":
            backend = attention.faster(backend, q, k, **masks)
        return self.out_proj(backend.attention(q, k, v, **masks).flatten(-2))  # type: ignore[no-any-return]
