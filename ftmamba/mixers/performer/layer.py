"""Performer's attention (Choromanski et al., arXiv 2009.14794)."""

from __future__ import annotations

import torch
from torch import Tensor

from ftmamba.mixers.attention.layer import HeadsMixer
from ftmamba.mixers.performer import PerformerSpec
from ftmamba.ragged import valid, without_pads
from ftmamba.state import Steps, Sums

EPS = 1e-4  # keeps features positive, as in the authors' code


class PerformerMixer(Steps, HeadsMixer):
    """Attention whose weights are ``phi(q) . phi(k)`` over their sum, phi random features of the softmax.

    The features are a buffer, so they are copied, saved and exported with the weights. In training they are drawn anew
    every ``redraw`` steps by torch's generator; compiled or exported programs keep those that they have, where
    ``draw`` may be called between steps.
    """

    spec: PerformerSpec
    projection: Tensor

    def __init__(self, spec: PerformerSpec, d_model: int) -> None:
        super().__init__(spec, d_model)
        self.register_buffer("projection", torch.empty(spec.features(d_model), d_model // spec.n_heads))
        self.steps = 0
        self.draw()

    @torch.no_grad()
    def draw(self) -> None:
        """New features: rows orthogonal within each block of d_head, as long as those of a Gaussian matrix."""
        m, d_head = self.projection.shape
        blocks = [torch.linalg.qr(torch.randn(d_head, d_head)).Q.T for _ in range(-(-m // d_head))]
        lengths = torch.randn(m, d_head).norm(dim=1, keepdim=True)
        self.projection.copy_(lengths * torch.cat(blocks)[:m])

    def mix(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
        if self.training and self.spec.redraw and not torch.compiler.is_compiling():
            self.steps += 1
            if self.steps % self.spec.redraw == 0:
                self.projection = torch.empty_like(self.projection)  # an earlier pass may have to go back yet
                self.draw()
        causal, k = self.spec.causal and q.shape[1] > 1, without_pads(self._keys(k, lengths), lengths)
        return self.backend(q).linear_attention(self._features(q, -1), k, v, causal=causal)  # type: ignore[no-any-return]

    def _keys(self, k: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self._features(k, None if self.spec.causal else (1, 3), lengths)

    def _features(self, x: Tensor, over: int | tuple[int, ...] | None, lengths: Tensor | None = None) -> Tensor:
        """exp(w x' - |x'|^2 / 2) with x' = d_head^-1/4 x, divided by its largest; a common factor cancels out."""
        x = x * x.shape[-1] ** -0.25
        logits = x @ self.projection.to(x.dtype).T
        if over is None:
            return torch.exp(logits - x.square().sum(-1, keepdim=True) / 2) + EPS
        seen = logits.detach()
        if lengths is not None:
            seen = seen.where(valid(lengths, x.shape[1])[:, :, None, None], -torch.inf)
        largest = seen.amax(over, keepdim=True)
        return torch.exp(logits - x.square().sum(-1, keepdim=True) / 2 - largest) + EPS

    def _start(self, batch: int, room: int | None) -> Sums:
        (m, d_head), weight = self.projection.shape, self.q_proj.weight
        return Sums.zeros(weight, batch, self.spec.n_heads, m, d_head)

    @torch.no_grad()
    def step(self, x: Tensor, state: Sums) -> tuple[Tensor, Sums]:
        """One token more, (batch, 1, d_model): its output, and the state behind it."""
        q, k, v = self.project(x, x)
        y, state = state.step(self._features(q, -1), self._keys(k), v)
        return self.out_proj(y), state
