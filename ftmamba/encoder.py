"""One tower: a table row goes in, one vector comes out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ftmamba.blocks import FeedForward, build_block
from ftmamba.features import FeatureBatch
from ftmamba.spec import EncoderSpec, FeatureSpec
from ftmamba.tokenizer import FeatureTokenizer


class FTEncoder(nn.Module):
    """Feature tokenizer, blocks, readout, head.

    With an ``AttentionSpec`` this is the FT-Transformer (arXiv 2106.11959); with a ``MambaSpec`` the FT-Mamba
    (arXiv 2409.17165), whose feed-forward layer comes once, after the readout.

    Args:
        spec: the tower.
        features: the table's columns.

    Shape:
        FeatureBatch of B rows -> (B, d_out).

    A process that loads what ``torch.export.save`` wrote must have built a tower with the same mixer before, which
    makes its kernels known to torch.

    Examples:
        >>> import torch
        >>> from ftmamba import EncoderSpec, FeatureBatch, FeatureSpec, FTEncoder, MambaSpec
        >>> tower = FTEncoder(EncoderSpec(mixer=MambaSpec(), d_model=32, n_layers=2), FeatureSpec(3, (10, 20)))
        >>> tower(FeatureBatch(torch.randn(5, 3), torch.randint(10, (5, 2)))).shape
        torch.Size([5, 32])
    """

    def __init__(self, spec: EncoderSpec, features: FeatureSpec) -> None:
        super().__init__()
        self.spec = spec
        n_tokens = spec.n_tokens(features)
        self.read = 0 if spec.cls_position == "first" else n_tokens - 1
        cls_position = spec.cls_position if spec.readout == "cls" else None
        self.tokenizer = FeatureTokenizer(features, spec.d_model, cls_position, spec.numeric_tokens)
        self.blocks = nn.ModuleList(
            build_block(spec.mixer_of(i), spec.d_model, n_tokens, first=i == 0, dropout=spec.dropout)
            for i in range(spec.n_layers)
        )
        if spec.readout == "attention_pooling":
            self.query = nn.Parameter(torch.zeros(spec.d_model))  # begins as the mean
        self.head = Head(spec)

    def forward(self, batch: FeatureBatch) -> Tensor:
        x = self.tokenizer(batch)
        for block in self.blocks[:-1]:
            x = block(x)
        if self.spec.reads_one and self.spec.last_layer == "readout":
            return self.head(self.blocks[-1](x, self.read).squeeze(1))  # type: ignore[no-any-return]
        return self.head(self._pooled(self.blocks[-1](x)))  # type: ignore[no-any-return]

    def _pooled(self, x: Tensor) -> Tensor:
        """(batch, n_tokens, d_model) -> (batch, d_model)"""
        if self.spec.reads_one:
            return x[:, self.read]
        if self.spec.readout == "mean":
            return x.mean(1)
        scores: Tensor = x @ self.query * self.spec.d_model**-0.5
        return (scores.softmax(1).unsqueeze(1) @ x).squeeze(1)


class Head(nn.Module):
    """What was read to the output: for Mamba a residual feed-forward layer, then norm, ReLU and a linear layer."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.ffn: nn.Sequential | None = None
        if spec.head_width:
            self.ffn = nn.Sequential(nn.LayerNorm(spec.d_model), FeedForward(spec.d_model, spec.head_width, "reglu"))
        self.norm = nn.LayerNorm(spec.d_model)
        self.output = nn.Linear(spec.d_model, spec.output_width)

    def forward(self, cls: Tensor) -> Tensor:
        if self.ffn is not None:
            cls = cls + self.ffn(cls)
        return self.output(self.norm(cls).relu())  # type: ignore[no-any-return]
