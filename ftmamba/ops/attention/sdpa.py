"""Attention by torch's scaled_dot_product_attention: by the kernel that it chooses or by one and no other."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """See ``ftmamba.ops.attention.attention``; torch chooses the kernel."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


def attention_by(kernel: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same by one kernel; torch raises RuntimeError where that kernel cannot take the inputs."""
    with sdpa_kernel(kernel):
        return attention(q, k, v)


flash, cudnn, efficient, math = (
    SimpleNamespace(attention=partial(attention_by, kernel))
    for kernel in (
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    )
)
