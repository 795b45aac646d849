"""Attention under a mask written out: the weights of all pairs stand in memory."""

from __future__ import annotations

from ftmamba.ops.attention.reference import attention

__all__ = ["attention"]
