"""Attention: every query looks at the keys that it sees (Vaswani et al., arXiv 1706.03762, equation 1).

For every row and head, with d_head the last axis::

    out = softmax(q k^T / sqrt(d_head)) v

Keys stand at positions 0, 1, ... of a row; the queries are the last ``n_queries`` of its valid tokens, or all of them
where there are no more: query t stands at position ``t + max(length - n_queries, 0)``. Without masks it sees every key.
"""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from ftmamba.backends import ANY, NUMBA, Backend, Backends

if TYPE_CHECKING:
    from torch import Tensor

BACKENDS = Backends(
    __name__,
    NUMBA,
    Backend(name="sdpa", about="torch's scaled_dot_product_attention, kernel chosen by torch", devices=ANY),
    Backend(
        name="sdpa_flash",
        about="torch's FlashAttention kernel; 16-bit only on CUDA",
        devices=ANY,
        half_only=("cuda",),
        module="sdpa:flash",
    ),
    Backend(
        name="sdpa_cudnn",
        about="cuDNN's kernel, by torch; 16-bit only",
        devices=("cuda",),
        float64=False,
        half_only=("cuda",),
        module="sdpa:cudnn",
    ),
    Backend(name="sdpa_efficient", about="torch's memory-efficient kernel", devices=("cuda",), module="sdpa:efficient"),
    Backend(name="sdpa_math", about="torch's unfused kernel", devices=ANY, module="sdpa:math"),
    Backend(
        name="flash_attn",
        about="the flash-attn package; 16-bit only",
        devices=("cuda",),
        packages=("flash_attn",),
        install="a wheel of flash-attn's releases for this torch and CUDA",
        float64=False,
        half_only=("cuda",),
    ),
    Backend(name="reference", about="plain torch, the full weight matrix held in memory", devices=ANY),
)


def faster(backend: ModuleType, q: Tensor, k: Tensor, **masks: object) -> ModuleType:
    """The backend itself, or torch's where it says of itself that this is faster: what layers take."""
    pays = getattr(backend, "pays", None)
    return backend if pays is None or pays(q.shape, k.shape[1], bool(masks)) else BACKENDS.load("sdpa")


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    lengths: Tensor | None = None,
    global_token: int | None = None,
    backend: str,
) -> Tensor:
    """Mix values by the similarity of queries and keys.

    Args:
        q: (batch, n_queries, n_heads, d_head).
        k: (batch, n_tokens, n_heads, d_head).
        v: (batch, n_tokens, n_heads, d_head).
        causal: a query sees no later key.
        window: a query sees no key that is more than so many positions away; None means no bound.
        lengths: (batch,), how many tokens of each row are valid, whole numbers; None means all. What stands behind them
            is not looked at, and queries there give zeros.
        global_token: the place of a valid token that every query sees, whatever stands above; -1 is each row's last.
        backend: exact name, a key of ``BACKENDS``.

    Returns:
        (batch, n_queries, n_heads, d_head) in the dtype of q.

    Raises:
        ValueError: shapes that do not fit together, a window below zero, or masks with more queries than keys.
        BackendError: unknown backend, or one without such a mask.
    """
    if q.dim() != 4 or k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[2:] != k.shape[2:]:
        raise ValueError(
            f"expected q (batch, n_queries, n_heads, d_head) and k, v (batch, n_tokens, n_heads, d_head); "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if q.shape[1] > k.shape[1] and (causal or any(each is not None for each in (window, lengths, global_token))):
        raise ValueError(f"masks need a position for each query: {q.shape[1]} queries, {k.shape[1]} keys")
    if window is not None and window < 0:
        raise ValueError(f"a window counts positions from 0 on, got {window}")
    if lengths is not None and (lengths.shape != q.shape[:1] or lengths.is_floating_point()):
        raise ValueError(
            f"expected lengths ({q.shape[0]},) of whole numbers, got {lengths.dtype} {tuple(lengths.shape)}"
        )
    function = BACKENDS.load(backend).attention
    return function(  # type: ignore[no-any-return]
        q, k, v, causal=causal, window=window, lengths=lengths, global_token=global_token
    )
