"""The Gated DeltaNet layer (arXiv 2412.06464, section 3.4), without norm and residual of the block."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmamba.mixers import usable_devices
from ftmamba.mixers.gated_deltanet import GatedDeltaNetSpec
from ftmamba.ops import causal_conv
from ftmamba.ragged import last, without_pads


class GatedDeltaNetMixer(nn.Module):
    """Queries, keys and values after a short convolution, the gated delta rule, a gated norm of each head.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given.
    """

    def __init__(self, spec: GatedDeltaNetSpec, d_model: int) -> None:
        super().__init__()
        self.spec = spec
        self._prepare()
        self.in_proj = nn.Linear(d_model, 3 * d_model + 2 * spec.n_heads, bias=False)
        self.gate_proj = nn.Linear(d_model, d_model, bias=False)
        self.conv1d = nn.Conv1d(3 * d_model, 3 * d_model, spec.d_conv, groups=3 * d_model)
        self.dt_bias = nn.Parameter(torch.ones(spec.n_heads))
        self.A_log = nn.Parameter(torch.empty(spec.n_heads).uniform_(1, 16).log())
        self.norm = nn.RMSNorm(d_model // spec.n_heads, eps=1e-6)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def _prepare(self) -> None:
        self.spec.backends.prepare(self.spec.backend, usable_devices())
        causal_conv.BACKENDS.prepare(self._conv_backend(), usable_devices())

    def _conv_backend(self) -> str:
        return "reference" if self.spec.backend == "reference" else "auto"

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._prepare()

    def forward(self, x: Tensor, read: int | None = None, lengths: Tensor | None = None) -> Tensor:
        spec, where = self.spec, (x.device.type, x.dtype == torch.float64)
        if x.shape[1] < 1:
            raise ValueError("a Gated DeltaNet layer needs at least one token")
        x = without_pads(x, lengths)
        if lengths is None and read is not None and read % x.shape[1] != x.shape[1] - 1:
            raise ValueError("a causal mixer can be read only at the last token")
        mixed, beta, step = self.in_proj(x).split([3 * x.shape[-1], spec.n_heads, spec.n_heads], dim=-1)
        conv = causal_conv.BACKENDS.load_for(self._conv_backend(), *where)
        mixed = conv.causal_conv(mixed, self.conv1d.weight.squeeze(1), self.conv1d.bias)
        q, k, v = mixed.unflatten(-1, (3, spec.n_heads, -1)).unbind(2)
        q, k = (each * torch.rsqrt(each.square().sum(-1, keepdim=True) + 1e-6) for each in (q, k))
        decay = -self.A_log.exp() * F.softplus(step + self.dt_bias)
        rule = spec.backends.load_for(spec.backend, *where).gated_delta_rule
        y = rule(q * q.shape[-1] ** -0.5, k, v, decay, beta.sigmoid(), chunk=spec.chunk)
        if read is not None:
            x, y = (x[:, -1:], y[:, -1:]) if lengths is None else (last(each, lengths, read) for each in (x, y))
        y = self.out_proj(self.norm(y).flatten(-2) * F.silu(self.gate_proj(x)))
        return y if read is not None else without_pads(y, lengths)
