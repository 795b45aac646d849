"""What a row of a table and an event of a history are made of, as frozen data; free of torch, as ``spec`` is."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

N_BINS = N_FREQUENCIES = 48  # of a numeric column's tokens; the usual number in arXiv 2203.05556


@dataclass(frozen=True)
class FeatureSpec:
    """The columns of one table: numeric ones first, then categorical ones.

    Attributes:
        n_numeric: count of numeric columns.
        cardinalities: rows of each categorical column's lookup table (unknown value included).
        bins: rising edges of each numeric column's bins, for ``piecewise_linear`` tokens; empty where not needed.
        order: of the columns' tokens, as places in the order above; empty for that order itself.

    Raises:
        ValueError: no column at all, a count that cannot be, or bins or an order that are not those of the columns.

    Examples:
        >>> from ftmamba import FeatureSpec
        >>> FeatureSpec(3, (10, 500)).n_tokens
        6
    """

    n_numeric: int
    cardinalities: tuple[int, ...] = ()
    bins: tuple[tuple[float, ...], ...] = field(default=(), repr=False)
    order: tuple[int, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.n_numeric < 0 or any(c < 1 for c in self.cardinalities):
            raise ValueError(f"column counts and cardinalities must be positive, got {self}")
        if self.n_columns < 1:
            raise ValueError("a table needs at least one column")
        rising = all(len(edges) > 1 and all(a < b for a, b in itertools.pairwise(edges)) for edges in self.bins)
        if self.bins and (len(self.bins) != self.n_numeric or not rising):
            raise ValueError(f"bins take two or more rising edges of each of the {self.n_numeric} numeric columns")
        if self.order and sorted(self.order) != [*range(self.n_columns)]:
            raise ValueError(f"an order names each of the {self.n_columns} columns once")

    @property
    def n_columns(self) -> int:
        return self.n_numeric + len(self.cardinalities)

    @property
    def n_tokens(self) -> int:
        """One token a column, and the [CLS] token."""
        return self.n_columns + 1

    @property
    def n_bins(self) -> int:
        """The most bins of a column."""
        return max(map(len, self.bins), default=1) - 1


@dataclass(frozen=True)
class EventSpec:
    """The columns of an event: an item, numeric and categorical columns, and its time.

    Attributes:
        n_items: rows of the table of items (an unknown item included).
        n_numeric: count of numeric columns.
        cardinalities: rows of each categorical column's lookup table (unknown value included).

    Raises:
        ValueError: a count that cannot be.

    Examples:
        >>> from ftmamba import EventSpec
        >>> EventSpec(2000, n_numeric=1)
        EventSpec(n_items=2000, n_numeric=1, cardinalities=())
    """

    n_items: int
    n_numeric: int = 0
    cardinalities: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.n_items < 1 or self.n_numeric < 0 or any(c < 1 for c in self.cardinalities):
            raise ValueError(f"counts of items, columns and categories must be positive, got {self}")
