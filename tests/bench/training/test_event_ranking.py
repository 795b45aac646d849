"""Lists of histories against metrics worked out by hand, and baselines against formulas written as loops."""

from __future__ import annotations

import math
from math import inf

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import torch

from bench.baselines import EVENT_BASELINES, ease
from bench.data.dataset import TRAIN, DataSet, Table, interactions
from bench.data.events import DAY_S, Events, next_visits
from bench.data.targets import Stage, stage
from bench.training import event_baselines
from bench.training.event_baselines import FITS, Known, measure
from bench.training.event_ranking import ndcg_at_10, rank_events
from bench.training.ranking import Scorer

Floats = npt.NDArray[np.float64]
Rows = list[tuple[int, int, int]]

WINDOW_S = 10 * DAY_S


def data_of(rows: Rows, n_users: int, n_items: int, cuts: tuple[int, ...] = (100 * DAY_S,)) -> DataSet:
    """A data set of events whose times are days."""
    frame = pd.DataFrame(rows, columns=["user", "item", "time"])
    frame["time"] *= DAY_S
    one = np.zeros(1, np.int64)
    return DataSet(
        name="d", users=Table(frame=pd.DataFrame({"u": range(n_users)}), key="u"),
        items=Table(frame=pd.DataFrame({"i": range(n_items)}), key="i"),
        interactions=interactions(one, one, one, True, np.array([TRAIN], np.int8)),
        events=Events.of(frame, n_users, n_items, print, cuts=cuts, window_s=WINDOW_S),
    )  # fmt: skip


def staged(data: DataSet, day: int = 100) -> Stage:
    assert data.events is not None
    return stage(data.events, day * DAY_S)


def scores_of(score: Scorer, stage: Stage, n_items: int) -> Floats:
    return score(slice(0, len(stage.users)), slice(0, n_items)).double().numpy()


def drawn(seed: int, n_users: int = 30, n_items: int = 12, n: int = 900, last: int = 125) -> Rows:
    """Shoppers with favourites: from day 1 on, the window of the cut at day 100 included."""
    random = np.random.default_rng(seed)
    favourite = random.dirichlet(np.full(n_items, 0.3), n_users)
    users = random.integers(0, n_users, n)
    items = [int(random.choice(n_items, p=favourite[user])) for user in users]
    return list(zip(users.tolist(), items, random.integers(1, last, n).tolist(), strict=True))


def test_by_hand() -> None:
    # User 0 had 0 and 1, and takes 1, 2, 3; user 1 is cold and takes 0; user 2 had 4 and takes it again.
    rows = [(0, 0, 1), (0, 1, 2), (0, 1, 3), (0, 1, 101), (0, 2, 102), (0, 3, 109), (0, 0, 110), (1, 0, 105)]
    data = data_of([*rows, (2, 4, 5), (2, 4, 104)], 3, 5)
    order = torch.tensor([0.0, -1, -2, -3, -4])
    found = rank_events(data, staged(data), lambda block, items: order[items].repeat(block.stop - block.start, 1), [2])
    second, best = 1 / math.log2(3), 1 + 1 / math.log2(3)
    expected = {
        "ndcg@2": [second / best, 1, 0],  # lists 0, 1
        "repeated_ndcg@2": [second, math.nan, 1],  # 0, 1 and 4
        "explored_ndcg@2": [1, 1, math.nan],  # 2, 3 and 0, 1
        "explored_recall@2": [1, 1, math.nan],
        "recall@2": [1 / 3, 1, 0],
    }
    for name, values in expected.items():
        assert found.per_user[name].tolist() == pytest.approx(values, nan_ok=True), name
    assert found.per_user["segment"].tolist() == ["1 to 19", "cold", "1 to 19"]
    assert found.values["ndcg@2"] == pytest.approx((second / best) / 2)  # over those with a history
    assert found.values["repeated_ndcg@2"] == pytest.approx((second + 1) / 2)
    assert found.values["explored_ndcg@2"] == pytest.approx(1)
    assert [found.values[name] for name in ("users_evaluated", "users_new", "catalogue_items")] == [2, 1, 5]


def test_where_nothing_repeats_what_a_user_had_is_not_listed() -> None:
    data = data_of([(0, 0, 1), (0, 1, 2), (0, 2, 101), (1, 2, 3)], 2, 4)
    order = torch.tensor([0.0, -1, -2, -3])
    found = rank_events(data, staged(data), lambda block, items: order[items].repeat(block.stop - block.start, 1), [1])
    assert found.values["ndcg@1"] == 1
    assert not [name for name in found.values if name.startswith(("repeated", "explored"))]


