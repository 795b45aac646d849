"""Mean of all tokens."""

from __future__ import annotations

from torch import Tensor, nn

from ftmamba.mixers.mean import MeanSpec


class MeanMixer(nn.Module):
    """Every token gets the projected mean of all.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given.
    """

    def __init__(self, spec: MeanSpec, d_model: int) -> None:
        super().__init__()
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, read: int | None = None) -> Tensor:
        if x.shape[1] < 1:
            raise ValueError("a mean needs at least one token")
        mean: Tensor = self.out_proj(x.mean(1, keepdim=True))
        return mean if read is not None else mean.expand(-1, x.shape[1], -1)
