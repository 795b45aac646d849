"""FNet: mixing by the Fourier transform, without weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ftmamba.backends import ANY, Backend, Backends
from ftmamba.mixers.attention import TransformerSpec
from ftmamba.spec import Part


@dataclass(frozen=True, kw_only=True)
class FNetSpec(TransformerSpec):
    """Real part of the transform over tokens and width (Lee-Thorp et al., arXiv 2105.03824, equation 3)."""

    name = "fnet"
    about = "the Fourier transform over tokens and width, with a feed-forward layer"
    backends = Backends(__name__, Backend(name="reference", about="torch.fft", devices=ANY))
    layer = "layer:FNetMixer"

    def mixing(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        size = d * n_tokens
        flops = size * math.ceil(5 * math.log2(size)) if n_read > 1 else 4 * size
        return {"mixer": Part(flops=flops, inputs=size, outputs=n_read * d, live=2 * size)}


SPEC = FNetSpec
