"""Prequential ranking: order, blocks, what may be known, planted leaks and drifts, towers against forward passes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from bench.data.dataset import TRAIN, DataSet, Table, interactions
from bench.data.events import DAY_S, Events, between
from bench.plan.cell import Cell
from bench.run.rank_stream import measure
from bench.training.prequential import Counts, Tower, blocks, run
from ftmamba.state import n_bytes

Rows = list[tuple[int, int, int]]
START = 100


def data_of(rows: Rows, n_users: int, n_items: int) -> DataSet:
    """Events of user, item and day; the cut is day 100."""
    frame = pd.DataFrame(rows, columns=["user", "item", "time"])
    frame["time"] *= DAY_S
    one = np.zeros(1, np.int64)
    return DataSet(
        name="d", users=Table(frame=pd.DataFrame({"u": range(n_users)}), key="u"),
        items=Table(frame=pd.DataFrame({"i": range(n_items)}), key="i"),
        interactions=interactions(one, one, one, True, np.array([TRAIN], np.int8)),
        events=Events.of(frame, n_users, n_items, print, cuts=(START * DAY_S,), window_s=10 * DAY_S),
    )  # fmt: skip


def drawn(seed: int, n_users: int = 8, n_items: int = 12, last: int = 160) -> Rows:
    random = np.random.default_rng(seed)
    return [
        (user, int(random.integers(n_items)), int(day))
        for user in range(n_users) for day in random.integers(1, last, 25)
    ]  # fmt: skip


def events_of(data: DataSet) -> Events:
    assert data.events is not None
    return data.events


def counted(name: str, data: DataSet, every: int = 20, ks: tuple[int, ...] = (1, 10)) -> pd.DataFrame:
    ranker = Counts(name, events_of(data), START * DAY_S, data.items.n_rows)
    return run(events_of(data), START * DAY_S, ranker, data.items.n_rows, every * DAY_S, ks)


def cell(**more: Any) -> Cell:
    fields = {
        "mixer": "mamba", "backend": "reference", "arm": "live", "device": "cpu", "dtype": "float64", "dataset": "d",
        "history_length": 20, "batch_size": 64, "n_layers": 1, "d_model": 8, "steps": 3, "learning_rates": (0.01,),
        "update_days": 20, **more,
    }  # fmt: skip
    return Cell(task="rank_stream", **fields)


def test_events_of_one_time_are_one_block() -> None:
    events = events_of(data_of([(0, 1, 120), (1, 2, 120), (0, 3, 110), (0, 3, 90), (1, 4, 130), (0, 5, 120)], 2, 6))
    pairs = [*zip(events.column("user").tolist(), events.column("item").tolist(), strict=True)]
    found = [[pairs[i] for i in block] for block in blocks(events, START * DAY_S)]
    assert found == [[(0, 3)], [(0, 1), (0, 5), (1, 2)], [(1, 4)]]


def test_the_order_is_that_of_rivers_simulate_qa() -> None:
    """Questions of one time are asked before any of their answers, which come before the next time's questions."""
    stream = pytest.importorskip("river.stream")
    events = events_of(data_of(drawn(0), 8, 12))
    told: list[tuple[str, int]] = []

    class Listener(Counts):
        def scores(self, users: Any, now: int) -> Tensor:
            told.append(("asked", now))
            return super().scores(users, now)

        def reveal(self, at: Any) -> None:
            told.append(("revealed", int(events.column("time")[at[0]])))
            super().reveal(at)

    run(events, START * DAY_S, Listener("popularity", events, START * DAY_S, 12), 12, 10**9, [10])
    times = np.sort(events.column("time")[events.column("time") >= START * DAY_S])
    qa = stream.simulate_qa((({"t": int(t)}, 1) for t in times), moment="t", delay=1)
    theirs = [("asked" if each[2] is None else "revealed", each[1]["t"]) for each in qa]
    assert [*dict.fromkeys(told)] == [*dict.fromkeys(theirs)]


def test_by_hand() -> None:
    """Item 0 was had twice and 1 once before the cut. User 0 takes 1 on day 101: in second place. On day 102 both take
    2, which nobody had: it is last of three for either, as neither sees the other."""
    rows = [(0, 0, 1), (1, 0, 2), (1, 1, 3), (0, 1, 101), (0, 2, 102), (1, 2, 102), (0, 2, 103), (0, 2, 104)]
    table = counted("popularity", data_of(rows, 2, 3), ks=(3,))
    assert table["user"].tolist() == [0, 0, 1, 0, 0]
    assert np.allclose(table["ndcg@3"][:3], [1 / np.log2(3), 1 / np.log2(4), 1 / np.log2(4)])
    own = counted("frequency", data_of(rows, 2, 3), ks=(1,))["hit_rate@1"].tolist()
    assert own[:3] == [0, 0, 0]
    assert own[4] == 1  # had twice, where 0 and 1 were had once


