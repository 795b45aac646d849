"""The order of columns: importance against scipy and by its mean over all assignments, from training rows alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import chi2_contingency

from bench.data import adapter
from bench.data.dataset import TRAIN, DataSet, Table, interactions
from bench.plan.cell import Cell
from bench.plan.plan import Plan
from bench.plan.tower import encoder_spec, order_of, table_spec, tower_cost
from bench.run.rank_quality import measure
from bench.run.verify import verify
from bench.training.column_order import importance
from bench.training.towers import build, encode

TOWER: dict[str, Any] = {"backend": "numba", "n_tokens": 9, "batch_size": 2, "n_layers": 2, "d_model": 16}


def quality(**settings: Any) -> Cell:
    usual: dict[str, Any] = {
        "task": "rank_quality", "dataset": "x", "mixer": "mamba", "backend": "numba", "loss": "softmax", "n_layers": 1,
        "d_model": 16, "batch_size": 32, "steps": 4, "learning_rates": (0.003,), "features": "attributes",
    }  # fmt: skip
    return Cell(**{**usual, **settings})


def test_importance_is_pearson_s_statistic_over_its_mean() -> None:
    random = np.random.default_rng(0)
    groups, others = random.integers(0, 4, 300), random.integers(0, 7, 300)
    groups[others == 3] = 2
    found = chi2_contingency(pd.crosstab(groups, others), correction=False)
    assert importance(groups, others) == pytest.approx(found.statistic / (found.dof * 300 / 299), rel=1e-12)
    assert importance(np.zeros(300, np.int64), others) == 0


def test_importance_is_1_on_average_where_nothing_is_told() -> None:
    """However thin the pairs are spread: over all assignments of three groups to seven pairs."""
    others = np.array([0, 0, 1, 2, 3, 4, 4])
    each = [importance(np.array(groups), others) for groups in set(itertools.permutations([0, 0, 0, 1, 1, 2, 2]))]
    assert np.mean(each) == pytest.approx(1, rel=1e-12)


def tables() -> DataSet:
    """Town and, less, age decide what is liked; the test rows say the opposite. Luck says nothing."""
    random = np.random.default_rng(0)
    town, age, luck = random.integers(0, 2, 400), random.integers(0, 2, 400), random.normal(size=400)
    user, test = np.arange(400), np.arange(400) % 4 == 3
    item = np.where(random.random(400) < 0.7, town, age)
    item = np.where(test, 2 + (luck > 0), item)
    frame = pd.DataFrame({"id": user, "luck": luck, "town": town.astype(str), "age": age.astype(float)})
    users = Table(frame=frame, key="id", numeric=("age", "luck"), categorical=("town",))
    items = Table(frame=pd.DataFrame({"id": range(4), "x": np.arange(4.0)}), key="id", numeric=("x",))
    rows = interactions(user, item, user, True, np.where(test, 2, TRAIN).astype(np.int8))
    return DataSet(name="towns", users=users, items=items, interactions=rows)


def test_the_most_important_column_stands_last_and_test_rows_decide_nothing() -> None:
    encoder = encode(quality(column_order="by_importance"), tables()).user_encoder
    assert encoder.names == ("luck", "age", "town")
    assert encode(quality(), tables()).user_encoder.names == ("age", "luck", "town")
    assert encode(quality(column_order="reversed"), tables()).user_encoder.names == ("town", "luck", "age")


def test_orders_that_no_data_decide() -> None:
    assert order_of("table", 3) == ()
    assert order_of("reversed", 3) == (2, 1, 0)
    first, again, other = (order_of(f"random:{seed}", 50) for seed in (0, 0, 1))
    assert first == again != other
    assert sorted(first) == sorted(other) == [*range(50)]
    for text in ("random", "random:", "random:-1", "sorted", "random:1e3"):
        with pytest.raises(ValueError, match="choose from table, reversed, random:SEED, by_importance"):
            order_of(text, 3)


@pytest.mark.parametrize("readout", ["cls_last", "cls_first", "mean", "last_token", "attention_pooling"])
def test_a_readout_reaches_timed_steps_and_trained_models(readout: str) -> None:
    mixer = {"mixer": "attention", "backend": "sdpa", "tower_readout": readout}
    timed = Cell(task="forward", **{**TOWER, **mixer})
    spec = encoder_spec(timed)
    assert spec.readout == (readout if not readout.startswith("cls") else "cls")
    assert spec.cls_position == ("first" if readout == "cls_first" else "last")
    assert verify(timed).startswith("off the float64 reference by")
    model = build(quality(**mixer), encode(quality(**mixer), tables()))
    assert model.user.spec.readout == spec.readout


@pytest.mark.parametrize(
    ("change", "extra"),
    [
        ({"tower_readout": "mean"}, -16),  # no [CLS]
        ({"tower_readout": "attention_pooling"}, 0),  # a query in its place
        ({"numeric_tokens": "periodic"}, 4 * (95 * 16 + 48)),
        ({"numeric_tokens": "piecewise_linear"}, 4 * 47 * 16),
        ({"column_order": "random:3"}, 0),
    ],
    ids=str,
)
def test_the_cost_of_a_timed_cell_follows(change: dict[str, str], extra: int) -> None:
    plain = Cell(task="train_step", mixer="mamba", **TOWER)
    costs = [tower_cost(each) for each in (plain, plain.but(**change))]
    assert costs[0] is not None
    assert costs[1] is not None
    assert costs[1].params - costs[0].params == extra
    assert plain.but(**change).id != plain.id
    assert verify(plain.but(**change)).startswith("off the float64 reference by")


def test_a_synthetic_table_has_bins_of_normal_numbers() -> None:
    spec = table_spec(Cell(task="forward", mixer="mamba", **{**TOWER, "numeric_tokens": "piecewise_linear"}))
    edges = torch.tensor(spec.bins[0])
    below = (torch.randn(100_000, generator=torch.Generator().manual_seed(0))[:, None] < edges).double().mean(0)
    torch.testing.assert_close(below, (torch.arange(49.0) + 0.5).double() / 49, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tower_readout": "cls_first"}, r"mamba is causal: a \[CLS\] that stands first sees no feature"),
        ({"column_order": "by_importance"}, "takes training rows, and a timed step has none"),
        ({"column_order": "random"}, "unknown value 'random' for column_order"),
        ({"tower_readout": "max"}, "unknown value 'max' for tower_readout"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_one_line(settings: dict[str, str], words: str) -> None:
    from bench.plan import presets

    with pytest.raises(ValueError, match=words) as caught:
        Plan({**presets.load("smoke"), "mixers": ["mamba"], "device": "cpu", **settings}).cells()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"numeric_tokens": "periodic"}, {"numeric_tokens": "piecewise_linear"}, {"column_order": "by_importance"},
     {"tower_readout": "mean", "column_order": "random:1"}],
    ids=str,
)  # fmt: skip
def test_every_factor_trains(change: dict[str, str]) -> None:
    data = adapter("synthetic:users=60:items=20:columns=4:pairs=10").load(Path())
    found, _, cost = measure(quality(features="ids", id_dropout=0.2, **change), data, [10])
    assert 0 <= found.per_user["ndcg@10"].mean() <= 1
    plain = measure(quality(features="ids", id_dropout=0.2), data, [10])[2]
    same = change.get("tower_readout") is None and "numeric_tokens" not in change
    assert (cost.values["params"] == plain.values["params"]) is same
