"""Feature tokenizer: every column of a table row becomes one token (Gorishniy et al., arXiv 2106.11959, 3.3)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from ftmamba.features import FeatureBatch
from ftmamba.rows import N_FREQUENCIES, FeatureSpec
from ftmamba.spec import NumericTokens

FREQUENCY_SCALE = 0.01  # deviation of new frequencies; the usual one in arXiv 2203.05556


class FeatureTokenizer(nn.Module):
    """Columns to tokens, all at once.

    A numeric column j gives ``x_j * weight_j + bias_j``, or ``relu(f_j(x_j) @ weight_j + bias_j)`` with features f of
    the number (Gorishniy et al., arXiv 2203.05556): cosines and sines of learned frequencies where ``periodic``, the
    share of each bin that lies below the number where ``piecewise_linear``. A categorical column gives a row of its own
    table plus a bias. The tables of all categorical columns lie in one embedding, each at its own offset, so that the
    work does not depend on a Python loop over columns.

    Args:
        features: the columns.
        d_model: width of a token.
        cls_position: whether [CLS] stands before or after the columns; None for no [CLS].
        numeric_tokens: ``linear``, ``periodic``, or ``piecewise_linear``, which takes the bins of ``features``.

    Shape:
        FeatureBatch of B rows -> (B, n_columns + 1, d_model), without [CLS] (B, n_columns, d_model).

    Raises:
        ValueError: the batch has not the columns of ``features``, or these have no bins where they should.
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
    order: Tensor
    bin_scale: Tensor
    bin_shift: Tensor
    bin_low: Tensor
    bin_high: Tensor

    def __init__(
        self,
        features: FeatureSpec,
        d_model: int,
        cls_position: Literal["first", "last"] | None = "last",
        numeric_tokens: NumericTokens = "linear",
    ) -> None:
        super().__init__()
        self.features, self.cls_position, self.numeric_tokens = features, cls_position, numeric_tokens
        n = features.n_numeric
        if numeric_tokens == "piecewise_linear" and n and not features.bins:
            raise ValueError("piecewise_linear tokens take the bins of each numeric column, which are not given")
        if cls_position:
            self.cls = nn.Parameter(torch.empty(d_model))
        widths = {"linear": (), "periodic": (2 * N_FREQUENCIES,), "piecewise_linear": (features.n_bins,)}
        self.numeric_weight = nn.Parameter(torch.empty(n, *widths[numeric_tokens], d_model))
        self.numeric_bias = nn.Parameter(torch.empty(features.n_numeric, d_model))
        for name, rows in zip(("first_rows", "last_rows"), offsets(features.cardinalities), strict=True):
            self.register_buffer(name, rows, persistent=False)
        self.categorical_table = nn.Parameter(torch.empty(sum(features.cardinalities), d_model))
        self.categorical_bias = nn.Parameter(torch.empty(len(features.cardinalities), d_model))
        if features.order:
            first, before = cls_position == "first", [0] if cls_position == "first" else []
            after = [features.n_columns] if cls_position == "last" else []
            order = torch.tensor([*before, *(first + each for each in features.order), *after])
            self.register_buffer("order", order, persistent=False)
        bound = d_model**-0.5  # as in arXiv 2106.11959: uniform in +-1/sqrt(d_model) throughout
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        if numeric_tokens != "linear":
            self._init_features()

    def forward(self, batch: FeatureBatch) -> Tensor:
        widths = (batch.numeric.shape[-1], batch.categorical.shape[-1])
        if widths != (self.features.n_numeric, len(self.features.cardinalities)):
            raise ValueError(f"a batch of {widths[0]} numeric and {widths[1]} categorical columns for {self.features}")
        tokens = []
        if self.features.n_numeric:
            tokens.append(self._numeric(batch.numeric.unsqueeze(-1)))
        if self.features.cardinalities:
            tokens.append(
                look_up(batch.categorical, self.first_rows, self.last_rows, self.categorical_table)
                + self.categorical_bias
            )
        if self.cls_position:
            tokens.insert(0 if self.cls_position == "first" else len(tokens), self.cls.expand(batch.n_rows, 1, -1))
        together = torch.cat(tokens, dim=1)
        return together.index_select(1, self.order) if self.features.order else together

    def _init_features(self) -> None:
        """What only features of numbers have; their weights are drawn as those of a linear layer."""
        bound = max(1, self.numeric_weight.shape[1]) ** -0.5
        for parameter in (self.numeric_weight, self.numeric_bias):
            nn.init.uniform_(parameter, -bound, bound)
        if self.numeric_tokens == "periodic":
            self.numeric_frequency = nn.Parameter(torch.empty(self.features.n_numeric, N_FREQUENCIES))
            most = 3 * FREQUENCY_SCALE
            nn.init.trunc_normal_(self.numeric_frequency, 0.0, FREQUENCY_SCALE, -most, most)
        else:
            for name, values in zip(("scale", "shift", "low", "high"), bin_lines(self.features.bins), strict=True):
                self.register_buffer(f"bin_{name}", values, persistent=False)

    def _numeric(self, x: Tensor) -> Tensor:
        """(rows, n_numeric, 1) -> (rows, n_numeric, d_model)"""
        if self.numeric_tokens == "linear":
            return torch.addcmul(self.numeric_bias, x, self.numeric_weight)
        if self.numeric_tokens == "periodic":
            angle = 2 * math.pi * x * self.numeric_frequency
            found = torch.cat([angle.cos(), angle.sin()], dim=-1)
        else:
            found = torch.addcmul(self.bin_shift, x, self.bin_scale).clamp(self.bin_low, self.bin_high)
        products = torch.bmm(found.transpose(0, 1), self.numeric_weight)  # a layer of its own for each column
        return (products.transpose(0, 1) + self.numeric_bias).relu()


def bin_lines(bins: tuple[tuple[float, ...], ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scale, shift, and lowest and highest value of the line in each bin (arXiv 2203.05556, equation 1).

    A line goes from 0 to 1 within its bin; the first one goes on below it and the last one above it.

    Returns:
        Four tensors (n_numeric, most bins); a bin that a column has not is 0 throughout.
    """
    n_bins = max(map(len, bins), default=1) - 1
    lines = torch.zeros(4, len(bins), n_bins)
    for j, edges in enumerate(torch.tensor(each, dtype=torch.float64) for each in bins):
        n, width = len(edges) - 1, edges.diff()
        lines[0, j, :n], lines[1, j, :n], lines[3, j, :n] = 1 / width, -edges[:-1] / width, 1.0
        lines[2, j, 0], lines[3, j, n - 1] = -math.inf, math.inf
    return lines[0], lines[1], lines[2], lines[3]


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
