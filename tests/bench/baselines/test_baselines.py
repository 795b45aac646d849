"""Baselines against independent dense computations of their formulas, and what they may not look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from bench.baselines import BASELINES, ease, itemknn
from bench.baselines.ials import solve
from bench.baselines.known import liked
from bench.data import adapter
from bench.data.dataset import TEST, TRAIN, VALIDATION, DataSet, Table, interactions
from bench.plan.cell import Cell
from bench.run.rank_quality import fit_baseline
from bench.training.evaluate import HeldOut, ndcg_at_10

DAY = 86_400
FITTED = [name for name, baseline in BASELINES.items() if not baseline.trained]


def data_set(rows: list[tuple[int, int, float, float, int]], n_users: int, n_items: int) -> DataSet:
    """From user, item, days, label and split."""
    user, item, days, label, split = (np.array(part) for part in zip(*rows, strict=True))
    return DataSet(
        name="toy",
        users=Table(frame=pd.DataFrame({"u": range(n_users)}), key="u"),
        items=Table(frame=pd.DataFrame({"i": range(n_items)}), key="i"),
        interactions=interactions(user, item, days * DAY, label, split.astype(np.int8)),
    )


@pytest.fixture(name="data", scope="module")
def _data() -> DataSet:
    """Twelve users and nine items at random; user 11 liked nothing in training."""
    random = np.random.default_rng(0)
    rows = [
        (user, item, float(random.integers(100)), 1.0, TRAIN)
        for user in range(11) for item in random.choice(9, random.integers(1, 6), replace=False)
    ]  # fmt: skip
    return data_set([*rows, (11, 3, 101.0, 1.0, TEST)], 12, 9)


@pytest.fixture(name="simulated", scope="module")
def _simulated() -> DataSet:
    return adapter("synthetic:users=200:items=60:columns=4:pairs=40").load(Path())


def scores(name: str, data: DataSet, users: list[int], seed: int = 0, **settings: float) -> np.ndarray:
    """Of all items, put together from two blocks of them."""
    score = BASELINES[name].fit(data, seed, **settings)(np.array(users))
    half, block = data.items.n_rows // 2, slice(0, len(users))
    return torch.cat([score(block, slice(0, half)), score(block, slice(half, data.items.n_rows))], 1).numpy()


def test_popularity_and_its_half_life_by_hand() -> None:
    """Item 0 has three likes, 1 has two of today, 2 has one; with a half-life of a day, 1 day ago is half of today."""
    rows = [(0, 0, 7, 1, TRAIN), (1, 0, 8, 1, TRAIN), (2, 0, 9, 1, TRAIN), (0, 1, 10, 1, TRAIN), (1, 1, 10, 1, TRAIN),
            (3, 2, 10, 1, TRAIN), (2, 3, 10, 0, TRAIN), (3, 3, 11, 1, TEST)]  # fmt: skip
    data = data_set(rows, 4, 4)
    assert np.argsort(-scores("popularity", data, [0])[0]).tolist() == [0, 1, 2, 3]
    # With a half-life of one day the weights are 1/8 + 1/4 + 1/2, 2 and 1; with 100 days nearly 3, 2 and 1.
    assert np.argsort(-scores("recent-popularity", data, [0], half_life_days=1)[0]).tolist() == [1, 2, 0, 3]
    assert np.argsort(-scores("recent-popularity", data, [0], half_life_days=100)[0]).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("neighbours", "shrinkage"), [(3, 0), (2, 10), (100, 2.5)])
def test_itemknn_is_recboles(monkeypatch: pytest.MonkeyPatch, neighbours: int, shrinkage: float) -> None:
    """With enough users that no two similarities are equal, as of equal ones either may be the neighbour."""
    monkeypatch.setattr(itemknn, "BLOCK", 4)
    drawn = np.argwhere(np.random.default_rng(0).random((400, 9)) < np.linspace(0.1, 0.5, 9))
    data = data_set([(user, item, 0.0, 1.0, TRAIN) for user, item in drawn], 400, 9)
    known = liked(data).toarray().astype(np.float64)
    weights = np.zeros((9, 9))
    for j in range(9):
        for i in range(9):
            both, lengths = sum(known[:, i] * known[:, j]), (sum(known[:, i]) * sum(known[:, j])) ** 0.5
            weights[i, j] = 0 if i == j else both / (lengths + shrinkage + 1e-6)
        assert len(set(weights[:, j])) == 9
        for i in sorted(range(9), key=lambda i: -weights[i, j])[neighbours:]:
            weights[i, j] = 0
    met = np.flatnonzero(known.sum(axis=1))
    found = scores("itemknn", data, met.tolist(), neighbours=neighbours, shrinkage=shrinkage)
    assert found == pytest.approx(known[met] @ weights, rel=1e-5)


def test_ease_is_a_ridge_regression_of_each_item_on_the_others(data: DataSet) -> None:
    known, weights = liked(data).toarray().astype(np.float64), np.zeros((9, 9))
    for j in range(9):
        others = [i for i in range(9) if i != j]
        left = known[:, others]
        weights[others, j] = np.linalg.solve(left.T @ left + 3.0 * np.eye(8), left.T @ known[:, j])
    assert scores("ease", data, list(range(11)), penalty=3.0) == pytest.approx(known[:11] @ weights, abs=1e-6)


def test_ials_solves_the_normal_equations_of_every_user(data: DataSet) -> None:
    known, fixed = liked(data), np.random.default_rng(1).standard_normal((9, 4)).astype(np.float32)
    found, likes, wide = solve(known, fixed, 0.3, 0.05), known.toarray(), fixed.astype(np.float64)
    for user in range(12):
        left = wide.T @ np.diag(likes[user] + 0.3) @ wide + 0.05 * np.eye(4)
        assert found[user] == pytest.approx(np.linalg.solve(left, wide.T @ likes[user]), rel=1e-4, abs=1e-5)


def test_ials_ends_where_its_loss_is_flat_along_the_items(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors of the last sweep, caught on their way, against the gradient of the whole loss."""
    caught = {}

    def catch(likes, fixed, unobserved, penalty):  # type: ignore[no-untyped-def]
        caught[likes.shape] = solve(likes, fixed, unobserved, penalty)
        return caught[likes.shape]

    monkeypatch.setattr("bench.baselines.ials.solve", catch)
    score = scores("ials", data, list(range(11)), width=3, unobserved=0.2, penalty=0.1)
    users, items = (torch.tensor(caught[shape], dtype=torch.float64) for shape in ((12, 9), (9, 12)))
    assert score == pytest.approx((users[:11] @ items.T).numpy(), abs=1e-5)
    likes = torch.tensor(liked(data).toarray(), dtype=torch.float64)
    items.requires_grad_()
    predicted = users @ items.T
    loss = (likes * (predicted - 1) ** 2).sum() + 0.2 * (predicted**2).sum() + 0.1 * (items**2).sum()
    loss.backward()
    assert float(items.grad.abs().max()) < 1e-4


