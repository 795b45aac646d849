"""Who is ranked for, what must not be listed, and what the lists are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.baselines.known import Scorer, item_popularity
from bench.data.dataset import TRAIN, VALIDATION, DataSet, Ints
from bench.metrics.catalogue import coverage, popularity_percentile
from bench.metrics.ranking import Positives, evaluate
from bench.training.ranking import top_items

PAPER_USERS = 100  # arXiv 2409.17165, section 4


@dataclass(frozen=True)
class HeldOut:
    """One split's users and what they liked.

    Attributes:
        users: row numbers of those who liked something in the split, (n,).
        liked: pairs of the split.
        exclude: pairs that are not listed: liked or seen before it, or without an answer where only these count.
        n_before: pairs liked before the split, of each of the users.
        n_without_positives: users with interactions in the split, none of them liked; they cannot be evaluated.
    """

    users: Ints
    liked: Positives
    exclude: Positives
    n_before: Ints
    n_without_positives: int

    @classmethod
    def of(cls, data: DataSet, split: int, n_users: int | None = None, leave_out: str = "liked") -> HeldOut:
        """The split's users: all of them, or ``n_users`` drawn with a fixed seed."""
        shape = (data.users.n_rows, data.items.n_rows)
        before = (TRAIN,) if split == VALIDATION else (TRAIN, VALIDATION)
        liked = Positives.of(*data.positives(split), *shape)
        users = np.flatnonzero(liked.counts())
        present = np.unique(data.pairs(split)[0])
        if n_users is not None and n_users < len(users):
            users = np.sort(np.random.default_rng(0).choice(users, n_users, replace=False))
        earlier = Positives.of(*data.positives(*before), *shape)
        exclude = earlier if leave_out == "liked" else Positives.of(*data.pairs(*before)[:2], *shape)
        if data.candidates == "observed":
            asked_users, asked_items, _ = data.pairs(split)
            every = (users[:, None] * shape[1] + np.arange(shape[1])).ravel()
            exclude = Positives(np.setdiff1d(every, asked_users * shape[1] + asked_items), *shape)
        return cls(users, liked, exclude, earlier.counts()[users], int((liked.counts()[present] == 0).sum()))


@dataclass(frozen=True)
class Ranking:
    """What a model's lists are worth.

    Attributes:
        values: mean over users of each metric, and figures of the catalogue.
        per_user: a row a user: ``user`` (key), ``n_positives``, ``n_before`` (pairs liked before the test), metrics.
    """

    values: dict[str, float | int | None]
    per_user: pd.DataFrame


def rank(data: DataSet, test: HeldOut, score: Scorer, ks: Sequence[int]) -> Ranking:
    """Rank the whole catalogue for every user of the test."""
    longest = max(ks)
    ranked = top_items(score, test.users, test.exclude, longest)
    metrics = evaluate(test.users, ranked, test.liked, ks)
    per_user = pd.DataFrame(
        {
            "user": data.users.frame[data.users.key].iloc[test.users].astype(str).to_numpy(),
            "n_positives": test.liked.counts()[test.users],
            "n_before": test.n_before,
            **metrics,
        }
    )
    values: dict[str, float | int | None] = {name: float(values.mean()) for name, values in metrics.items()}
    values |= {
        f"coverage@{longest}": coverage(ranked, data.items.n_rows),
        f"popularity_percentile@{longest}": popularity_percentile(ranked, item_popularity(data)),
        "users_evaluated": len(test.users),
        "users_without_positives": test.n_without_positives,
        "users_new": int((test.n_before == 0).sum()),
        "catalogue_items": data.items.n_rows,
    }
    return Ranking(values, per_user)


def ndcg_at_10(test: HeldOut, score: Scorer) -> float:
    """What validation looks at; NaN where nobody can be evaluated."""
    ranked = top_items(score, test.users, test.exclude, 10)
    return float(evaluate(test.users, ranked, test.liked, [10], ["ndcg"])["ndcg@10"].mean())
