"""The short filter by torch's own conv1d, which wants channels first."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `ftmamba.ops.causal_conv.causal_conv`."""
    d_inner, d_conv = weight.shape
    padded = F.pad(x.transpose(1, 2), (d_conv - 1, 0))
    filtered = F.conv1d(padded, weight.to(x.dtype).unsqueeze(1), bias.to(x.dtype), groups=d_inner)
    return F.silu(filtered).transpose(1, 2)
