"""Linear attention: the softmax replaced by a product of positive features."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ftmamba.backends import ANY, NUMBA, Backend, Backends
from ftmamba.mixers.attention import HeadsSpec
from ftmamba.spec import Part, parameter

CHUNK = 64  # tokens of a causal row that are weighed pair by pair
BACKENDS = Backends(
    __name__,
    Backend(name="chunked", about="matrix products, no weights of pairs beyond a chunk of 64 tokens", devices=ANY),
    Backend(name="reference", about="plain torch, the weights of all pairs held in memory", devices=ANY),
)


@dataclass(frozen=True, kw_only=True)
class LinearHeadsSpec(HeadsSpec):
    """Linear attention (Katharopoulos et al., arXiv 2006.16236, equations 5 and 9) with elu(x) + 1 as its features."""

    causal: bool = parameter(False, about="whether a token sees earlier ones alone")  # type: ignore[misc]

    name = "linear_attention"
    about = "linear attention with elu + 1, with a feed-forward layer"
    backends = Backends(
        __name__,
        replace(NUMBA, about="our CPU kernel for causal rows; both directions and single tokens by matrix products"),
        *BACKENDS.values(),
    )
    layer = "layer:LinearAttentionMixer"

    def state_bytes(self, d_model: int, n_tokens: int, itemsize: int = 4) -> int | None:
        return d_model * (d_model // self.n_heads + 1) * max(itemsize, 8) if self.causal else None  # sums in float64

    def core(self, d: int, n_tokens: int, n_read: int) -> dict[str, Part]:
        return {"mixer": products(d // self.n_heads, self, d, n_tokens, n_read)}


def products(n_features: int, spec: HeadsSpec, d: int, n_tokens: int, n_read: int) -> Part:
    """Sums of keys and values, and what queries read from them."""
    width, d_head = spec.n_heads * n_features, d // spec.n_heads
    pairs = n_tokens * spec.n_heads if spec.backend == "reference" else 0
    if spec.causal and n_read > 1:
        pairs += min(n_tokens, CHUNK) * spec.n_heads
    return Part(
        2 * (n_tokens + n_read) * (d_head + 1) * width + 2 * n_read * pairs * (n_features + d_head + 1),
        exps=(n_tokens + n_read) * width,
        inputs=(n_read + 2 * n_tokens) * d,
        outputs=n_read * d,
        live=n_tokens * (width * d_head // CHUNK if spec.causal and spec.backend == "numba" else 2 * width + pairs),
    )


SPEC = LinearHeadsSpec
