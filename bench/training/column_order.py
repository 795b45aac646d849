"""In which order a table's columns become tokens: a causal mixer reads them in one, and nobody says which."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from bench.data.dataset import Ints
from bench.plan.tower import BY_IMPORTANCE, order_of
from ftmamba.columns import Floats, TableEncoder

N_GROUPS = 8  # of a numeric column's values, between their quantiles


def in_order(text: str, encoder: TableEncoder, frame: pd.DataFrame, rows: Ints, others: Ints) -> TableEncoder:
    """The encoder with its tokens in an order.

    By importance, the column that tells most of what was liked in training stands last, next to a [CLS] that does;
    those of one importance keep the table's order.

    Args:
        text: a value of ``column_order``.
        encoder: fitted on the training rows.
        frame: all rows of its table.
        rows: row numbers of this table in the pairs that were liked in training.
        others: those of the other table.
    """
    if text != BY_IMPORTANCE:
        return replace(encoder, order=order_of(text, encoder.features.n_columns))
    batch = encoder.transform(frame)
    numeric = [_grouped(column, rows) for column in batch.numeric.numpy().T]
    columns = [*numeric, *batch.categorical.numpy().T]
    order = np.argsort([importance(column[rows], others) for column in columns], kind="stable")
    return replace(encoder, order=tuple(order.tolist()))


def importance(groups: Ints, others: Ints) -> float:
    """How much more a column's groups differ in what they liked than groups by chance: 1 where they do not.

    Pearson's X² of group against the other side's row, over its mean under all ways to assign the groups to the pairs,
    ``n / (n - 1)`` times the degrees of freedom, which holds however few pairs there are in a row; 0 for one group.

    Args:
        groups: of each liked pair, (n_pairs,).
        others: row of the other side in each liked pair, (n_pairs,).
    """
    n = len(groups)
    _, group, in_group = np.unique(groups, return_inverse=True, return_counts=True)
    _, other, of_other = np.unique(others, return_inverse=True, return_counts=True)
    free = (len(in_group) - 1) * (len(of_other) - 1)
    if not free:
        return 0.0
    both, count = np.unique(group * len(of_other) + other, return_counts=True)
    expected = in_group[both // len(of_other)].astype(np.float64) * of_other[both % len(of_other)]
    return float(((count**2 / expected).sum() - 1) * (n - 1) / free)


def _grouped(values: Floats, rows: Ints) -> Ints:
    """Every row's group: between which quantiles of the values of ``rows`` it lies."""
    edges = np.quantile(values[np.unique(rows)], np.linspace(0, 1, N_GROUPS + 1)[1:-1])
    return np.searchsorted(edges, values, side="right").astype(np.int64)
