"""Feature tokenizer: every column of a table row becomes one token (Gorishniy et al., arXiv 2106.11959, 3.3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ftmamba.features import FeatureBatch
from ftmamba.spec import FeatureSpec


class FeatureTokenizer(nn.Module):
    """Columns to tokens, all at once.

    A numeric column j gives ``x_j * weight_j + bias_j``; a categorical column gives a row of its own table plus a bias.
    The tables of all categorical columns lie in one embedding, each at its own offset, so that the work does not
    depend on a Python loop over columns.

    Args:
        features: the columns.
        d_model: width of a token.
        cls_position: whether [CLS] stands before or after the columns.

    Shape:
        FeatureBatch of B rows -> (B, n_columns + 1, d_model).
    """

    offsets: Tensor

    def __init__(self, features: FeatureSpec, d_model: int, cls_position: Literal["first", "last"] = "last") -> None:
        super().__init__()
        self.features = features
        self.cls_position = cls_position
        self.cls = nn.Parameter(torch.empty(d_model))
        self.numeric_weight = nn.Parameter(torch.empty(features.n_numeric, d_model))
        self.numeric_bias = nn.Parameter(torch.empty(features.n_numeric, d_model))
        cardinalities = torch.tensor(features.cardinalities, dtype=torch.int64)
        self.register_buffer("offsets", cardinalities.cumsum(0) - cardinalities, persistent=False)
        self.categorical_table = nn.Parameter(torch.empty(sum(features.cardinalities), d_model))
        self.categorical_bias = nn.Parameter(torch.empty(len(features.cardinalities), d_model))
        bound = d_model**-0.5  # as in arXiv 2106.11959: uniform in +-1/sqrt(d_model) throughout
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, batch: FeatureBatch) -> Tensor:
        tokens = []
        if self.features.n_numeric:
            tokens.append(torch.addcmul(self.numeric_bias, batch.numeric.unsqueeze(-1), self.numeric_weight))
        if self.features.cardinalities:
            rows = nn.functional.embedding(batch.categorical + self.offsets, self.categorical_table)
            tokens.append(rows + self.categorical_bias)
        cls = self.cls.expand(batch.n_rows, 1, -1)
        return torch.cat([cls, *tokens] if self.cls_position == "first" else [*tokens, cls], dim=1)
