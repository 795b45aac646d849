"""The Gated DeltaNet layer (arXiv 2412.06464, section 3.4), without norm and residual of the block."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmamba.mixers import usable_devices
from ftmamba.mixers.gated_deltanet import EPS, GatedDeltaNetSpec
from ftmamba.mixers.gated_deltanet.reference import advance
from ftmamba.ops import causal_conv
from ftmamba.ragged import last, without_pads
from ftmamba.state import Recurrent, Steps


class GatedDeltaNetMixer(Steps, nn.Module):
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
        if x.shape[1] < 1:
            raise ValueError("a Gated DeltaNet layer needs at least one token")
        x = without_pads(x, lengths)
        if lengths is None and read is not None and read % x.shape[1] != x.shape[1] - 1:
            raise ValueError("a causal mixer can be read only at the last token")
        spec, (mixed, decay, beta) = self.spec, self._project(x)
        backend = spec.backends.load_for(spec.backend, x.device.type, x.dtype == torch.float64)
        mixed = self._filter(mixed)
        if fused := getattr(backend, "from_mixed", None):
            y = fused(mixed, decay, beta, lengths, spec.chunk)
        else:
            y = backend.gated_delta_rule(*self._parts(mixed), decay, beta, chunk=spec.chunk)
        if read is not None:
            x, y = (x[:, -1:], y[:, -1:]) if lengths is None else (last(each, lengths, read) for each in (x, y))
        y = self._give(x, y)
        return y if read is not None else without_pads(y, lengths)

    def _start(self, batch: int, room: int | None) -> Recurrent:
        weight, spec = self.in_proj.weight, self.spec
        d_model, d_head = weight.shape[1], weight.shape[1] // spec.n_heads
        conv = weight.new_zeros(batch, spec.d_conv - 1, 3 * d_model)
        return Recurrent(conv, weight.new_zeros(batch, spec.n_heads, d_head, d_head))

    @torch.no_grad()
    def step(self, x: Tensor, state: Recurrent) -> tuple[Tensor, Recurrent]:
        """One token more, (batch, 1, d_model): its output, and the state behind it."""
        mixed, decay, beta = self._project(x)
        seen = torch.cat([state.conv, mixed], dim=1)
        q, k, v = (each[:, -1] for each in self._parts(self._filter(seen)))
        y, rule = advance(state.state, q, k, v, decay[:, 0], beta[:, 0])
        return self._give(x, y.unsqueeze(1)), Recurrent(seen[:, 1:], rule)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values before the convolution, the logarithm of what is kept, the share of corrections."""
        n_heads = self.spec.n_heads
        mixed, beta, step = self.in_proj(x).split([3 * x.shape[-1], n_heads, n_heads], dim=-1)
        return mixed, -self.A_log.exp() * F.softplus(step + self.dt_bias), beta.sigmoid()

    def _filter(self, mixed: Tensor) -> Tensor:
        """What stands behind the convolution."""
        conv = causal_conv.BACKENDS.load_for(self._conv_backend(), mixed.device.type, mixed.dtype == torch.float64)
        return conv.causal_conv(mixed, self.conv1d.weight.squeeze(1), self.conv1d.bias)  # type: ignore[no-any-return]

    def _parts(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values in heads."""
        q, k, v = torch.unflatten(mixed, -1, (3, self.spec.n_heads, -1)).unbind(2)
        q, k = (each * torch.rsqrt(each.square().sum(-1, keepdim=True) + EPS) for each in (q, k))
        return q * q.shape[-1] ** -0.5, k, v

    def _give(self, x: Tensor, y: Tensor) -> Tensor:
        return self.out_proj(self.norm(y).flatten(-2) * F.silu(self.gate_proj(x)))  # type: ignore[no-any-return]
