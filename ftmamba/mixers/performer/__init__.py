"""Performer: softmax attention estimated by random features."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ftmamba.mixers.attention import HeadsSpec
from ftmamba.mixers.linear_attention import BACKENDS, products
from ftmamba.spec import Part, parameter


@dataclass(frozen=True, kw_only=True)
class PerformerSpec(HeadsSpec):
    """FAVOR+ with positive orthogonal features (Choromanski et al., arXiv 2009.14794, sections 2.3 and 2.4).

    Where causal, features of keys are not divided by the row's largest one, which later tokens would have a say in.
    """

    n_features: int | None = parameter(
        None, low=1, high=65_536, about="random features a head (m); None gives d_head * ln(d_head)"
    )
    redraw: int = parameter(
        1000, low=0, high=1_000_000_000, about="training steps between new features; 0 keeps the first ones"
    )
    causal: bool = parameter(False, about="whether a token sees earlier ones alone")  # type: ignore[misc]

    name = "performer"
    about = "softmax attention by random features (FAVOR+), with a feed-forward layer"
    backends = BACKENDS
    layer = "layer:PerformerMixer"

    def features(self, d_model: int) -> int:
        d_head = d_model // self.n_heads
        return max(1, int(d_head * math.log(d_head))) if self.n_features is None else self.n_features

    def state_bytes(self, d_model: int, n_tokens: int, itemsize: int = 4) -> int | None:
        sums = self.n_heads * self.features(d_model) * (d_model // self.n_heads + 1)
        return sums * max(itemsize, 8) if self.causal else None  # sums in float64

    def core(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        part = products(self.features(d), self, d, n_tokens, n_read)
        projected = 2 * (n_tokens + n_read) * d * self.features(d)
        return {"mixer": part._replace(flops=part.flops + projected)}


SPEC = PerformerSpec
