"""One tower: a table row goes in, one vector comes out."""

from __future__ import annotations

from torch import Tensor, nn

from ftmamba.blocks import FeedForward, build_block
from ftmamba.features import FeatureBatch
from ftmamba.spec import EncoderSpec, FeatureSpec
from ftmamba.tokenizer import FeatureTokenizer


class FTEncoder(nn.Module):
    """Feature tokenizer, blocks, readout of [CLS], head.

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
        self.read = 0 if spec.cls_position == "first" else features.n_tokens - 1
        self.tokenizer = FeatureTokenizer(features, spec.d_model, spec.cls_position)
        self.blocks = nn.ModuleList(
            build_block(spec.mixer_of(i), spec.d_model, features.n_tokens, first=i == 0, dropout=spec.dropout)
            for i in range(spec.n_layers)
        )
        self.head = Head(spec)

    def forward(self, batch: FeatureBatch) -> Tensor:
        x = self.tokenizer(batch)
        for block in self.blocks[:-1]:
            x = block(x)
        if self.spec.last_layer == "readout":
            cls = self.blocks[-1](x, self.read).squeeze(1)
        else:
            cls = self.blocks[-1](x)[:, self.read]
        return self.head(cls)  # type: ignore[no-any-return]


class Head(nn.Module):
    """[CLS] to the tower's output: for Mamba a residual feed-forward layer, then norm, ReLU and a linear layer."""

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
