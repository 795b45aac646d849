"""No mixing at all."""

from __future__ import annotations

from torch import Tensor, nn

from ftmamba.mixers.mlp import MLPSpec


class NoMixer(nn.Module):
    """Adds nothing to any token.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given.
    """

    def __init__(self, spec: MLPSpec, d_model: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, read: int | None = None, lengths: Tensor | None = None) -> Tensor:
        return x.new_zeros(()).expand_as(x if read is None else x.select(1, read).unsqueeze(1))
