"""Rows of a table as tensors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import _register_namedtuple

from ftmamba.spec import FeatureSpec


class FeatureBatch(NamedTuple):
    """Some rows of one table; the columns are described by a ``FeatureSpec``.

    Attributes:
        numeric: standardised numbers, (batch, n_numeric), floating.
        categorical: row of each column's own lookup table, (batch, n_categorical), int64.

    Examples:
        >>> import torch
        >>> from ftmamba import FeatureBatch
        >>> batch = FeatureBatch(torch.randn(5, 3), torch.randint(10, (5, 2)))
        >>> batch.rows(slice(1, 3)).n_rows
        2
        >>> batch.to("cpu", torch.float64).numeric.dtype
        torch.float64
    """

    numeric: Tensor
    categorical: Tensor

    @property
    def n_rows(self) -> int:
        return self.numeric.shape[0]

    def rows(self, index: Tensor | slice) -> FeatureBatch:
        """The rows at ``index``."""
        return FeatureBatch(self.numeric[index], self.categorical[index])

    def to(self, device: torch.device | str, dtype: torch.dtype) -> FeatureBatch:
        """On ``device``, the numbers in ``dtype``."""
        return FeatureBatch(self.numeric.to(device, dtype), self.categorical.to(device))


_register_namedtuple(FeatureBatch, serialized_type_name="ftmamba.FeatureBatch")  # for torch.export.save
torch.serialization.add_safe_globals([FeatureBatch])  # and torch.export.load


def random_batch(features: FeatureSpec, n_rows: int, generator: torch.Generator) -> FeatureBatch:
    """Rows of standard-normal numbers and uniform categories, for benchmarks and tests."""
    numeric = torch.randn(n_rows, features.n_numeric, generator=generator)
    high = torch.tensor(features.cardinalities, dtype=torch.float64)
    uniform = torch.rand(n_rows, len(features.cardinalities), generator=generator, dtype=torch.float64)
    return FeatureBatch(numeric, (uniform * high).long())
