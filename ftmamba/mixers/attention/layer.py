"""Multi-head self-attention (Vaswani et al., arXiv 1706.03762, section 3.2), without norm and residual."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ftmamba.mixers import usable_devices
from ftmamba.mixers.attention import AttentionSpec, HeadsSpec
from ftmamba.ops import attention
from ftmamba.ragged import last, without_pads
from ftmamba.state import Cache, Steps, new_cache


class HeadsMixer(nn.Module):
    """Projections of tokens to queries, keys and values in heads, and of what is mixed from them.

    Args:
        spec: heads and backend; ``auto`` takes the preferred backend of the device that the input is on. Ours leaves
            single queries and few tokens to torch's kernel, which is the faster there.
        d_model: width of a token.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given.
    """

    def __init__(self, spec: HeadsSpec, d_model: int) -> None:
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
        if self.spec.backends is attention.BACKENDS:
            attention.BACKENDS.load("sdpa")  # which `attention.faster` may fall to

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._prepare()

    def forward(self, x: Tensor, read: int | None = None, lengths: Tensor | None = None) -> Tensor:
        queries, x = self.visible(x, read) if lengths is None else self.ragged(x, read, lengths)
        q, k, v = self.project(queries, x)
        y = self.out_proj(self.mix(q, k, v, lengths).flatten(-2))
        return y if read is not None else without_pads(y, lengths)

    def project(self, queries: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of some tokens, keys and values of all, (batch, ..., n_heads, d_head)."""
        q = self.q_proj(queries).unflatten(-1, (self.spec.n_heads, -1))
        return q, *self.kv_proj(x).unflatten(-1, (2, self.spec.n_heads, -1)).unbind(2)

    def ragged(self, x: Tensor, read: int | None, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """As ``visible``, of ragged rows."""
        x = without_pads(x, lengths)
        return x if read is None else last(x, lengths, read), x

    def visible(self, x: Tensor, read: int | None) -> tuple[Tensor, Tensor]:
        """The tokens that ask, and those that they may see; of a causal mixer none after the one that is read."""
        if read is None:
            return x, x
        at = position(read, x.shape[1])
        return x[:, at : at + 1], x[:, : at + 1] if self.spec.causal else x

    def mix(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, n_queries or n_tokens, n_heads, d_head) each -> that of q."""
        masks = {} if lengths is None else {"lengths": lengths}
        return attention.faster(self.backend(q), q, k, **masks).attention(q, k, v, **masks)  # type: ignore[no-any-return]

    def backend(self, x: Tensor) -> ModuleType:
        """That which computes x."""
        return self.spec.backends.load_for(self.spec.backend, x.device.type, x.dtype == torch.float64)


class AttentionMixer(Steps, HeadsMixer):
    """Every token looks at every token, or at those that its masks leave."""

    spec: AttentionSpec

    def visible(self, x: Tensor, read: int | None) -> tuple[Tensor, Tensor]:
        if read is None or self.spec.window is None:
            return super().visible(x, read)
        at, reach = position(read, x.shape[1]), self.spec.window
        return x[:, at : at + 1], x[:, max(at - reach, 0) : at + 1 + (0 if self.spec.causal else reach)]

    def mix(self, q: Tensor, k: Tensor, v: Tensor, lengths: Tensor | None = None) -> Tensor:
        masked = self.spec.causal or self.spec.window is not None
        # A token that is read alone is given what it sees, but not that of a ragged row.
        if not masked or (q.shape[1] != k.shape[1] and lengths is None):
            return super().mix(q, k, v, lengths)
        masks = {"causal": self.spec.causal, "window": self.spec.window, "lengths": lengths}
        return attention.faster(self.backend(q), q, k, **masks).attention(q, k, v, **masks)  # type: ignore[no-any-return]

    def _start(self, batch: int, room: int | None) -> Cache:
        return new_cache(self.q_proj.weight, batch, room, self.spec.n_heads, self.spec.window)

    @torch.no_grad()
    def prefill(self, x: Tensor, lengths: Tensor, room: int | None) -> tuple[Tensor, Cache]:
        """See ``ftmamba.state``: each place of a cache gets the newest token that belongs there."""
        q, k, v = self.project(x, x)
        y = self.out_proj(self.mix(q, k, v, lengths.clamp(min=1)).flatten(-2))
        cache = self._start(len(x), max(room or 0, x.shape[1]))
        newest, n_places = lengths[:, None] - 1, cache.k.shape[1]
        at = newest - (newest - torch.arange(n_places, device=x.device)) % n_places
        row, place = (at >= 0).nonzero(as_tuple=True)
        for kept, given in ((cache.k, k), (cache.v, v)):
            kept[row, place] = given[row, at[row, place]]
        return y, cache._replace(n_seen=lengths.clone())

    @torch.no_grad()
    def step(self, x: Tensor, state: Cache) -> tuple[Tensor, Cache]:
        """One token more, (batch, 1, d_model): its output, and the state behind it."""
        q, k, v = self.project(x, x)
        state = state.add(k, v, grows=self.spec.window is None)
        y = HeadsMixer.mix(self, q, *state.used(), state.lengths())
        return self.out_proj(y.flatten(-2)), state

    def packed(self) -> dict[str, Tensor | int] | None:
        """The weights as ``ftmamba.tower_step`` reads them; None where its kernel does not take this layer."""
        spec, d_model = self.spec, self.q_proj.in_features
        if type(self) is not AttentionMixer or spec.backends.resolve(spec.backend, "cpu") != "numba":
            return None
        scale = (d_model // spec.n_heads) ** -0.5 / math.log(2)  # of logits of base 2
        weight, bias = (
            torch.cat([scale * getattr(self.q_proj, each).detach(), getattr(self.kv_proj, each).detach()])
            for each in ("weight", "bias")
        )
        return {
            "is_attention": 1,
            "in_weight": weight.t(),
            "in_bias": bias,
            "in_width": 3 * d_model,
            "out_weight": self.out_proj.weight.detach().t(),
            "out_bias": self.out_proj.bias,
            "n_heads": spec.n_heads,
            "grows": int(spec.window is None),
        }


def position(read: int, n_tokens: int) -> int:
    """The place of the token that is read, counted from the first.

    Raises:
        IndexError: there is no such token.
    """
    if not -n_tokens <= read < n_tokens:
        raise IndexError(f"token {read} is out of range: there are {n_tokens}")
    return read % n_tokens
