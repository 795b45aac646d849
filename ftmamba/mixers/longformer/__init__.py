"""Longformer: attention within a window, and a [CLS] that sees all and that all see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ftmamba.backends import ANY, NUMBA, Backend, Backends
from ftmamba.mixers.attention import HeadsSpec
from ftmamba.spec import EncoderSpec, MixerSpec, Part, linear, parameter


@dataclass(frozen=True, kw_only=True)
class LongformerSpec(HeadsSpec):
    """Sliding window and one global token with projections of its own (Beltagy et al., arXiv 2004.05150, section 3)."""

    window: int = parameter(128, low=2, high=1_000_000, about="tokens that one sees around itself, half on each side")
    global_token: Literal["first", "last"] = parameter(
        "last", choices=("first", "last"), about="the token that sees all; where [CLS] stands"
    )

    name = "longformer"
    about = "attention within a window and with [CLS], with a feed-forward layer"
    layer = "layer:LongformerMixer"
    backends = Backends(
        __name__,
        NUMBA,
        Backend(name="banded", about="torch's attention on blocks of half a window and their neighbours", devices=ANY),
        Backend(name="reference", about="plain torch, the weights of all pairs held in memory", devices=ANY),
    )

    def check(self, d_model: int) -> None:
        super().check(d_model)
        if self.window % 2:
            raise ValueError(f"window takes even numbers from 2 to 1,000,000, got {self.window}")

    def at(self, layer: int, tower: EncoderSpec) -> MixerSpec:
        if tower.cls_position != self.global_token:
            raise ValueError(f"longformer's global_token is {self.global_token}, where [CLS] is {tower.cls_position}")
        return self

    def mixing(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        local = 0 if n_read == 1 else n_tokens  # what is read alone is [CLS], which needs no window
        block = min(self.window // 2, n_tokens)
        keys = n_tokens if self.backend == "reference" else 3 * block + 1
        seen = (n_tokens if self.backend == "reference" else -(-n_tokens // block) * block) * keys * (local > 0)
        return {
            "q_proj": linear(d, (local, d), bias=True, live=n_tokens * d),
            "kv_proj": linear(d, (local, 2 * d), bias=True, live=n_tokens * 2 * d),
            "q_global_proj": linear(d, (1, d), bias=True),
            "kv_global_proj": linear(d, (n_tokens, 2 * d), bias=True, live=n_tokens * 2 * d),
            "mixer": Part(
                4 * (seen + n_tokens) * d,
                exps=(seen + n_tokens) * self.n_heads,
                inputs=3 * (local + n_tokens) * d,
                outputs=n_read * d,
                live=n_tokens * d + (seen * self.n_heads if self.backend == "reference" else 0),
            ),
            "out_proj": linear(d, (n_read, d), bias=True, live=n_tokens * d),
        }


SPEC = LongformerSpec
