"""How a data set's tables become tensors."""

from __future__ import annotations

from bench.data.dataset import Ints, Table
from ftmamba.columns import TableEncoder


def fit(table: Table, training_rows: Ints, *, ids: bool, n_bins: int = 0) -> TableEncoder:
    """Learn a table's columns.

    Args:
        table: one side of a data set.
        training_rows: rows with a training interaction; no other row is looked at.
        ids: whether a lasting key is the last column. Ids let a tower remember a user or an item, attributes alone let
            it only generalise; for a new user or item the id is the unseen one.
        n_bins: of numeric columns, for piecewise linear tokens.
    """
    categorical = (*table.categorical, table.key) if ids and table.lasting else table.categorical
    frame = table.frame.iloc[training_rows]
    return TableEncoder.fit(frame, numeric=table.numeric, categorical=categorical, n_bins=n_bins)