@pytest.mark.parametrize("name", [name for name in FITTED if BASELINES[name].collaborative])
def test_who_liked_nothing_gets_what_is_popular(data: DataSet, name: str) -> None:
    first = {setting: values[0] for setting, values in BASELINES[name].grid.items()}
    own, popular = scores(name, data, [11, 0], **first), scores("popularity", data, [11, 0])
    assert (own[0] == popular[0]).all()
    assert np.argsort(-own[1]).tolist() != np.argsort(-popular[1]).tolist()


def test_ease_refuses_a_catalogue_that_no_matrix_holds(data: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "MOST_ITEMS", 8)
    with pytest.raises(MemoryError, match="9 are too many"):
        BASELINES["ease"].fit(data, 0, penalty=1.0)


def cell(name: str, **settings: object) -> Cell:
    return Cell(task="rank_quality", dataset="toy", baseline=name, **settings)


def flipped(data: DataSet, split: int) -> DataSet:
    """With the labels of a split turned round."""
    rows = data.interactions
    label = rows["label"].where(rows["split"] != split, 1 - rows["label"])
    return replace(data, interactions=rows.assign(label=label))


@pytest.mark.parametrize("name", [name for name in FITTED if BASELINES[name].grid])
def test_validation_chooses_and_the_last_fit_knows_it_but_never_the_test(simulated: DataSet, name: str) -> None:
    test = HeldOut.of(simulated, TEST)
    everyone, everything = slice(0, len(test.users)), slice(0, 60)
    score, samples, reading = fit_baseline(cell(name), simulated, test)
    chosen = {setting: reading.values[setting] for setting in BASELINES[name].grid}
    grid = samples["grid_validation_ndcg@10"]
    assert len(grid) == np.prod([len(values) for values in BASELINES[name].grid.values()])
    assert reading.values["validation_ndcg@10"] == max(grid)
    assert chosen == {setting: samples[f"grid_{setting}"][grid.index(max(grid))] for setting in chosen}
    validation = HeldOut.of(simulated, VALIDATION)
    assert max(grid) == ndcg_at_10(validation, BASELINES[name].fit(simulated, 0, **chosen)(validation.users))

    again = fit_baseline(cell(name, refit=True), simulated, test)[0](everyone, everything)
    assert not torch.equal(again, score(everyone, everything))
    known = replace(simulated, interactions=simulated.interactions.query(f"split != {TEST}"))
    known = replace(known, interactions=known.interactions.assign(split=np.int8(TRAIN)))
    assert torch.equal(again, BASELINES[name].fit(known, 0, **chosen)(test.users)(everyone, everything))
    leaky = fit_baseline(cell(name, refit=True), flipped(simulated, TEST), test)[0](everyone, everything)
    assert torch.equal(again, leaky)


def test_where_nothing_can_be_chosen_the_first_settings_are_taken(simulated: DataSet) -> None:
    _, samples, reading = fit_baseline(cell("ease", protocol="paper"), simulated, HeldOut.of(simulated, TEST))
    assert samples == {}
    assert reading.values["penalty"] == BASELINES["ease"].grid["penalty"][0]


def test_what_was_seen_is_left_out_of_the_lists(simulated: DataSet) -> None:
    """Pairs that were met before and not liked are candidates by default, and none with ``leave_out`` seen."""
    by_default, strict = (HeldOut.of(simulated, TEST, leave_out=each) for each in ("liked", "seen"))
    rows = simulated.interactions[simulated.interactions["split"] != TEST]
    keys = (rows["user"] * 60 + rows["item"]).to_numpy()
    assert set(strict.exclude.keys) == set(keys)
    assert set(by_default.exclude.keys) == set(keys[rows["label"] > 0])
    assert not set(strict.exclude.keys) & set(strict.liked.keys)
