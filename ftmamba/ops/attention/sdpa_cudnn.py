"""torch's scaled_dot_product_attention, its cuDNN kernel and no other."""

from __future__ import annotations

from torch import Tensor
from torch.nn.attention import SDPBackend

from ftmamba.ops.attention.sdpa import attention_by


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See ``ftmamba.ops.attention.attention``."""
    return attention_by(SDPBackend.CUDNN_ATTENTION, q, k, v)
