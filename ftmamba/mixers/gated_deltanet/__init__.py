"""Gated DeltaNet: a linear attention that corrects what its state holds under a key."""

from __future__ import annotations

from dataclasses import dataclass

from ftmamba.backends import ANY, NUMBA, Backend, Backends
from ftmamba.mixers.attention import HeadsSpec
from ftmamba.spec import Part, causal_filter, linear, parameter

EPS = 1e-6  # beside the squared length of queries and keys


@dataclass(frozen=True, kw_only=True)
class GatedDeltaNetSpec(HeadsSpec):
    """Gated DeltaNet (Yang, Kautz and Hatamizadeh, arXiv 2412.06464), with a feed-forward layer as its authors have."""

    n_heads: int = parameter(2, low=1, high=1024, about="heads; d_model must be a multiple")
    d_conv: int = parameter(4, low=1, high=1024, about="taps of the causal convolution")
    chunk: int = parameter(32, low=1, high=4096, about="tokens that are solved for together")

    name = "gated_deltanet"
    about = "Gated DeltaNet, with a feed-forward layer"
    causal = True
    layer = "layer:GatedDeltaNetMixer"
    backends = Backends(
        __name__,
        NUMBA,
        Backend(name="chunked", about="matrix products and triangular systems over chunks of tokens", devices=ANY),
        Backend(name="reference", about="plain torch, a loop over tokens", devices=ANY),
    )

    def state_bytes(self, d_model: int, n_tokens: int, itemsize: int = 4) -> int:
        return (3 * (self.d_conv - 1) + d_model // self.n_heads) * d_model * itemsize

    def mixing(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        d_head = d // self.n_heads
        chunk = 0 if self.backend == "reference" else min(self.chunk, n_tokens)
        return {
            "in_proj": linear(d, (n_tokens, 3 * d + 2 * self.n_heads), live=n_tokens * 3 * d),
            "gate_proj": linear(d, (n_read, d), live=n_tokens * d),
            "causal_conv": causal_filter(3 * d, self.d_conv, n_tokens),
            "mixer": Part(
                n_tokens * d * (8 * d_head + 10 * chunk),
                exps=n_tokens * self.n_heads * (2 + chunk),
                inputs=3 * n_tokens * d + n_read * d,
                outputs=n_read * d,
                params=2 * self.n_heads + d_head,
                live=n_tokens
                * (3 * d + (d * d_head // chunk if self.backend == "numba" else 3 * self.n_heads * chunk)),
            ),
            "out_proj": linear(d, (n_read, d), live=n_tokens * d),
        }


SPEC = GatedDeltaNetSpec
