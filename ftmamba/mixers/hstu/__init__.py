"""HSTU: attention without softmax, gated, in place of attention and feed-forward layer."""

from __future__ import annotations

from dataclasses import dataclass

from ftmamba.backends import ANY, NUMBA, Backend, Backends
from ftmamba.spec import MixerSpec, Part, linear, parameter

BLOCK = 128  # queries whose weights stand in memory at a time


@dataclass(frozen=True, kw_only=True)
class HSTUSpec(MixerSpec):
    """Hierarchical sequential transduction unit (Zhai et al., arXiv 2402.17152, section 3.2), without its biases of
    position and time, which the tokens of a table do not have; N is the number of tokens that one sees."""

    n_heads: int = parameter(2, low=1, high=1024, about="heads; d_model must be a multiple")
    causal: bool = parameter(True, about="whether a token sees earlier ones alone")  # type: ignore[misc]

    name = "hstu"
    about = "HSTU, gated attention without softmax"
    layer = "layer:HSTUMixer"
    backends = Backends(
        __name__,
        NUMBA,
        Backend(name="blocks", about="matrix products, the weights of 128 queries in memory at a time", devices=ANY),
        Backend(name="reference", about="plain torch, the weights of all pairs held in memory", devices=ANY),
    )

    def check(self, d_model: int) -> None:
        if d_model % self.n_heads:
            raise ValueError(f"d_model {d_model} is not a multiple of n_heads {self.n_heads}")

    def state_bytes(self, d_model: int, n_tokens: int, itemsize: int = 4) -> int | None:
        return 2 * n_tokens * d_model * itemsize + 8 if self.causal else None

    def parts(self, d_model: int, n_tokens: int, n_read: int, *, first: bool) -> dict[str, Part]:
        d, tokens = d_model, n_tokens * d_model
        every = self.backend == "reference"
        seen = n_tokens if n_read == 1 or every or not self.causal else (n_tokens + min(BLOCK, n_tokens)) / 2
        pairs = int(n_read * seen)
        return {
            "norm": Part(inputs=tokens, outputs=tokens, params=2 * d, live=tokens),
            "kv_proj": linear(d, (n_tokens, 2 * d), live=2 * 2 * tokens),
            "uq_proj": linear(d, (n_read, 2 * d), live=2 * 2 * tokens),
            "mixer": Part(
                4 * pairs * d,
                exps=pairs * self.n_heads + 2 * (tokens + n_read * d),
                inputs=2 * (tokens + n_read * d),
                outputs=n_read * d,
                params=2 * d,
                live=tokens + (2 * n_tokens * n_tokens * self.n_heads if every else 0),
            ),
            "out_proj": linear(d, (n_read, d), bias=True, live=tokens),
        }


SPEC = HSTUSpec
