"""A table's rows as tensors: what each column means is learned from the training rows and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.special import ndtri

from ftmamba.features import FeatureBatch
from ftmamba.spec import FeatureSpec

UNSEEN = 0  # row of every categorical table for a value that no training row has
MISSING = "\x00missing"  # a category like any other; no real value starts with NUL
N_QUANTILES = 1000
LARGEST = 1e150  # the square of a number and a sum of squares must be numbers
ROUNDING = 1e-12  # of the largest number: by how much sums of some thousand terms that should be equal may differ
ONE_BIN = (0.0, 1.0)  # of a column without two different edges, and of one that says what is missing
FARTHEST = 1e3  # deviations; none of a million training rows can lie farther

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Scaling = Literal["standard", "quantile"]


@dataclass(frozen=True, kw_only=True)
class NumericColumn:
    """A numeric column, brought to mean 0 and deviation 1 over the training rows.

    What is infinite or too large to be squared counts as missing. A column that the training rows do not vary in says
    nothing and is 0 in every row.

    Attributes:
        name: of the column.
        mean: of the training rows.
        deviation: of the training rows; 0 where they are all equal but for rounding.
        quantiles: of the training rows for ``quantile`` scaling, which maps ranks to a normal distribution.
        gaps: whether a training row misses it: then a second column says where it is missing.
        bins: edges of its bins over the scaled training rows, for ``piecewise_linear`` tokens; empty without.
    """

    name: str
    mean: float
    deviation: float
    quantiles: tuple[float, ...] | None
    gaps: bool
    bins: tuple[float, ...] = ()

    @classmethod
    def fit(cls, values: pd.Series[float], scaling: Scaling, n_bins: int = 0) -> NumericColumn:
        numbers = _numbers(values)
        known = numbers[~np.isnan(numbers)] if np.isfinite(numbers).any() else np.zeros(1)
        deviation = float(known.std())
        varies = deviation > ROUNDING * np.abs(known).max()
        quantiles = None
        if scaling == "quantile" and varies:
            quantiles = np.quantile(known, np.linspace(0, 1, min(N_QUANTILES, len(known))))
        column = cls(
            name=str(values.name),
            mean=float(known.mean()),
            deviation=deviation if varies else 0.0,
            quantiles=None if quantiles is None else tuple(quantiles.tolist()),
            gaps=bool(np.isnan(numbers).any()),
        )
        if not n_bins:
            return column
        edges = np.unique(np.quantile(column.transform(values)[0], np.linspace(0, 1, n_bins + 1)))
        return replace(column, bins=tuple(edges.tolist()) if len(edges) > 1 else ONE_BIN)

    def transform(self, values: pd.Series[float]) -> list[Floats]:
        """One array, or two where there are gaps; a missing value is 0, the mean, in the first."""
        numbers = _numbers(values)
        missing = np.isnan(numbers)
        if self.quantiles is None:
            with np.errstate(over="ignore"):
                scaled = ((numbers - self.mean) / (self.deviation or math.inf)).clip(-FARTHEST, FARTHEST)
        else:
            # The mean of both sides gives a value that many rows share its middle rank.
            quantiles = np.array(self.quantiles)
            places = np.linspace(0, 1, len(quantiles))
            below = np.interp(numbers, quantiles, places)
            above = 1 - np.interp(-numbers, -quantiles[::-1], places)
            scaled = ndtri(np.clip((below + above) / 2, 1e-3, 1 - 1e-3))
        filled = np.where(missing, 0.0, scaled).astype(np.float64)
        return [filled, missing.astype(np.float64)] if self.gaps else [filled]


def _numbers(values: pd.Series[float]) -> Floats:
    numbers = values.to_numpy(np.float64, na_value=np.nan)
    return np.where(np.abs(numbers) < LARGEST, numbers, np.nan)


@dataclass(frozen=True, kw_only=True)
class CategoricalColumn:
    """A categorical column: row 0 for the unseen, one row a training value; hashed where these are too many.

    Attributes:
        name: of the column.
        values: the training values in their order; empty when hashed.
        n_rows: rows of its lookup table, the unseen row included.
        n_values: distinct training values.
    """

    name: str
    values: tuple[str, ...]
    n_rows: int
    n_values: int

    @property
    def hashed(self) -> bool:
        return self.n_values + 1 > self.n_rows

    @classmethod
    def fit(cls, values: pd.Series[str], max_rows: int) -> CategoricalColumn:
        known = tuple(np.unique(_texts(values)).tolist())
        hashed = len(known) + 1 > max_rows
        return cls(
            name=str(values.name),
            values=() if hashed else known,
            n_rows=max_rows if hashed else len(known) + 1,
            n_values=len(known),
        )

    def transform(self, values: pd.Series[str]) -> Ints:
        """Rows of the lookup table. A hashed column cannot tell the unseen; they share rows with others."""
        texts = _texts(values)
        if self.hashed:
            return (pd.util.hash_array(texts, categorize=True) % np.uint64(self.n_rows - 1)).astype(np.int64) + 1
        return pd.Index(self.values).get_indexer(pd.Index(texts)).astype(np.int64) + 1  # -1, not found, becomes UNSEEN


def _texts(values: pd.Series[str]) -> npt.NDArray[np.object_]:
    """Values as text, so that 1 and "1" are one category whatever type a file's other values gave the column."""
    return values.astype("object").where(values.notna(), MISSING).map(str).to_numpy(object)


