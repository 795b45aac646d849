"""Mean of all tokens."""

from __future__ import annotations

from torch import Tensor, nn

from ftmamba.mixers.mean import MeanSpec
from ftmamba.ragged import without_pads


class MeanMixer(nn.Module):
    """Every token gets the projected mean of all.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given.
    """

    def __init__(self, spec: MeanSpec, d_model: int) -> None:
        super().__init__()
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, read: int | None = None, lengths: Tensor | None = None) -> Tensor:
        if x.shape[1] < 1:
            raise ValueError("a mean needs at least one token")
        if lengths is None:
            mean = x.mean(1, keepdim=True)
        else:
            mean = without_pads(x, lengths).sum(1, keepdim=True) / lengths.view(-1, 1, 1)
        mean = self.out_proj(mean)
        return mean if read is not None else without_pads(mean.expand(-1, x.shape[1], -1), lengths)
