"""Our attention kernel, which walks over a window's keys and takes the global one along, in memory O(L)."""

from __future__ import annotations

from ftmamba.ops.attention.numba import attention

__all__ = ["attention"]