@dataclass(frozen=True, kw_only=True)
class TableEncoder:
    """All columns of one table, fitted on its training rows.

    Attributes:
        numeric: in the order of their tokens.
        categorical: behind them, in the order of their tokens.
        order: another order of all tokens, as places in that one; see ``FeatureSpec``.

    Examples:
        >>> import pandas as pd
        >>> from ftmamba import TableEncoder
        >>> users = pd.DataFrame({"age": [20, 40, None], "town": ["Ulm", "Rome", "Ulm"]})
        >>> encoder = TableEncoder.fit(users, numeric=["age"], categorical=["town"])
        >>> encoder.names
        ('age', 'age missing', 'town')
        >>> encoder.features
        FeatureSpec(n_numeric=2, cardinalities=(3,))
        >>> encoder.transform(pd.DataFrame({"age": [30, 40], "town": ["Rome", "Oslo"]}))
        FeatureBatch(numeric=tensor([[0., 0.],
                [1., 0.]]), categorical=tensor([[1],
                [0]]))
    """

    numeric: tuple[NumericColumn, ...]
    categorical: tuple[CategoricalColumn, ...]
    order: tuple[int, ...] = ()

    @classmethod
    def fit(
        cls,
        frame: pd.DataFrame,
        *,
        numeric: Sequence[str] = (),
        categorical: Sequence[str] = (),
        scaling: Scaling = "standard",
        max_rows: int = 100_000,
        n_bins: int = 0,
    ) -> TableEncoder:
        """Learn scales and vocabularies.

        Args:
            frame: the training rows and no others.
            numeric: columns that become one numeric token each, and one more where a value is missing.
            categorical: columns that become one categorical token each.
            scaling: of numeric columns.
            max_rows: rows a categorical lookup table may have; a column with more values is hashed.
            n_bins: between quantiles of a numeric column, at most, for ``piecewise_linear`` tokens; 0 for none.
        """
        return cls(
            numeric=tuple(NumericColumn.fit(frame[name], scaling, n_bins) for name in numeric),
            categorical=tuple(CategoricalColumn.fit(frame[name], max_rows) for name in categorical),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tokens, in their order, without [CLS]."""
        numeric: list[str] = []
        for column in self.numeric:
            numeric += [column.name, f"{column.name} missing"] if column.gaps else [column.name]
        names = (*numeric, *(column.name for column in self.categorical))
        return tuple(names[place] for place in self.order) if self.order else names

    @property
    def features(self) -> FeatureSpec:
        bins = [each for c in self.numeric if c.bins for each in (c.bins, *(ONE_BIN,) * c.gaps)]
        n_numeric = sum(1 + column.gaps for column in self.numeric)
        return FeatureSpec(n_numeric, tuple(c.n_rows for c in self.categorical), tuple(bins), self.order)

    def table_bytes(self, d_model: int) -> int:
        """Bytes of the float32 lookup tables at this token width."""
        return 4 * d_model * sum(column.n_rows for column in self.categorical)

    def transform(self, frame: pd.DataFrame) -> FeatureBatch:
        """All rows of ``frame``, which has the columns that were fitted, in any order."""
        numeric = [values for column in self.numeric for values in column.transform(frame[column.name])]
        categorical = [column.transform(frame[column.name]) for column in self.categorical]
        return FeatureBatch(_stacked(numeric, len(frame), np.float32), _stacked(categorical, len(frame), np.int64))


def _stacked(columns: Sequence[Floats | Ints], n_rows: int, dtype: npt.DTypeLike) -> torch.Tensor:
    """Columns side by side, (n_rows, any number of them)."""
    return torch.from_numpy(np.column_stack([np.empty((n_rows, 0), dtype), *columns]).astype(dtype))
