"""The cheapest mixing there is: the mean of all tokens."""

from __future__ import annotations

from dataclasses import dataclass

from ftmamba.backends import ANY, Backend, Backends
from ftmamba.mixers.attention import TransformerSpec
from ftmamba.spec import Part, linear


@dataclass(frozen=True, kw_only=True)
class MeanSpec(TransformerSpec):
    """Every token gets a projection of the mean of all, then a feed-forward layer."""

    name = "mean"
    about = "mean of all tokens, with a feed-forward layer"
    backends = Backends(__name__, Backend(name="reference", about="plain torch, one pass over the tokens", devices=ANY))
    layer = "layer:MeanMixer"

    def mixing(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        mean = Part(flops=n_tokens * d, inputs=n_tokens * d, outputs=d)
        return {"mixer": mean, "out_proj": linear(d, (1, d), bias=True)}


SPEC = MeanSpec