def test_recent_popularity_halves_in_a_fortnight() -> None:
    rows = [(0, 0, 86), (0, 0, 85), (1, 1, 99), (1, 1, 115)]
    data = data_of(rows, 2, 3)
    ranker = Counts("recent-popularity", events_of(data), START * DAY_S, 3)
    scores = ranker.scores(np.array([0]), START * DAY_S)[0]
    assert np.allclose(scores, [2 ** (-1) + 2 ** (-15 / 14), 2 ** (-1 / 14), 0])
    ranker.reveal(np.flatnonzero(events_of(data).column("time") == 115 * DAY_S))
    later = scores * 2 ** (-15 / 14) + torch.tensor([0, 1, 0])
    assert np.allclose(ranker.scores(np.array([0]), 0)[0], later)


class Leaky(Counts):
    """Looks at the block that it is asked for."""

    def scores(self, users: Any, now: int) -> Tensor:
        at = np.flatnonzero(self._events.column("time") == now)
        found = super().scores(users, now).clone()
        found[:, torch.from_numpy(self._events.column("item")[at])] += 1e6
        return found


def permuted(data: DataSet, day: int) -> DataSet:
    """The same events, but whose item an event from that day on has is drawn anew."""
    frame = events_of(data).frame[["user", "item", "time"]].copy()
    late = (frame["time"] >= day * DAY_S).to_numpy()
    frame.loc[late, "item"] = np.random.default_rng(9).permutation(frame.loc[late, "item"].to_numpy())
    frame["time"] //= DAY_S
    return data_of([*frame.itertuples(index=False, name=None)], data.users.n_rows, data.items.n_rows)


def early(table: pd.DataFrame, day: int) -> pd.DataFrame:
    return table[table["time"] <= day * DAY_S].reset_index(drop=True)


@pytest.mark.parametrize("arm", [*Counts.__init__.__globals__["BASELINES"], "live", "retrained", "online"])
def test_what_comes_later_changes_no_earlier_ranking(arm: str) -> None:
    """From day 141 on items are shuffled: all scores up to day 140, that of the day itself included, are the same."""
    data = data_of(drawn(1), 8, 12)
    other = permuted(data, 141)
    if arm in ("live", "retrained", "online"):
        own = cell(arm=arm, states="rebuilt")
        tables = [
            run(events_of(d), START * DAY_S, Tower(own, d, START * DAY_S), 12, 20 * DAY_S, [10]) for d in (data, other)
        ]
    else:
        tables = [counted(arm, d) for d in (data, other)]
    pd.testing.assert_frame_equal(early(tables[0], 140), early(tables[1], 140))
    assert not tables[0].equals(tables[1])


def test_a_planted_leak_is_caught() -> None:
    """Whoever sees the block has all of it first, whatever the future holds: no ranking without it does."""
    data = data_of(drawn(1), 8, 12)
    leak = run(events_of(data), START * DAY_S, Leaky("popularity", events_of(data), START * DAY_S, 12), 12, DAY_S, [10])
    other = permuted(data, 140)
    again = run(
        events_of(other), START * DAY_S, Leaky("popularity", events_of(other), START * DAY_S, 12), 12, DAY_S, [10]
    )
    assert early(leak, 139).equals(early(again, 139))
    honest = counted("popularity", data)
    assert leak["ndcg@10"].mean() > honest["ndcg@10"].mean() + 0.2


def test_a_planted_drift_is_found_at_its_date() -> None:
    """Until day 140 everybody takes items 0 and 1, then 2 and 3: the largest fall is in the window of that day, and
    what forgets is above what does not from then on."""
    rows = [(user, (day + user) % 2 + 2 * (day >= 140), day) for user in range(8) for day in range(60, 200)]
    data = data_of(rows, 8, 12)
    curves = {
        name: counted(name, data, every=10).groupby("window")["hit_rate@1"].mean()
        for name in ("popularity", "recent-popularity")
    }
    falls = curves["recent-popularity"].diff()
    assert falls.idxmin() == 4  # days 140 to 149
    assert curves["recent-popularity"][9] > curves["popularity"][9] + 0.2


