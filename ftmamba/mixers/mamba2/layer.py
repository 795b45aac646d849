"""The Mamba-2 layer (Dao and Gu, arXiv 2405.21060, figure 6), without the block's norm and residual."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmamba.mixers import usable_devices
from ftmamba.mixers.mamba2 import EPS, Mamba2Spec
from ftmamba.mixers.mamba2.reference import advance
from ftmamba.ops import causal_conv
from ftmamba.ragged import last, without_pads
from ftmamba.state import Recurrent, Steps

# A CPU takes so many tokens at a time, in whole rows: what the products hand to each other then stays in cache, and the
# system need not map fresh memory. At d_model 64, B = 32, L = 1,000 all rows at once took 2.2 times as long forward and
# 1.2 to 1.7 times in training.
STRETCH_TOKENS = 4096


class Mamba2Mixer(Steps, nn.Module):
    """Gated state space layer; parameters are named and shaped as in Hugging Face's ``Mamba2Mixer`` of one group.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given.
    """

    def __init__(self, spec: Mamba2Spec, d_model: int) -> None:
        super().__init__()
        self.spec, self.d_inner = spec, spec.d_inner(d_model)
        n_heads, mixed = self.d_inner // spec.d_head, self.d_inner + 2 * spec.d_state
        self._prepare()
        self.in_proj = nn.Linear(d_model, self.d_inner + mixed + n_heads, bias=False)
        self.conv1d = nn.Conv1d(mixed, mixed, spec.d_conv, groups=mixed)
        step = torch.exp(torch.rand(n_heads) * math.log(100) + math.log(1e-3))  # log-uniform from 0.001 to 0.1
        self.dt_bias = nn.Parameter(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
        self.A_log = nn.Parameter(torch.empty(n_heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(n_heads))
        self.norm = nn.RMSNorm(self.d_inner, eps=EPS)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

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
            raise ValueError("a Mamba-2 layer needs at least one token")
        x = without_pads(x, lengths)
        if lengths is None and read is not None and read % x.shape[1] != x.shape[1] - 1:
            raise ValueError("a causal mixer can be read only at the last token")
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return self._mix(x, read, lengths)
        size = max(1, STRETCH_TOKENS // x.shape[1])
        parts = torch.split(x, size)
        ends = [None] * len(parts) if lengths is None else torch.split(lengths, size)
        outputs = [self._mix(rows, read, each) for rows, each in zip(parts, ends, strict=True)]
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _start(self, batch: int, room: int | None) -> Recurrent:
        weight, spec = self.in_proj.weight, self.spec
        conv = weight.new_zeros(batch, spec.d_conv - 1, self.conv1d.in_channels)
        return Recurrent(conv, weight.new_zeros(batch, len(self.D), spec.d_head, spec.d_state))

    @torch.no_grad()
    def step(self, x: Tensor, state: Recurrent) -> tuple[Tensor, Recurrent]:
        """One token more, (batch, 1, d_model): its output, and the state behind it."""
        z, mixed, dt = self.in_proj(x).split([self.d_inner, self.conv1d.in_channels, len(self.D)], dim=-1)
        seen = torch.cat([state.conv, mixed], dim=1)
        mixed, dt = self._filter(seen, dt)
        u, B, C, dt = (each[:, -1] for each in (*self._parts(mixed), dt))
        h = advance(state.state, u * dt.unsqueeze(-1), -self.A_log.exp() * dt, B)
        y = torch.einsum("bhps,bs->bhp", h, C) + self.D.unsqueeze(-1) * u
        return self.out_proj(self.norm(y.flatten(1).unsqueeze(1) * F.silu(z))), Recurrent(seen[:, 1:], h)

    def _filter(self, mixed: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """What the recurrence takes, behind the convolution, and the step size."""
        where = (mixed.device.type, mixed.dtype == torch.float64)
        conv = causal_conv.BACKENDS.load_for(self._conv_backend(), *where)
        mixed = conv.causal_conv(mixed, self.conv1d.weight.squeeze(1), self.conv1d.bias)
        return mixed, F.softplus(dt + self.dt_bias)

    def _parts(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs in heads, and the B and C that go with them."""
        u, B, C = torch.split(mixed, [self.d_inner, self.spec.d_state, self.spec.d_state], dim=-1)
        return torch.unflatten(u, -1, (-1, self.spec.d_head)), B, C

    def _mix(self, x: Tensor, read: int | None, lengths: Tensor | None) -> Tensor:
        def read_of(x: Tensor) -> Tensor:
            return x if read is None else x[:, -1:] if lengths is None else last(x, lengths, read)

        spec, where = self.spec, (x.device.type, x.dtype == torch.float64)
        # One product of all three would be cut up, and its gradient put together, in passes over all tokens.
        weights = torch.split(self.in_proj.weight, [self.d_inner, self.conv1d.in_channels, len(self.D)])
        z, mixed, dt = (F.linear(each, weight) for each, weight in zip((read_of(x), x, x), weights, strict=True))
        mixed, dt = self._filter(mixed, dt)
        backend, rates = spec.backends.load_for(spec.backend, *where), -self.A_log.exp()
        if read is None and (fused := getattr(backend, "gated_ssd", None)):
            return self.out_proj(fused(mixed, dt, rates * dt, z, self.D, self.norm.weight, lengths, spec.chunk))  # type: ignore[no-any-return]
        dt = without_pads(dt, lengths)  # without a step, a pad keeps the state as it is
        u, B, C = self._parts(mixed)
        y = backend.ssd(u * dt.unsqueeze(-1), rates * dt, B, read_of(C), chunk=spec.chunk)
        y = (y + self.D.unsqueeze(-1) * read_of(u)).flatten(-2)
        y = self.out_proj(self.norm(y * F.silu(z)))
        return y if read is not None else without_pads(y, lengths)
