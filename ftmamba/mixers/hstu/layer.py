"""The HSTU layer (Zhai et al., arXiv 2402.17152, equations 1 to 3), without norm and residual of the block."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmamba.mixers import usable_devices
from ftmamba.mixers.hstu import HSTUSpec
from ftmamba.ragged import last, without_pads
from ftmamba.state import Cache, Steps, new_cache


class HSTUMixer(Steps, nn.Module):
    """``W (u . LN(A v))`` with ``A = SiLU(q k^T) / n``, n the tokens that one sees, u, v, q, k projections' SiLU.

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
        if read is not None and self.spec.causal and lengths is None:  # what comes later is not seen
            x, read = x[:, : read % max(x.shape[1], 1) + 1], -1
        n_tokens = x.shape[1] if lengths is None else lengths.view(-1, 1, 1, 1)
        queries = x
        if read is not None:
            queries = x.select(1, read).unsqueeze(1) if lengths is None else last(x, lengths, read)
        y = self._mix(queries, *self._project(x), n_tokens, causal)
        return y if read is not None else without_pads(y, lengths)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        k, v = torch.unflatten(F.silu(self.kv_proj(x)), -1, (2, self.spec.n_heads, -1)).unbind(2)
        return k, v

    def _mix(self, queries: Tensor, k: Tensor, v: Tensor, n_tokens: Tensor | int, causal: bool) -> Tensor:
        u, q = F.silu(self.uq_proj(queries)).chunk(2, dim=-1)
        backend = self.spec.backends.load_for(self.spec.backend, q.device.type, q.dtype == torch.float64)
        y = backend.silu_attention(torch.unflatten(q, -1, (self.spec.n_heads, -1)), k, v / n_tokens, causal=causal)
        y = y.flatten(-2)
        if causal:  # each token sees those up to its own alone
            seen = torch.arange(1, k.shape[1] + 1, device=y.device, dtype=y.dtype)
            y = y * (torch.as_tensor(n_tokens, device=y.device).view(-1, 1) / seen).unsqueeze(-1)
        return self.out_proj(u * self.norm(y))  # type: ignore[no-any-return]

    def _start(self, batch: int, room: int | None) -> Cache:
        return new_cache(self.out_proj.weight, batch, room, self.spec.n_heads, None)

    @torch.no_grad()
    def step(self, x: Tensor, state: Cache) -> tuple[Tensor, Cache]:
        """One token more, (batch, 1, d_model): its output, and the state behind it."""
        state = state.add(*self._project(x), grows=True)
        return self._mix(x, *state.used(), state.n_seen.view(-1, 1, 1, 1), False), state