@pytest.mark.parametrize("mixer", ["mamba", "attention"])
@pytest.mark.parametrize("block_bytes", [1, 2**28])
def test_live_towers_rank_as_forward_passes_do(mixer: str, block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether states were made user by user or side by side; user 7 has no event before the cut, and 6 only one."""
    monkeypatch.setattr("bench.training.prequential.BLOCK_BYTES", block_bytes)
    rows = [row for row in drawn(2) if row[0] < 6 or row[2] >= START]
    data = data_of([*rows, (6, 1, 1), (7, 1, 130)], 8, 12)
    events, own = events_of(data), cell(mixer=mixer, params={"causal": True} if mixer == "attention" else {})
    tower = Tower(own, data, START * DAY_S)
    room = [each.shape[1] for each in tower.states.layers[0] if each.ndim == 4]
    seen: list[tuple[int, int, Tensor]] = []
    right = tower.scores

    def scores(users: Any, now: int) -> Tensor:
        found = right(users, now)
        seen.extend((int(user), now, each) for user, each in zip(users, found, strict=True))
        return found

    tower.scores = scores  # type: ignore[method-assign]
    run(events, START * DAY_S, tower, 12, 20 * DAY_S, [10])
    everything = tower._everything
    for user, now, found in seen:
        n = int((events.column("time")[events.column("user") == user] < now).sum())
        first = events.offsets[[user]]
        history, _ = everything.read(first, first + n)
        with torch.no_grad():
            vector = tower.model.tower(history, at="all")[:, -1] if n else torch.zeros(1, 8, dtype=torch.float64)
            assert torch.allclose(found, tower.model.score(vector, slice(None), None)[0], atol=1e-10)
    assert room == ([int(events.lengths.max())] * 2 if mixer == "attention" else [])
    assert room == [each.shape[1] for each in tower.states.layers[0] if each.ndim == 4]  # no cache had to grow


def test_states_that_memory_does_not_hold_are_refused_before_anything_is_learned() -> None:
    """8 users, room for 26 keys and values of 8 numbers in float64, 3 counts of 8 bytes."""
    rows = [*drawn(2), (0, 1, 130)]
    own, needed = cell(mixer="attention", params={"causal": True}, steps=10**9), 8 * (26 * 2 * 8 * 8 + 3 * 8)
    with pytest.raises(MemoryError, match=r"8 users with room for 26 tokens .* GiB") as refused:
        Tower(own, data_of(rows, 8, 12), START * DAY_S, needed - 1)
    assert "\n" not in str(refused.value)
    tower = Tower(own.but(steps=1), data_of(rows, 8, 12), START * DAY_S, needed)
    assert n_bytes(tower.states) == needed


def test_frozen_states_stay_and_stale_ones_differ_from_rebuilt() -> None:
    data = data_of(drawn(3), 8, 12)
    frozen = Tower(cell(arm="frozen"), data, START * DAY_S)
    before = frozen.read.clone()
    run(events_of(data), START * DAY_S, frozen, 12, 20 * DAY_S, [10])
    assert torch.equal(frozen.read, before)
    towers = [Tower(cell(arm="retrained", states=states), data, START * DAY_S) for states in ("stale", "rebuilt")]
    for tower in towers:
        run(events_of(data), START * DAY_S, tower, 12, 20 * DAY_S, [10])
    stale, rebuilt = towers
    assert all(torch.equal(a, b) for a, b in zip(stale.model.parameters(), rebuilt.model.parameters(), strict=True))
    assert not torch.allclose(stale.read, rebuilt.read, atol=1e-6)
    kept = rebuilt.read.clone()
    rebuilt.rebuild(10**12)  # as if all had been stepped with the last weights from the beginning
    assert not torch.allclose(rebuilt.read, stale.read, atol=1e-6)
    assert kept.shape == rebuilt.read.shape


def test_a_cell_tells_its_curve_and_its_users() -> None:
    data = data_of(drawn(4), 8, 12)
    per_user, samples, values = measure(cell(arm="online", states="rebuilt"), data, [1, 10])
    assert samples["window"] == [0, 1, 2]
    assert sorted(per_user["user"]) == [str(i) for i in range(8)]
    assert values["ndcg@10"] == pytest.approx(per_user["ndcg@10"].mean())
    assert values["rebuild_s"] > 0  # type: ignore[operator]
    assert values["learn_s"] > 0  # type: ignore[operator]
    plain = Cell(task="rank_stream", dataset="d", baseline="frequency", device="cpu", update_days=20)
    assert measure(plain, data, [1, 10])[2]["visits"] == values["visits"]


def test_between() -> None:
    events = events_of(data_of([(0, 1, 10), (0, 2, 20), (1, 3, 20), (1, 4, 30)], 2, 6))
    found = between(events, 20 * DAY_S, 30 * DAY_S)
    assert (found.column("item").tolist(), found.offsets.tolist()) == ([2, 3], [0, 1, 2])
