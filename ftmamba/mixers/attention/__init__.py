"""Attention with a feed-forward layer, as in the FT-Transformer, and what mixers like it have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ftmamba.ops import attention
from ftmamba.spec import Activation, MixerSpec, Part, feed_forward, linear, parameter

BEST_HEAD = {"cpu": 32, "cuda": 64}  # channels


@dataclass(frozen=True, kw_only=True)
class TransformerSpec(MixerSpec):
    """What mixers with a feed-forward layer in each block have in common."""

    ffn_activation: Activation = parameter(
        "reglu", choices=("reglu", "relu"), about="reglu (FT-Transformer) or relu (arXiv 1706.03762)"
    )
    d_ffn: int | None = parameter(
        None,
        low=1,
        high=1_000_000,
        about="hidden width of the feed-forward layer; None gives 4/3 of d_model with reglu, 4 times with relu, which "
        "cost the same number of parameters within rounding",
    )
    first_norm: bool = parameter(
        False, about="whether the first block normalises its input; the FT-Transformer does not"
    )

    def ffn(self, d_model: int) -> tuple[int, Activation]:
        usual = int(d_model * 4 / 3) if self.ffn_activation == "reglu" else 4 * d_model
        return usual if self.d_ffn is None else self.d_ffn, self.ffn_activation

    def normed(self, first: bool) -> bool:
        return self.first_norm or not first

    def parts(self, d_model: int, n_tokens: int, n_read: int, *, first: bool) -> dict[str, Part]:
        d, normed = d_model, self.normed(first)
        n_normed = (n_read * (1 + self.post_norm) + n_tokens * normed) * d
        return {
            "norm": Part(
                inputs=n_normed, outputs=n_normed, params=2 * d * (1 + self.post_norm + normed), live=n_tokens * d
            ),
            **self.mixing(d, n_tokens, n_read),
            "feed_forward": feed_forward(d, *self.ffn(d), n_read),
        }

    def mixing(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        """Work of the mixer alone, by region; of width ``d``."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class HeadsSpec(TransformerSpec):
    """What mixers of queries, keys and values in heads have in common; without masks of its own it is attention."""

    n_heads: int = parameter(8, low=1, high=1024, about="heads; d_model must be a multiple")

    backends = attention.BACKENDS

    def check(self, d_model: int) -> None:
        if d_model % self.n_heads:
            raise ValueError(f"d_model {d_model} is not a multiple of n_heads {self.n_heads}")

    @classmethod
    def best(cls, d_model: int, device: str) -> dict[str, Any]:
        """Heads as near as can be to the width at which attention is fastest.

        Examples:
            >>> from ftmamba import AttentionSpec
            >>> AttentionSpec.best(64, "cpu"), AttentionSpec.best(100, "cpu"), AttentionSpec.best(64, "cuda")
            ({'n_heads': 2}, {'n_heads': 4}, {'n_heads': 1})
        """
        divisors = [n for n in range(1, min(d_model, 1024) + 1) if d_model % n == 0]
        return {"n_heads": min(divisors, key=lambda n: abs(math.log(d_model / n / BEST_HEAD[device])))}

    def mixing(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        return {
            "q_proj": linear(d, (n_read, d), bias=True, live=n_tokens * d),
            "kv_proj": linear(d, (self.seen(n_tokens, n_read)[0], 2 * d), bias=True, live=n_tokens * 2 * d),
            **self.core(d, n_tokens, n_read),
            "out_proj": linear(d, (n_read, d), bias=True, live=n_tokens * d),
        }

    def core(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        """Work between the projections."""
        n_keys, n_pairs = self.seen(n_tokens, n_read)
        weights = n_tokens * self.n_heads if self.backend == "reference" else 0  # of each token, held in memory
        return {
            "attention": Part(
                4 * n_pairs * d,
                exps=n_pairs * self.n_heads,
                inputs=(n_read + 2 * n_keys) * d,
                outputs=n_read * d,
                live=n_tokens * (d + weights),
            )
        }

    def seen(self, n_tokens: int, n_read: int) -> tuple[int, int]:
        """Keys that any token that is read sees, and pairs of such a token and a key that it sees."""
        return n_tokens, n_read * n_tokens


@dataclass(frozen=True, kw_only=True)
class AttentionSpec(HeadsSpec):
    """Multi-head self-attention and a feed-forward layer, as in the FT-Transformer (arXiv 2106.11959).

    Examples:
        >>> from ftmamba import AttentionSpec
        >>> AttentionSpec(n_heads=4).ffn(96)
        (128, 'reglu')
    """

    causal: bool = parameter(False, about="whether a token sees no later one")  # type: ignore[misc]
    window: int | None = parameter(None, low=0, high=1_000_000_000, about="how far a token sees; None gives no bound")
    post_norm: bool = parameter(  # type: ignore[misc]
        False, about="whether norms stand behind the sums (SASRec, arXiv 1706.03762), not before the layers"
    )

    name = "attention"
    about = "multi-head self-attention with a feed-forward layer (FT-Transformer)"
    layer = "layer:AttentionMixer"

    def normed(self, first: bool) -> bool:
        return self.first_norm and first if self.post_norm else super().normed(first)

    def state_bytes(self, d_model: int, n_tokens: int, itemsize: int = 4) -> int | None:
        """Keys, values and a count of the tokens."""
        n_keys = n_tokens if self.window is None else min(n_tokens, self.window + 1)
        return 2 * n_keys * d_model * itemsize + 8 if self.causal else None

    def seen(self, n_tokens: int, n_read: int) -> tuple[int, int]:
        reach = n_tokens - 1 if self.window is None else min(self.window, n_tokens - 1)
        if n_read == 1:
            return reach + 1, reach + 1
        one_side = reach * (reach + 1) // 2 + reach * (n_tokens - 1 - reach)
        return n_tokens, n_tokens + one_side * (1 if self.causal else 2)


SPEC = AttentionSpec
