"""Attention by torch's scaled_dot_product_attention: by the kernel that it chooses or by one and no other."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ftmamba.ops.attention.masks import seen
from ftmamba.ragged import without_pads


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
    """See ``ftmamba.ops.attention.attention``; torch chooses the kernel."""
    q, k, v = (without_pads(tensor, lengths).transpose(1, 2) for tensor in (q, k, v))
    plain = window is None and lengths is None and global_token is None
    alone = causal and plain and q.shape[2] == k.shape[2]  # torch counts from the first
    mask = None if alone else seen(q.transpose(1, 2), k.transpose(1, 2), causal, window, lengths, global_token)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=alone)
    return without_pads(out.transpose(1, 2), lengths)


def attention_by(kernel: SDPBackend, q: Tensor, k: Tensor, v: Tensor, **masks: Any) -> Tensor:
    """The same by one kernel; torch raises RuntimeError where that kernel cannot take the inputs or the masks."""
    with sdpa_kernel(kernel):
        return attention(q, k, v, **masks)


flash, cudnn, efficient, math = (
    SimpleNamespace(attention=partial(attention_by, kernel))
    for kernel in (
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.MATH,
    )
)
