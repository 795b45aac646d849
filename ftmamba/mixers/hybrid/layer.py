"""The mixer of a hybrid's first layer; a tower takes each layer's own."""

from __future__ import annotations

from torch import nn

from ftmamba.mixers import build_mixer
from ftmamba.mixers.hybrid import HybridSpec


def first(spec: HybridSpec, d_model: int) -> nn.Module:
    """Where a block is measured alone."""
    return build_mixer(spec.kinds()[0], d_model)