def test_popularity_and_frequency_by_hand() -> None:
    data = data_of([(0, 0, 90), (0, 0, 70), (0, 1, 90), (1, 1, 60), (1, 1, 80), (0, 2, 100), (1, 2, 100)], 2, 4)
    found = staged(data)
    known = Known.at(found, 4, None)
    recent = scores_of(event_baselines.popularity(known, 10), found, 4)
    assert recent[0] == pytest.approx([2**-1 + 2**-3, 2**-1 + 2**-4 + 2**-2, 0, 0])
    assert scores_of(event_baselines.popularity(known, inf), found, 4)[1].tolist() == [2, 3, 0, 0]
    own = scores_of(event_baselines.frequency(known, 10), found, 4)
    tie = (2**-4 + 2**-2) / 6  # half the least weight of an item that was had, shared out by popularity
    assert own[0] == pytest.approx([2**-1 + 2**-3 + 2 * tie, 2**-1 + 3 * tie, 0, 0])
    assert own[1].argsort().tolist()[-2:] == [0, 1]  # which says what comes after one's own
    last = scores_of(event_baselines.frequency(Known.at(found, 4, 1), inf), found, 4)
    assert np.floor(last).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0]]


def test_an_item_counts_once_a_visit() -> None:
    data = data_of([(0, 2, 90), (0, 1, 90), (0, 2, 90), (0, 2, 95), (1, 1, 90), (0, 0, 100)], 2, 4)
    found = staged(data)
    known = Known.at(found, 4, None)
    events, visits = (event_baselines.popularity(known, inf, visits=visits) for visits in (False, True))
    assert scores_of(events, found, 4)[0].tolist() == [0, 2, 3, 0]
    assert scores_of(visits, found, 4)[0].tolist() == [0, 2, 2, 0]
    own = scores_of(event_baselines.frequency(known, 5, visits=True), found, 4)
    assert np.round(own[0] * 4).tolist() == [
        0,
        1 + 1,
        3 + 1,
        0,
    ]  # 2^-2; 2^-2 + 2^-1; the tie by popularity is an eighth


def test_item_knn_against_loops() -> None:
    data = data_of(drawn(0), 30, 12)
    found = staged(data)
    known = Known.at(found, 12, 6)
    had = known.counts(known.fit).toarray() > 0
    alike = np.zeros((12, 12))
    for i in range(12):
        for j in range(12):
            if i != j:
                alike[i, j] = (had[:, i] & had[:, j]).sum() / (math.sqrt(had[:, i].sum() * had[:, j].sum()) + 1e-6)
    for j in range(12):
        alike[np.argsort(-alike[:, j])[4:], j] = 0
    history = known.counts(known.history).toarray() > 0
    expected = np.array(
        [[sum(alike[i, j] for i in np.flatnonzero(history[u])) for j in range(12)] for u in found.users]
    )
    assert scores_of(event_baselines.item_knn(known, 4), found, 12) == pytest.approx(expected, rel=1e-5)


def test_ease_is_the_ridge_of_each_item_by_the_others() -> None:
    data = data_of(drawn(1), 30, 12)
    found = staged(data)
    known = Known.at(found, 12, None)
    had = (known.counts(known.fit).toarray() > 0).astype(float)
    weights = np.zeros((12, 12))
    for j in range(12):
        others = np.delete(np.arange(12), j)
        x = had[:, others]
        weights[others, j] = np.linalg.solve(x.T @ x + 7 * np.eye(11), x.T @ had[:, j])
    assert scores_of(event_baselines.linear(known, 7), found, 12) == pytest.approx(had[found.users] @ weights, rel=1e-4)


def test_a_catalogue_too_large_for_pairs_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "MOST_ITEMS", 11)
    data = data_of(drawn(0), 30, 12)
    with pytest.raises(MemoryError, match="12 are too many"):
        event_baselines.linear(Known.at(staged(data), 12, None), 1)


# -- Leaks ------------------------------------------------------------------------------------------------------------


def leaking(known: Known, parameter: float) -> Scorer:
    """Frequency that reads on beyond the moment, as it would from a table that was not cut."""
    assert EVERYTHING is not None
    ahead = Known(EVERYTHING, EVERYTHING, known.stage, known.n_items)
    return event_baselines.frequency(ahead, inf)


EVERYTHING: Events | None = None


