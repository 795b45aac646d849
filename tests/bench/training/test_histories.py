"""Batches of histories by hand, leaks that must not be, and models that find what was planted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from bench.data import planted
from bench.data.dataset import TRAIN, DataSet, Table, interactions
from bench.data.events import DAY_S, Events
from bench.data.planted import best_ndcg, marginal_ndcg
from bench.data.targets import stage
from bench.plan.cell import Cell
from bench.run.rank_history import measure
from bench.training import history_model, loop
from bench.training.histories import Batch, Histories, Positions, RowSampler, own_counts
from bench.training.history_model import HistoryTrainer, scorer
from bench.training.search import Budget, Trial

WINDOW_S = 10 * DAY_S
# user, item, day: user 0 has visits on days 1 (two items), 2, 8 and 15; user 1 on days 3 and 90; user 2 on day 5 alone.
ROWS = [(0, 0, 1), (0, 1, 1), (0, 2, 2), (0, 1, 8), (0, 2, 8), (0, 3, 15), (1, 4, 3), (1, 0, 90), (2, 1, 5)]


def data_of(rows: list[tuple[int, int, int]], n_users: int = 3, n_items: int = 5) -> DataSet:
    frame = pd.DataFrame(rows, columns=["user", "item", "time"])
    frame["time"] *= DAY_S
    frame["price"] = frame["item"] * 2.0
    frame["shop"] = np.where(frame["item"] > 2, "a", "b")
    one = np.zeros(1, np.int64)
    users = pd.DataFrame({"u": range(n_users), "age": np.arange(n_users) * 10.0})
    return DataSet(
        name="d", users=Table(frame=users, key="u", numeric=("age",)),
        items=Table(frame=pd.DataFrame({"i": range(n_items)}), key="i"),
        interactions=interactions(one, one, one, True, np.array([TRAIN], np.int8)),
        events=Events.of(
            frame, n_users, n_items, print, numeric=("price",), categorical=("shop",), cuts=(100 * DAY_S,),
            window_s=WINDOW_S,
        ),
    )  # fmt: skip


def histories_of(rows: list[tuple[int, int, int]]) -> Histories:
    data = data_of(rows)
    assert data.events is not None
    return Histories(data, stage(data.events, 100 * DAY_S))


AHEAD = [(0, 4, 101), (1, 3, 104)]


def test_positions_by_hand() -> None:
    known = histories_of(ROWS + AHEAD).stage
    visit, window = Positions.of(known, "visit"), Positions.of(known, "window")
    assert [each.tolist() for each in visit] == [[1, 2, 4, 6], [2, 3, 5, 7], [3, 5, 6, 8]]
    # Day 1 looks to day 11, day 8 to day 18; day 3 of user 1 has nothing ahead within ten days.
    assert [each.tolist() for each in window] == [[1, 2, 4], [2, 3, 5], [5, 5, 6]]
    later = replace(known, before=11 * DAY_S)  # a window that has not ended by then teaches nothing
    assert Positions.of(later, "window").at.tolist() == []
    assert Positions.of(replace(known, before=11 * DAY_S + 1), "window").at.tolist() == [1]


def test_a_batch_by_hand() -> None:
    histories = histories_of(ROWS + AHEAD)
    positions = Positions.of(histories.stage, "window")
    (rows,) = RowSampler(histories.known, positions, 100, 1000, 0, last=False)._epoch(np.random.default_rng(0))
    batch = Batch.of(histories, positions, rows, math.inf)
    assert batch.history.item.tolist() == [[0, 1, 2, 1, 2, 3]]  # of user 0 alone: the others have no position
    assert (batch.row.tolist(), batch.column.tolist()) == ([0, 0, 0], [1, 2, 4])
    assert batch.which.tolist() == [0, 0, 1, 1, 2]
    assert batch.target.tolist() == [1, 2, 1, 2, 3]  # item 2 of days 2 and 8 is one pair
    assert batch.weight.tolist() == [0.5] * 4 + [1]
    assert batch.own is not None
    assert batch.own.tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 2, 2, 0, 0]]
    assert batch.static is not None
    assert batch.static.n_rows == 1


@pytest.mark.parametrize("length", [1, 2, 3, 100])
@pytest.mark.parametrize("last", [False, True])
def test_an_epoch_goes_over_every_position_once(length: int, last: bool) -> None:
    random = np.random.default_rng(0)
    rows = [(int(user), int(random.integers(5)), int(day)) for user in range(3) for day in random.integers(1, 90, 40)]
    known = histories_of(rows + AHEAD)
    positions = Positions.of(known.stage, "visit")
    sampler = RowSampler(known.known, positions, length, 60, 0, last=last)
    batches = list(sampler._epoch(random))
    assert len(batches) > 1
    places = np.concatenate([np.arange(b, e) for each in batches for b, e in zip(each.begin, each.end, strict=True)])
    assert len(set(places.tolist())) == len(places)
    if not last:
        assert sorted(places.tolist()) == list(range(len(positions.at)))
    for each in batches:
        lengths = each.stop - each.first
        assert lengths.max() <= length
        assert lengths.max() * len(lengths) <= max(60, length)
        assert (known.known.column("user")[each.first] == known.known.column("user")[each.stop - 1]).all()


@pytest.mark.parametrize("half_life", [3.0, math.inf])
def test_own_counts_against_loops(half_life: float) -> None:
    random = np.random.default_rng(0)
    rows = [(int(user), int(random.integers(5)), int(day)) for user in range(3) for day in random.integers(1, 90, 40)]
    known = histories_of(rows + AHEAD).known
    positions = Positions.of(histories_of(rows + AHEAD).stage, "visit")
    sampler = RowSampler(known, positions, 25, 100, 0, last=False)
    scored = np.array([1, -1, 0, 2, -1])
    for each in sampler._epoch(random):
        owner = np.repeat(np.arange(len(each.first)), each.end - each.begin)
        at = np.concatenate([positions.at[b:e] for b, e in zip(each.begin, each.end, strict=True)])
        found = own_counts(known, each, owner, at, scored, 3, half_life)
        for i, (row, event) in enumerate(zip(owner, at, strict=True)):
            expected = np.zeros(3)
            for other in range(each.first[row], event + 1):
                days = (known.column("time")[event] - known.column("time")[other]) / DAY_S
                same = known.column("item")[other] == known.column("item")[other - 1]
                if same and other and known.visit[other] == known.visit[other - 1]:
                    continue  # a visit counts once
                if (column := scored[known.column("item")[other]]) >= 0:
                    expected[column] += 2 ** (-days / half_life)
            assert found[i] == pytest.approx(expected, rel=1e-5)


def cell(mixer: str = "mamba", **settings: Any) -> Cell:
    backends = {"mamba": "numba", "mean": "reference"}
    chosen = {
        "task": "rank_history", "dataset": "d", "history_length": 100, "mixer": mixer, "backend": backends[mixer],
        "read_at": "all" if mixer == "mamba" else "last", "n_layers": 1, "d_model": 16, "batch_size": 1000, "steps": 6,
        "learning_rates": (0.01,), "dtype": "float32", **settings,
    }  # fmt: skip
    return Cell(**chosen)


def trained(histories: Histories, setting: Cell) -> history_model.HistoryModel:
    trainer = HistoryTrainer(setting, histories, Budget(6, 6), None, half_life=5.0 if setting.own == "counts" else None)
    model: history_model.HistoryModel = trainer.run(Trial(0.01)).model
    return model


@pytest.mark.parametrize(("mixer", "own"), [("mamba", "counts"), ("mamba", "vectors"), ("mean", "vectors")])
def test_another_future_changes_nothing(mixer: str, own: str) -> None:
    found = []
    for ahead in (AHEAD, [(0, 0, 100), (1, 1, 107), (2, 2, 150), (0, 3, 300)]):
        histories = histories_of(ROWS + ahead)
        model = trained(histories, cell(mixer, own=own, d_out=8))
        here = replace(histories.stage, users=np.array([0, 1, 2]))
        found.append(scorer(model, histories, here, 100, 5.0)(slice(0, 3), slice(0, 5)))
    assert torch.equal(*found)


def test_a_visit_does_not_see_itself() -> None:
    """Whatever a visit holds, the scores at the position before it are the same; the loss there is not."""
    model, scores, losses = None, [], []
    for item in (3, 4):
        histories = histories_of([*ROWS[:5], (0, item, 15), *ROWS[6:], *AHEAD])
        model = model or trained(histories, cell(own="counts"))
        positions = Positions.of(histories.stage, "visit")
        (rows,) = RowSampler(histories.known, positions, 100, 1000, 0, last=False)._epoch(np.random.default_rng(0))
        batch = Batch.of(histories, positions, rows, 5.0)
        with torch.no_grad():
            read = model.read(
                batch.history._replace(numeric=batch.history.numeric * 0), batch.static, batch.row, batch.column
            )
            scores.append(model.score(read, slice(None), batch.own))
            losses.append(model.loss(batch))
    assert torch.equal(*scores)
    assert losses[0] != losses[1]


def test_drawn_items_stand_for_the_catalogue() -> None:
    histories = histories_of(ROWS + AHEAD)
    model = trained(histories, cell(own="counts"))
    positions = Positions.of(histories.stage, "window")
    (rows,) = RowSampler(histories.known, positions, 100, 1000, 0, last=False)._epoch(np.random.default_rng(0))
    whole = Batch.of(histories, positions, rows, 5.0)
    drawn, log_q = np.array([0, 0, 4]), np.log([0.5, 0.1, 0.1, 0.1, 0.2])
    some = Batch.of(histories, positions, rows, 5.0, drawn, log_q)
    with torch.no_grad():
        read = model.read(whole.history, whole.static, whole.row, whole.column)
        scores = model.score(read, slice(None), whole.own).double()
        others = torch.log(scores[:, 0].exp() * 2 / 3 / 0.5 + scores[:, 4].exp() / 3 / 0.2)
        each = torch.log1p((others[whole.which] - scores[whole.which, whole.target]).exp())
        assert model.loss(some) == pytest.approx(float((each * whole.weight).sum() / 3), rel=1e-5)
        full = -(scores.log_softmax(1)[whole.which, whole.target] * whole.weight).sum() / 3
        assert model.loss(whole) == pytest.approx(float(full), rel=1e-5)


@pytest.fixture(name="memory", scope="module")
def _memory() -> DataSet:
    return planted.generate("d", distance=3, shuffled=0, seed=0, n_users=150, n_items=12, n_linked=40)


def test_a_planted_distance_is_found_by_those_who_read_that_far(memory: DataSet) -> None:
    settings = {"steps": 120, "d_model": 32, "batch_size": 2000, "targets": "visit"}
    near, far = (
        measure(cell(history_length=length, **settings), memory, [10]) for length in (2, 8)
    )  # the last three events say what follows
    expected, chance = best_ndcg(12), marginal_ndcg(12)
    assert far[0].values["ndcg@10"] == pytest.approx(expected, abs=0.1)
    assert near[0].values["ndcg@10"] < (expected + chance) / 2
    assert far[2].values["train_steps_per_s"] > 0
    assert far[1]["validation_ndcg@10"][-1] > far[1]["validation_ndcg@10"][0]


def test_an_interrupted_training_ends_as_a_whole_one(
    memory: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = cell(steps=20, own="counts")
    whole, _, _ = measure(setting, memory, [10])
    save, calls = loop.checkpoint.save, []

    def fails(*given: Any) -> None:
        save(*given)
        calls.append(given)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop.checkpoint, "save", fails)
    with pytest.raises(KeyboardInterrupt):
        measure(setting, memory, [10], tmp_path / "saved")
    rest, _, _ = measure(setting, memory, [10], tmp_path / "saved")
    assert rest.per_user.equals(whole.per_user)
    assert len(calls) > 4


def test_a_data_set_without_histories_is_refused(memory: DataSet) -> None:
    with pytest.raises(ValueError, match="d has no histories"):
        measure(cell(), replace(memory, events=None), [10])
    with pytest.raises(ValueError, match="d has 1 cuts, counted from 0; there is no cut 1"):
        measure(cell(cut=1), memory, [10])


def test_the_sum_of_items_by_hand() -> None:
    histories = histories_of(ROWS + AHEAD)
    trainer = HistoryTrainer(cell(own="vectors", d_out=8), histories, Budget(6, 6), None)
    model = trainer.fresh(0.0)
    history, static = histories.read(np.array([0, 6]), np.array([6, 8]))
    row, column = torch.tensor([0, 1]), torch.tensor([3, 1])
    table = model.item_table
    expected = torch.stack([(table[0] + 2 * table[1] + table[2]) / 2, (table[4] + table[0]) / 2**0.5])
    with torch.no_grad():
        added = model.read(history, static, row, column) - model.tower(history, static, at="all")[row, column]
        assert torch.allclose(added, expected, atol=1e-6)
    assert model.score(added, slice(None), None).shape == (2, 5)


def test_own_frequency_in_the_scores_by_hand() -> None:
    histories = histories_of(ROWS + AHEAD)
    model = HistoryTrainer(cell(own="counts"), histories, Budget(6, 6), None, half_life=5.0).fresh(0.0)
    share = np.array([3, 4, 3, 2, 2]) / 14  # of nine events, each item once more than it occurred
    own = torch.tensor([[0.0, 2.0, 0.5, 0.0, 0.0]])
    with torch.no_grad():
        model.own.copy_(torch.tensor([0.7, -1.0, 0.3]))  # type: ignore[union-attr]
        model.bias.copy_(torch.arange(5.0))
        found = model.score(torch.zeros(1, 16), slice(None), own)[0]
    expected = np.arange(5) + 0.3 * np.log(share) + 0.7 * np.log(share + math.exp(-1) * own[0].numpy())
    assert found.numpy() == pytest.approx(expected, rel=1e-5)
