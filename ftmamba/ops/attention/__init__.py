"""Attention: every query looks at every key, both ways (Vaswani et al., arXiv 1706.03762, equation 1).

For every row and head, with d_head the last axis::

    out = softmax(q k^T / sqrt(d_head)) v
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ftmamba.backends import ANY, CUDA, Backend, Backends

if TYPE_CHECKING:
    from torch import Tensor

BACKENDS = Backends(
    __name__,
    Backend(name="sdpa", about="torch's scaled_dot_product_attention, kernel chosen by torch", devices=ANY),
    Backend(name="sdpa_flash", about="torch's FlashAttention kernel", devices=ANY, module="sdpa:flash"),
    Backend(
        name="sdpa_cudnn",
        about="cuDNN's kernel, by torch; 16-bit only",
        devices=("cuda",),
        float64=False,
        module="sdpa:cudnn",
    ),
    Backend(name="sdpa_efficient", about="torch's memory-efficient kernel", devices=("cuda",), module="sdpa:efficient"),
    Backend(name="sdpa_math", about="torch's unfused kernel", devices=ANY, module="sdpa:math"),
    Backend(
        name="flash_attn",
        about="the flash-attn package; 16-bit only",
        devices=("cuda",),
        packages=("flash_attn",),
        install=CUDA,
        float64=False,
    ),
    Backend(name="reference", about="plain torch, the full weight matrix held in memory", devices=ANY),
)


def attention(q: Tensor, k: Tensor, v: Tensor, *, backend: str) -> Tensor:
    """Mix values by the similarity of queries and keys.

    Args:
        q: (batch, n_queries, n_heads, d_head).
        k: (batch, n_tokens, n_heads, d_head).
        v: (batch, n_tokens, n_heads, d_head).
        backend: exact name, a key of ``BACKENDS``.

    Returns:
        (batch, n_queries, n_heads, d_head) in the dtype of q.

    Raises:
        ValueError: shapes that do not fit together.
        BackendError: unknown backend.
    """
    if q.dim() != 4 or k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[2:] != k.shape[2:]:
        raise ValueError(
            f"expected q (batch, n_queries, n_heads, d_head) and k, v (batch, n_tokens, n_heads, d_head); "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    return BACKENDS.load(backend).attention(q, k, v)  # type: ignore[no-any-return]