def with_another_future(rows: Rows, day: int, n_items: int) -> Rows:
    """The same rows, but from a day on other items, and a thousand more of them."""
    random = np.random.default_rng(9)
    changed = [(user, int(random.integers(n_items)) if time >= day else item, time) for user, item, time in rows]
    return changed + [(user, 3, day + 1) for user, _, time in rows if time >= day for _ in range(20)]


@pytest.mark.parametrize("name", [*EVENT_BASELINES, "leaking"])
def test_another_future_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rows in (drawn(2, last=110), with_another_future(drawn(2, last=110), 100, 12)):
        data = data_of(rows, 30, 12)
        monkeypatch.setitem(globals(), "EVERYTHING", data.events)
        fit, grid = (leaking, (inf,)) if name == "leaking" else (FITS[name], EVENT_BASELINES[name])
        here = staged(data)
        found.append([scores_of(fit(Known.at(here, 12, 5), value), here, 12) for value in grid])
    assert all(map(np.array_equal, *found)) == (name != "leaking")  # the check sees a model that looks ahead


def test_the_test_window_does_not_choose() -> None:
    """Shoppers who changed their minds before validation: the shortest half-life wins there, whatever comes later."""
    old = [(user, user % 6, day) for user in range(30) for day in range(1, 60)]
    new = [(user, 6 + user % 6, day) for user in range(30) for day in range(80, 101)]
    back = [(user, user % 6, day) for user in range(30) for day in range(101, 110)]
    chosen = [measure("recent-frequency", data_of(rows, 30, 12), 100 * DAY_S, None, [1])[1]
              for rows in ([*old, *new], [*old, *new, *back], with_another_future([*old, *new], 100, 12))]  # fmt: skip
    assert chosen == [7, 7, 7]


def test_the_refit_takes_validation_and_leaves_the_test_out() -> None:
    """What came up in the validation window alone is known in the test; what comes up in the test is not."""
    rows = [(user, item, day) for user in range(9) for item in range(3) for day in range(5, 80)]
    rows += [(user, 3, day) for user in range(9) for day in range(90, 100) for _ in range(30)]
    rows += [(user, 4, 100) for user in range(9) for _ in range(900)] + [(user, 3, 100) for user in range(9)]
    for name in ("popularity", "recent-popularity", "frequency", "recent-frequency"):
        ranking, _ = measure(name, data_of(rows, 9, 5), 100 * DAY_S, None, [1, 5])
        assert ranking.values["hit_rate@1"] == 1, name  # item 3, first of all
        assert ranking.values["mrr@5"] == 1, name
        assert ranking.values["explored_mrr@5"] == 1, name  # item 4 is the only one that nobody had
        assert ranking.values["recall@1"] == 0.5, name  # item 4 could not be foreseen


def test_a_visit_tells_nothing_of_itself() -> None:
    """Baskets of an even item and the odd one after it: the row before tells a basket's rest, others nothing."""
    random = np.random.default_rng(0)
    first = random.integers(0, 5, (40, 50)) * 2
    rows = [
        (user, int(item) + more, day) for user in range(40) for day, item in enumerate(first[user]) for more in (0, 1)
    ]
    events = data_of(rows, 40, 10, (10 * DAY_S,)).events
    assert events is not None
    item = events.column("item")

    def share(read: npt.NDArray[np.int64], asked: npt.NDArray[np.int64]) -> float:
        """How often the most frequent successor of the item that is read is the one that is asked for."""
        pairs = np.zeros((10, 10))
        np.add.at(pairs, (item[read], item[asked]), 1)
        return float(pairs.max(axis=1).sum() / pairs.sum())

    naive = np.flatnonzero(np.diff(events.column("user")) == 0)
    assert share(naive, naive + 1) > 0.6  # half of all rows are known for sure, of the rest a fifth
    ends, starts, stops = next_visits(events)
    assert (events.visit[ends] < events.visit[starts]).all()
    assert (events.visit[starts] == events.visit[stops - 1]).all()
    for asked in (starts, stops - 1):
        assert share(ends, asked) < 0.25  # chance is a fifth


def test_validation_looks_at_the_same_lists() -> None:
    data = data_of(drawn(3), 30, 12)
    found = staged(data)
    score = event_baselines.popularity(Known.at(found, 12, None), inf)
    values = rank_events(data, found, score, [10]).values
    assert ndcg_at_10(data, found, score) == values["ndcg@10"]
    assert ndcg_at_10(data, found, score, "explored") == values["explored_ndcg@10"]
