"""Attention with a feed-forward layer, as in the FT-Transformer."""

from __future__ import annotations

from dataclasses import dataclass

from ftmamba.ops import attention
from ftmamba.spec import Activation, MixerSpec, Part, feed_forward, linear, parameter


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
        n_normed = (n_read + n_tokens * normed) * d
        return {
            "norm": Part(inputs=n_normed, outputs=n_normed, params=2 * d * (1 + normed), live=n_tokens * d),
            **self.mixing(d, n_tokens, n_read),
            "feed_forward": feed_forward(d, *self.ffn(d), n_read),
        }

    def mixing(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        """Work of the mixer alone, by region; of width ``d``."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class AttentionSpec(TransformerSpec):
    """Multi-head self-attention and a feed-forward layer, as in the FT-Transformer (arXiv 2106.11959).

    Examples:
        >>> from ftmamba import AttentionSpec
        >>> AttentionSpec(n_heads=4).ffn(96)
        (128, 'reglu')
    """

    n_heads: int = parameter(8, low=1, high=1024, about="heads; d_model must be a multiple")

    name = "attention"
    about = "multi-head self-attention with a feed-forward layer (FT-Transformer)"
    backends = attention.BACKENDS
    layer = "layer:AttentionMixer"

    def check(self, d_model: int) -> None:
        if d_model % self.n_heads:
            raise ValueError(f"d_model {d_model} is not a multiple of n_heads {self.n_heads}")

    def mixing(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        return {
            "q_proj": linear(d, (n_read, d), bias=True, live=n_tokens * d),
            "kv_proj": linear(d, (n_tokens, 2 * d), bias=True, live=n_tokens * 2 * d),
            **self.core(d, n_tokens, n_read),
            "out_proj": linear(d, (n_read, d), bias=True, live=n_tokens * d),
        }

    def core(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        """Work between the projections."""
        weights = n_tokens * self.n_heads if self.backend == "reference" else 0  # of each token, held in memory
        return {
            "attention": Part(
                4 * n_read * n_tokens * d,
                exps=n_read * n_tokens * self.n_heads,
                inputs=(n_read + 2 * n_tokens) * d,
                outputs=n_read * d,
                live=n_tokens * (d + weights),
            )
        }


SPEC = AttentionSpec
