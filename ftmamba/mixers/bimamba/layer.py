"""Two Mamba-1 layers, one for each direction."""

from __future__ import annotations

from torch import Tensor, nn

from ftmamba.mixers.bimamba import BiMambaSpec
from ftmamba.mixers.mamba.layer import MambaMixer
from ftmamba.ragged import last, reverse


class BiMambaMixer(nn.Module):
    """The sum of a Mamba layer and of another one on the reversed row, reversed back.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given.
    """

    def __init__(self, spec: BiMambaSpec, d_model: int) -> None:
        super().__init__()
        self.forth = MambaMixer(spec, d_model)
        self.back = MambaMixer(spec, d_model)

    def forward(self, x: Tensor, read: int | None = None, lengths: Tensor | None = None) -> Tensor:
        if lengths is not None and read is None:
            back = reverse(self.back(reverse(x, lengths), lengths=lengths), lengths)
            return self.forth(x, lengths=lengths) + back  # type: ignore[no-any-return]
        if lengths is not None:  # from behind, the last token stands alone
            return self.forth(x, read, lengths) + self.back(last(x, lengths))  # type: ignore[no-any-return]
        if read is None:
            return self.forth(x) + self.back(x.flip(1)).flip(1)  # type: ignore[no-any-return]
        read %= max(x.shape[1], 1)
        return self.forth(x[:, : read + 1], -1) + self.back(x[:, read:].flip(1), -1)  # type: ignore[no-any-return]
