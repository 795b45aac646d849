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

    Raises:
        ValueError: the batch has not the columns of ``features``.
        IndexError: a category outside of its column's table; on CUDA an assertion of the device, as torch's own.

    Examples:
        >>> import torch
        >>> from ftmamba import FeatureBatch, FeatureSpec, FeatureTokenizer
        >>> tokenizer = FeatureTokenizer(FeatureSpec(3, (10, 10)), d_model=16)
        >>> tokenizer(FeatureBatch(torch.randn(5, 3), torch.randint(10, (5, 2)))).shape
        torch.Size([5, 6, 16])
    """

    first_rows: Tensor
    last_rows: Tensor

    def __init__(self, features: FeatureSpec, d_model: int, cls_position: Literal["first", "last"] = "last") -> None:
        super().__init__()
        self.features = features
        self.cls_position = cls_position
        self.cls = nn.Parameter(torch.empty(d_model))
        self.numeric_weight = nn.Parameter(torch.empty(features.n_numeric, d_model))
        self.numeric_bias = nn.Parameter(torch.empty(features.n_numeric, d_model))
        for name, rows in zip(("first_rows", "last_rows"), offsets(features.cardinalities), strict=True):
            self.register_buffer(name, rows, persistent=False)
        self.categorical_table = nn.Parameter(torch.empty(sum(features.cardinalities), d_model))
        self.categorical_bias = nn.Parameter(torch.empty(len(features.cardinalities), d_model))
        bound = d_model**-0.5  # as in arXiv 2106.11959: uniform in +-1/sqrt(d_model) throughout
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, batch: FeatureBatch) -> Tensor:
        widths = (batch.numeric.shape[-1], batch.categorical.shape[-1])
        if widths != (self.features.n_numeric, len(self.features.cardinalities)):
            raise ValueError(f"a batch of {widths[0]} numeric and {widths[1]} categorical columns for {self.features}")
        tokens = []
        if self.features.n_numeric:
            tokens.append(torch.addcmul(self.numeric_bias, batch.numeric.unsqueeze(-1), self.numeric_weight))
        if self.features.cardinalities:
            tokens.append(
                look_up(batch.categorical, self.first_rows, self.last_rows, self.categorical_table)
                + self.categorical_bias
            )
        cls = self.cls.expand(batch.n_rows, 1, -1)
        return torch.cat([cls, *tokens] if self.cls_position == "first" else [*tokens, cls], dim=1)


def offsets(cardinalities: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """First and last row of each categorical column's table where all lie in one."""
    ends = torch.tensor(cardinalities, dtype=torch.int64).cumsum(0)
    return ends - torch.tensor(cardinalities, dtype=torch.int64), ends - 1


def look_up(categorical: Tensor, first_rows: Tensor, last_rows: Tensor, table: Tensor, of: str = "row") -> Tensor:
    """(rows, n_categorical) -> (rows, n_categorical, d_model); IndexError for a category that its column has not."""
    rows = categorical + first_rows
    nearest = rows.clamp(first_rows, last_rows)
    if not torch.compiler.is_compiling() and rows.is_cpu and _equal(rows, nearest):
        return nn.functional.embedding(rows, table)
    own = rows == nearest
    try:
        # Torch refuses a row that no table has, everywhere and at no cost, but not a neighbouring column's.
        return nn.functional.embedding(rows.where(own, len(table)), table)
    except IndexError:
        row, column = (~own).nonzero()[0].tolist()
        raise IndexError(
            f"{of} {row}, categorical column {column}: category {categorical[row, column]} is outside of "
            f"0 to {last_rows[column] - first_rows[column]}"
        ) from None


def _equal(a: Tensor, b: Tensor) -> bool:
    """Whether they are known to be equal; not under ``vmap``, where nobody can look at a value."""
    try:
        return torch.equal(a, b)
    except RuntimeError:
        return False
