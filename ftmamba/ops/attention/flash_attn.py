"""The flash-attn package (Dao, arXiv 2307.08691); float16 and bfloat16 on CUDA."""

from __future__ import annotations

from flash_attn import flash_attn_func
from torch import Tensor

from ftmamba.backends import BackendError


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    window: int | None = None,
    lengths: Tensor | None = None,
    global_token: int | None = None,
) -> Tensor:
    """See ``ftmamba.ops.attention.attention``.

    Raises:
        BackendError: rows of different lengths, or a global token.
    """
    if lengths is not None or global_token is not None:
        raise BackendError("backend 'flash_attn' takes no rows of different lengths, nor a global token; use 'sdpa'")
    reach = -1 if window is None else window
    return flash_attn_func(q, k, v, causal=causal, window_size=(reach, 0 if causal else reach))  # type: ignore[no-any-return]
