"""Rankings of histories that need no tower: what any model of histories must beat.

Each is fitted on everything that is known at a moment, reads a user's last ``history_length`` events, and has at most
one parameter, chosen on the window before the cut. Only events of the kind that is to be predicted count.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from bench.baselines import EVENT_BASELINES, ease, itemknn
from bench.baselines.known import Scorer
from bench.data.dataset import DataSet
from bench.data.events import DAY_S, Events, cut
from bench.data.targets import Stage, stages
from bench.training.evaluate import Ranking
from bench.training.event_ranking import ndcg_at_10, rank_events

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """What a baseline is given.

    Attributes:
        fit: all events before the moment.
        history: of these each user's last ones, which say whom the ranking is for.
        stage: the moment, and the users to rank for.
        n_items: rows of the catalogue.
    """

    fit: Events
    history: Events
    stage: Stage
    n_items: int

    @classmethod
    def at(cls, stage: Stage, n_items: int, history_length: int | None) -> Known:
        return cls(stage.known, cut(stage.known, stage.before, history_length), stage, n_items)

    def counts(self, events: Events, half_life: float = inf, *, visits: bool = False) -> sparse.csr_array:
        """How often each user had each item, an event weighing half as much every ``half_life`` days before.

        With ``visits`` it counts once a visit: three kinds of one item in a basket are one decision to buy it.
        """
        rows = events.target
        if visits:  # rows of one visit stand in the order of items
            rows = rows & np.r_[True, (np.diff(events.visit) != 0) | (np.diff(events.column("item")) != 0)]
        age = (self.stage.before - events.column("time")[rows]) / DAY_S
        shape = (events.n_users, self.n_items)
        where = (events.column("user")[rows], events.column("item")[rows])
        return sparse.csr_array((2.0 ** (-age / half_life), where), shape=shape)


def popularity(known: Known, half_life: float, *, visits: bool = False) -> Scorer:
    """The items with the most events, whoever is asked for."""
    scores = torch.from_numpy(known.counts(known.fit, half_life, visits=visits).sum(axis=0)).float()
    return lambda block, items: scores[items].repeat(block.stop - block.start, 1)


def frequency(known: Known, half_life: float, *, visits: bool = False) -> Scorer:
    """The items that the user had most often; what weighs the same, nothing above all, in the order of popularity."""
    counts = known.counts(known.history, half_life, visits=visits)
    popular = known.counts(known.fit, visits=visits).sum(axis=0)
    least = counts.data.min(initial=1.0) / (2 * popular.max(initial=1.0))  # below the weight of any item that was had
    return _rows(known, lambda rows, items: rows[:, items].toarray() + least * popular[items], counts)


def item_knn(known: Known, neighbours: float) -> Scorer:
    """Items like those of the history: cosine of their users, of the ``neighbours`` most alike."""
    alike = itemknn.weights_of(_binary(known.counts(known.fit)), neighbours)
    own = _binary(known.counts(known.history))
    return _rows(known, lambda rows, items: (rows @ alike[:, items]).toarray(), own)


def linear(known: Known, penalty: float) -> Scorer:
    """The linear model of items by all other items, with a ridge (EASE)."""
    weights = ease.weights_of(_binary(known.counts(known.fit)), penalty)
    return _rows(known, lambda rows, items: rows @ weights[:, items], _binary(known.counts(known.history)))


FITS: dict[str, Callable[[Known, float], Scorer]] = {
    "popularity": popularity,
    "recent-popularity": popularity,
    "frequency": frequency,
    "recent-frequency": frequency,
    "visit-popularity": partial(popularity, visits=True),
    "visit-frequency": partial(frequency, visits=True),
    "itemknn": item_knn,
    "ease": linear,
}


def choose(name: str, data: DataSet, validation: Stage, history_length: int | None, of: str = "all") -> float:
    """The parameter of a baseline that is best on a stage, by ``all`` targets or by ``explored`` ones."""
    grid = EVENT_BASELINES[name]
    if len(grid) == 1:
        return grid[0]
    known = Known.at(validation, data.items.n_rows, history_length)
    return max(grid, key=lambda value: ndcg_at_10(data, validation, FITS[name](known, value), of))


def measure(
    name: str, data: DataSet, moment: int, history_length: int | None, ks: Sequence[int], of: str = "all"
) -> tuple[Ranking, float]:
    """A baseline at a cut: its parameter chosen on the window before, refitted on all before the cut, tested after it.

    Args:
        name: key of ``EVENT_BASELINES``.
        data: a data set with events.
        moment: the cut, in seconds.
        history_length: events of each user that it reads; all where None.
        ks: cut-offs of the metrics.
        of: the targets by which the parameter is chosen, ``all`` or ``explored``.

    Returns:
        What its lists are worth, and the parameter.

    Raises:
        DataError: nobody to rank for.
        ValueError: no events.
        MemoryError: a catalogue too large for a baseline that compares items two by two.
    """
    if data.events is None:
        raise ValueError(f"{data.name} has no events")
    validation, test = stages(data.events, moment)
    best = choose(name, data, validation, history_length, of)
    return rank_events(data, test, FITS[name](Known.at(test, data.items.n_rows, history_length), best), ks), best


def _binary(counts: sparse.csr_array) -> sparse.csr_array:
    return sparse.csr_array((np.ones_like(counts.data), counts.indices, counts.indptr), shape=counts.shape)


def _rows(known: Known, score: Callable[[Any, slice], Floats], counts: sparse.csr_array) -> Scorer:
    """A scorer from one of some users' rows of ``counts`` and a range of items."""
    own = counts[known.stage.users]

    def scores(block: slice, items: slice) -> Tensor:
        return torch.from_numpy(np.asarray(score(own[block], items))).float()

    return scores
