"""What the lists of a model of histories are worth: on all targets, on repeated ones, and on explored ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bench.baselines.known import Scorer
from bench.data.dataset import DataSet, Ints
from bench.data.targets import Stage, segment
from bench.metrics.catalogue import coverage, popularity_percentile
from bench.metrics.ranking import Positives, evaluate
from bench.metrics.repeats import EXPLORED, REPEATED, parts
from bench.training.evaluate import Ranking
from bench.training.ranking import top_items


def rank_events(data: DataSet, stage: Stage, score: Scorer, ks: Sequence[int]) -> Ranking:
    """Rank the whole catalogue for every user of the stage.

    The values are means over users with a history; cold ones stand in ``per_user`` alone, where ``segment`` tells them.
    ``ndcg@10`` is of all targets in lists of everything that can be one: where no event ever repeats, of what the user
    has not had. ``repeated_ndcg@10`` and ``explored_ndcg@10`` are of the targets that the user had before in lists of
    what they had, and of the others in lists of the others; missing for a user without such targets.
    """
    targets, known, repeats = _pairs(data, stage)
    none, longest = Positives(np.empty(0, np.int64), known.n_users, known.n_items), max(ks)
    ranked = top_items(score, stage.users, none if repeats else known, longest)
    per_user = pd.DataFrame(
        {
            "user": data.users.frame[data.users.key].iloc[stage.users].astype(str).to_numpy(),
            "n_positives": targets.counts()[stage.users],
            "n_before": stage.n_before,
            "segment": segment(stage.n_before),
            **evaluate(stage.users, ranked, targets, ks),
        }
    )
    for name, part in parts(targets, known).items() if repeats else ():
        among = top_items(_only(score, stage.users, known), stage.users, none, longest) if name == REPEATED else (
            top_items(score, stage.users, known, longest)
        )  # fmt: skip
        having = np.flatnonzero(part.counts()[stage.users])
        found = evaluate(stage.users[having], among[having], part, ks)
        per_user[[f"{name}_{metric}" for metric in found]] = pd.DataFrame(found, index=having).reindex(per_user.index)
    warm = per_user.iloc[stage.warm]
    values: dict[str, float | int | None] = {
        str(name): float(column.mean()) for name, column in warm.items() if "@" in str(name)
    }
    popularity = np.bincount(stage.known.column("item"), minlength=known.n_items)
    values |= {
        f"coverage@{longest}": coverage(ranked[stage.warm], known.n_items),
        f"popularity_percentile@{longest}": popularity_percentile(ranked[stage.warm], popularity),
        "users_evaluated": len(warm),
        "users_new": len(per_user) - len(warm),
        "catalogue_items": known.n_items,
    }
    return Ranking(values, per_user)


def ndcg_at_10(data: DataSet, stage: Stage, score: Scorer, of: str = "all") -> float:
    """What validation looks at: mean over users with a history, of ``all`` targets or of ``explored`` ones."""
    targets, known, repeats = _pairs(data, stage)
    liked = parts(targets, known)[EXPLORED] if of == EXPLORED else targets
    exclude = known if of == EXPLORED or not repeats else Positives(known.keys[:0], known.n_users, known.n_items)
    ranked = top_items(score, stage.users, exclude, 10)
    having = stage.warm[liked.counts()[stage.users[stage.warm]] > 0]
    return float(evaluate(stage.users[having], ranked[having], liked, [10], ["ndcg"])["ndcg@10"].mean())


def _pairs(data: DataSet, stage: Stage) -> tuple[Positives, Positives, bool]:
    """Targets, what each user had before, and whether anybody had anything twice."""
    shape = (data.users.n_rows, data.items.n_rows)
    known = Positives.of(stage.known.column("user"), stage.known.column("item"), *shape)
    return Positives.of(*stage.pairs, *shape), known, len(known.keys) < len(stage.known.frame)


def _only(score: Scorer, users: Ints, known: Positives) -> Scorer:
    """The same scores of what a user had before; everything else is not listed."""

    def listed(block: slice, items: slice) -> Tensor:
        scores = score(block, items)
        position, item = (torch.from_numpy(part) for part in known.of_users(users[block]))
        here = (item >= items.start) & (item < items.stop)
        place = (position[here].to(scores.device), item[here].to(scores.device) - items.start)
        kept = torch.full_like(scores, -torch.inf)
        kept[place] = scores[place]
        return kept

    return listed
