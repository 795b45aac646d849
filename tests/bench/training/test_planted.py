"""The planted dependency: who sees it reaches the score that is known, who does not has the marginal."""

from __future__ import annotations

import numpy as np
import pytest

from bench.baselines import BASELINES
from bench.data import adapter, planted
from bench.data.dataset import DataSet
from bench.data.events import cut
from bench.data.files import DataError
from bench.data.targets import stage, stages
from bench.metrics.ranking import METRICS
from bench.training.event_ranking import rank_events

N_USERS, N_ITEMS, DISTANCE = 4000, 50, 30
MARGIN = (
    4 * 0.45 / N_USERS**0.5
)  # four deviations of the mean of a metric between 0 and 1 that is mostly one of the two


def drawn(shuffled: int = 0, seed: int = 0) -> DataSet:
    return planted.generate("planted", distance=DISTANCE, shuffled=shuffled, seed=seed, n_users=N_USERS,
                            n_items=N_ITEMS, n_linked=40)  # fmt: skip


def learned(data: DataSet, back: int, history_length: int | None = None) -> float:
    """NDCG@10 of what a model of pairs knows: items after the one ``back`` events before, counted where all is known.

    Where a history does not reach that far, it takes the oldest event there is.
    """
    events = data.events
    assert events is not None
    test = stage(events, events.cuts[-1])
    rows = test.known.column("item").reshape(N_USERS, -1)
    pairs = np.zeros((N_ITEMS, N_ITEMS))
    np.add.at(pairs, (rows[:, :-back], rows[:, back:]), 1)
    history = cut(test.known, test.before, history_length).column("item").reshape(N_USERS, -1)
    scores = pairs[history[:, -min(back, history.shape[1])]]
    hits = np.argsort(-scores, axis=1, kind="stable")[:, :10] == test.pairs[1][:, None]
    return float(METRICS["ndcg"](hits, np.ones(N_USERS, np.int64)).mean())


def test_one_event_is_known_last_and_one_is_to_come() -> None:
    data = drawn()
    assert data.events is not None
    assert data.events.lengths.tolist() == [DISTANCE + 40] * N_USERS
    validation, test = stages(data.events, *data.events.cuts)
    assert (validation.n_before == DISTANCE + 38).all()
    assert (test.n_before == DISTANCE + 39).all()
    assert len(test.pairs[0]) == len(validation.pairs[0]) == N_USERS


def test_the_oracle_reaches_the_score_that_is_known() -> None:
    data = drawn()
    assert data.events is not None
    test = stage(data.events, data.events.cuts[-1])
    found = rank_events(data, test, BASELINES["oracle"].fit(data, 0)(test.users), [10]).values["ndcg@10"]
    discounts = 1 / np.log2(np.arange(2, 12))
    known = 0.8 * 1 + 0.2 * sum(discounts / N_ITEMS)  # the successor stands first; noise hits each rank as often
    assert planted.best_ndcg(N_ITEMS) == pytest.approx(known)
    assert planted.marginal_ndcg(N_ITEMS) == pytest.approx(sum(discounts) / N_ITEMS)
    assert found == pytest.approx(known, abs=MARGIN)
    assert data.truth is not None
    assert data.truth(test.users, slice(0, N_ITEMS)).sum(axis=1) == pytest.approx(1)
    assert (data.truth(test.users, slice(7, 9)) == data.truth(test.users, slice(0, N_ITEMS))[:, 7:9]).all()


def test_who_counts_at_the_right_distance_reaches_it_and_nobody_else() -> None:
    data = drawn()
    best, chance = planted.best_ndcg(N_ITEMS), planted.marginal_ndcg(N_ITEMS)
    assert learned(data, DISTANCE) == pytest.approx(best, abs=MARGIN)
    assert learned(data, DISTANCE, DISTANCE) == pytest.approx(best, abs=MARGIN)
    assert learned(data, DISTANCE, DISTANCE - 1) == pytest.approx(chance, abs=MARGIN)
    for back in (1, 2, DISTANCE - 1, DISTANCE + 1):
        assert learned(data, back) == pytest.approx(chance, abs=MARGIN)


def test_nothing_nearer_than_the_distance_says_anything() -> None:
    """At smaller distances pairs are as independent draws leave them: chi-squared within four deviations."""
    data = drawn(seed=1)
    assert data.events is not None
    rows = data.events.column("item").reshape(N_USERS, -1)
    for back in (1, 7, DISTANCE - 1, DISTANCE):
        pairs = np.zeros((N_ITEMS, N_ITEMS))
        np.add.at(pairs, (rows[:, -1 - back], rows[:, -1]), 1)
        expected = np.outer(pairs.sum(axis=1), pairs.sum(axis=0)) / N_USERS
        free = (N_ITEMS - 1) ** 2
        deviations = (((pairs - expected) ** 2 / expected).sum() - free) / (2 * free) ** 0.5
        assert (abs(deviations) > 4) == (back == DISTANCE), back


def test_shuffled_histories_have_the_same_events_and_no_order() -> None:
    data, control = drawn(), drawn(shuffled=1)
    assert data.events is not None
    assert control.events is not None
    assert control.truth is None
    rows, shuffled = (each.events.column("item").reshape(N_USERS, -1) for each in (data, control) if each.events)
    assert (rows[:, -1] == shuffled[:, -1]).all()
    assert (np.sort(rows, axis=1) == np.sort(shuffled, axis=1)).all()
    # One item in seventy is the right one to look at, so that a little is left above the marginal.
    assert learned(control, DISTANCE) < planted.marginal_ndcg(N_ITEMS) + 0.05


def test_settings() -> None:
    assert adapter("planted:distance=1000:shuffled=1").name == "planted:distance=1000:shuffled=1"
    assert adapter("planted:distance=1000").simulated
    assert not adapter("planted:shuffled=1").simulated
    with pytest.raises(DataError, match="distance of planted must be a whole number from 1 to 100000, got '0'"):
        adapter("planted:distance=0")
    for distance in (1, 10):  # every distance has events, of the same number of users
        data = planted.generate("p", distance=distance, shuffled=0, seed=0, n_users=20, n_items=5, n_linked=3)
        assert data.events is not None
        assert data.events.lengths.tolist() == [distance + 3] * 20
