"""Ranking metrics of the top of a list, for all users at once.

A metric is a function of ``hits`` (n_users, k), whether the item at each rank is liked, and ``n_positives`` (n_users,),
how many liked items there are; it gives one number a user. To add one: write it and put it into ``METRICS``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Hits = npt.NDArray[np.bool_]


def precision(hits: Hits, n_positives: Ints) -> Floats:
    """Share of the k ranks that are liked; a list shorter than k counts as if filled with misses."""
    return np.asarray(hits.mean(axis=1), dtype=np.float64)


def recall(hits: Hits, n_positives: Ints) -> Floats:
    """Share of the liked items that are among the k."""
    return np.asarray(hits.sum(axis=1) / n_positives, dtype=np.float64)


def mrr(hits: Hits, n_positives: Ints) -> Floats:
    """One over the rank of the first liked item, 0 when it is not among the k (Voorhees, TREC-8, 1999)."""
    return np.asarray(hits.any(axis=1) / (hits.argmax(axis=1) + 1.0), dtype=np.float64)


def hit_rate(hits: Hits, n_positives: Ints) -> Floats:
    """1 when any of the k is liked."""
    return np.asarray(hits.any(axis=1), dtype=np.float64)


def ndcg(hits: Hits, n_positives: Ints) -> Floats:
    """Sum of 1 / log2(rank + 1) over liked ranks, over the best such sum there is (Jarvelin and Kekalainen, 2002)."""
    discount = 1.0 / np.log2(np.arange(2, hits.shape[1] + 2))
    best = np.cumsum(discount)[np.minimum(n_positives, hits.shape[1]) - 1]
    return np.asarray((hits @ discount) / best, dtype=np.float64)


METRICS: dict[str, Callable[[Hits, Ints], Floats]] = {
    "precision": precision,
    "recall": recall,
    "mrr": mrr,
    "hit_rate": hit_rate,
    "ndcg": ndcg,
}


@dataclass(frozen=True)
class Positives:
    """Liked items of every user, as sorted keys ``user * n_items + item``.

    Attributes:
        keys: sorted, without repeats.
        n_users: rows of the user table.
        n_items: rows of the item table.
    """

    keys: Ints
    n_users: int
    n_items: int

    @classmethod
    def of(cls, users: Ints, items: Ints, n_users: int, n_items: int) -> Positives:
        """The set of the pairs (users[i], items[i]).

        Raises:
            ValueError: a row number outside of its table, whose key would be that of another pair.
        """
        _check_rows("users", users, 0, n_users)
        _check_rows("items", items, 0, n_items)
        return cls(np.unique(users * n_items + items), n_users, n_items)

    def counts(self) -> Ints:
        """Liked items of each user, (n_users,)."""
        return np.bincount(self.keys // self.n_items, minlength=self.n_users).astype(np.int64)

    def contains(self, users: Ints, items: Ints) -> Hits:
        """Whether each pair is liked; the arguments broadcast."""
        if not len(self.keys):
            return np.zeros(np.broadcast(users, items).shape, dtype=bool)
        keys = users * self.n_items + items
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.asarray(self.keys[place] == keys)

    def of_users(self, users: Ints) -> tuple[Ints, Ints]:
        """Positions in ``users`` and items, of all liked items of these users."""
        starts = np.searchsorted(self.keys, users * self.n_items)
        counts = np.searchsorted(self.keys, (users + 1) * self.n_items) - starts
        position = np.repeat(np.arange(len(users)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return position.astype(np.int64), self.keys[np.repeat(starts, counts) + within] % self.n_items


def evaluate(
    users: Ints, ranked: Ints, positives: Positives, ks: Sequence[int], metrics: Sequence[str] = tuple(METRICS)
) -> dict[str, Floats]:
    """Metrics of every user's list.

    Args:
        users: row numbers, (n_users,); each must have a positive.
        ranked: items, best first, each once, (n_users, at least max(ks)); -1 where the list ends early.
        positives: the liked items.
        ks: cut-offs.
        metrics: keys of ``METRICS``.

    Returns:
        ``name@k`` to (n_users,).

    Raises:
        ValueError: a user without positives, for whom no metric is defined; a cut-off that the lists do not reach; an
            item twice in one list; an unknown metric; shapes or row numbers that do not fit.
    """
    if unknown := set(metrics) - set(METRICS):
        raise ValueError(f"unknown metric {', '.join(sorted(unknown))}; choose from {', '.join(METRICS)}")
    if ranked.ndim != 2 or users.shape != ranked.shape[:1]:
        raise ValueError(f"expected one list a user, got lists {ranked.shape} for users {users.shape}")
    if not all(1 <= k <= ranked.shape[1] for k in ks):
        raise ValueError(f"every k must be from 1 to {ranked.shape[1]}, the width of the lists; got {list(ks)}")
    _check_rows("users", users, 0, positives.n_users)
    _check_rows("ranked items", ranked, -1, positives.n_items)
    in_order = np.sort(ranked, axis=1)
    if ((in_order[:, 1:] == in_order[:, :-1]) & (in_order[:, 1:] >= 0)).any():
        raise ValueError("a list names an item twice, and would count it twice")
    n_positives = positives.counts()[users]
    if (n_positives == 0).any():
        raise ValueError("a user without positives cannot be evaluated; leave such users out and count them")
    hits = positives.contains(users[:, None], ranked) & (ranked >= 0)
    return {f"{name}@{k}": METRICS[name](hits[:, :k], n_positives) for name in metrics for k in ks}


def _check_rows(name: str, rows: Ints, first: int, end: int) -> None:
    if rows.size and not first <= rows.min() <= rows.max() < end:
        raise ValueError(f"{name} must be row numbers from {first} to {end - 1}, got {rows.min()} to {rows.max()}")
