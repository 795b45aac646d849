"""The flash-attn package (Dao, arXiv 2307.08691); float16 and bfloat16 on CUDA."""

from __future__ import annotations

from flash_attn import flash_attn_func
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See ``ftmamba.ops.attention.attention``."""
    return flash_attn_func(q, k, v)  # type: ignore[no-any-return]
