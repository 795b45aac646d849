"""Peer: the CUDA kernel of the causal-conv1d package, which mamba_ssm uses; channel-first inside."""

from __future__ import annotations

from causal_conv1d import causal_conv1d_fn
from torch import Tensor


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See ``ftmamba.ops.causal_conv.causal_conv``."""
    return causal_conv1d_fn(x.transpose(1, 2), weight, bias, activation="silu").transpose(1, 2)  # type: ignore[no-any-return]
