"""Our attention kernel, which walks over the window's keys and takes the global one along; memory grows as the tokens do."""

from __future__ import annotations

from ftmamba.ops.attention.numba import attention

__all__ = ["attention"]
