"""Our attention kernel with SiLU in place of the softmax: a tile of weights in cache at a time, in both passes."""

from __future__ import annotations

from ftmamba.ops.attention.numba import silu_attention

__all__ = ["silu_attention"]
