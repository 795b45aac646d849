"""Linformer: attention to a few learned sums of tokens."""

from __future__ import annotations

from dataclasses import dataclass

from ftmamba.mixers.attention import HeadsSpec
from ftmamba.spec import Part, parameter


@dataclass(frozen=True, kw_only=True)
class LinformerSpec(HeadsSpec):
    """Keys and values projected along the tokens (Wang et al., arXiv 2006.04768, equation 7)."""

    rank: int = parameter(256, low=1, high=1_000_000, about="sums of tokens (k); no more than there are tokens")

    name = "linformer"
    about = "attention to learned sums of tokens, with a feed-forward layer"
    layer = "layer:LinformerMixer"
    sized = True

    def core(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        rank = min(self.rank, n_tokens)
        attention = super().core(d, rank, n_read)["attention"]
        sums = Part(4 * n_tokens * rank * d, inputs=2 * n_tokens * d, outputs=2 * rank * d, params=2 * n_tokens * rank)
        weights = n_tokens * rank * self.n_heads if self.backend == "reference" else 0
        return {"mixer": sums, "attention": attention._replace(live=(n_tokens + 2 * rank) * d + weights)}


SPEC = LinformerSpec
