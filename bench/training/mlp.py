"""The plain baseline: every column's token side by side, one hidden layer, no mixer."""

from __future__ import annotations

from torch import Tensor, nn

from ftmamba.features import FeatureBatch
from ftmamba.spec import FeatureSpec
from ftmamba.tokenizer import FeatureTokenizer


class MLPTower(nn.Module):
    """Feature tokenizer, one hidden ReLU layer over all tokens at once, linear output.

    Args:
        features: the table's columns.
        d_model: width of a token, and of the output.
        n_params: trainable numbers wanted; the hidden layer is as wide as brings the tower closest to it.
        dropout: share of the hidden layer that is set to 0 in training.

    Shape:
        FeatureBatch of B rows -> (B, d_model).
    """

    def __init__(self, features: FeatureSpec, d_model: int, n_params: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.tokenizer = FeatureTokenizer(features, d_model)
        self.tokenizer.cls.requires_grad_(False)  # there is nothing for it to read
        width = features.n_columns * d_model
        left = n_params - sum(each.numel() for each in self.tokenizer.parameters() if each.requires_grad) - d_model
        d_hidden = max(1, round(left / (width + 1 + d_model)))
        self.layers = nn.Sequential(
            nn.Linear(width, d_hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(d_hidden, d_model)
        )

    def forward(self, batch: FeatureBatch) -> Tensor:
        return self.layers(self.tokenizer(batch)[:, :-1].flatten(1))  # type: ignore[no-any-return]


class MLPTwoTower(nn.Module):
    """Two ``MLPTower``; used like a ``TwoTower``."""

    def __init__(self, user: MLPTower, content: MLPTower) -> None:
        super().__init__()
        self.user = user
        self.content = content

    def forward(self, users: FeatureBatch, contents: FeatureBatch) -> Tensor:
        return (self.user(users) * self.content(contents)).sum(-1)  # type: ignore[no-any-return]
