"""Peer: torch's own Transformer layer, a whole block with its norms, residuals and feed-forward layer."""

from __future__ import annotations

from torch import Tensor, nn

from ftmamba.mixers.torch_transformer import TorchTransformerSpec
from ftmamba.ragged import last, valid, without_pads


class TorchTransformerBlock(nn.TransformerEncoderLayer):
    """Takes the place of a ``Block``. Computes every token.

    Shape:
        (batch, n_tokens, d_model) -> the same, or (batch, 1, d_model) when ``read`` is given.
    """

    def __init__(self, spec: TorchTransformerSpec, d_model: int) -> None:
        super().__init__(
            d_model,
            spec.n_heads,
            spec.ffn(d_model)[0],
            dropout=0.0,
            batch_first=True,
            norm_first=True,
        )

    def forward(  # type: ignore[override]
        self, x: Tensor, read: int | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        if lengths is not None:
            y = super().forward(without_pads(x, lengths), src_key_padding_mask=~valid(lengths, x.shape[1]))
            return without_pads(y, lengths) if read is None else last(y, lengths, read)
        y = super().forward(x)
        return y if read is None else y.narrow(1, read % x.shape[1], 1)
