"""What lists do to the catalogue: how much of it is ever shown, and how popular what is shown already was."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


def coverage(ranked: Ints, n_items: int) -> float:
    """Share of the catalogue that appears in at least one list; -1 marks the end of a short list."""
    return len(np.unique(ranked[ranked >= 0])) / n_items


def popularity_percentile(ranked: Ints, popularity: Ints) -> float:
    """Mean popularity rank of the shown items, from 0 (least liked in training) to 1 (most liked).

    Items of equal popularity share their mean rank, so that a random list of a large catalogue has 0.5.

    Args:
        ranked: items, (n_users, k); -1 marks the end of a short list.
        popularity: training positives of each item, (n_items,).
    """
    counts = np.sort(popularity)
    below = np.searchsorted(counts, popularity, side="left")
    up_to = np.searchsorted(counts, popularity, side="right")
    percentile = (below + up_to) / (2 * len(popularity))
    return float(percentile[ranked[ranked >= 0]].mean())
