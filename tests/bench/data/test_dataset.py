"""The contract of a data set, and the rules that split it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.dataset import (
    TEST,
    TRAIN,
    VALIDATION,
    DataSet,
    Table,
    interactions,
    split_by_group,
    split_by_time,
    split_within_user,
)
from bench.data.files import DataError


def table(n: int, key: str) -> Table:
    return Table(frame=pd.DataFrame({key: range(n), "x": np.arange(n) * 1.0}), key=key, numeric=("x",))


def rows(*pairs: tuple[int, int, float, int]) -> pd.DataFrame:
    user, item, label, split = (np.array(column) for column in zip(*pairs, strict=True))
    return interactions(user, item, np.arange(len(user)), label.astype(np.float32), split.astype(np.int8))


def test_positives_and_pairs() -> None:
    data = DataSet(
        name="d", users=table(3, "u"), items=table(4, "i"),
        interactions=rows((0, 1, 1, TRAIN), (0, 2, 0, TRAIN), (1, 1, 1, VALIDATION), (2, 3, 1, TEST)),
    )  # fmt: skip
    assert [part.tolist() for part in data.positives(TRAIN)] == [[0], [1]]
    assert [part.tolist() for part in data.positives(TRAIN, VALIDATION)] == [[0, 1], [1, 1]]
    assert [part.tolist() for part in data.pairs(TRAIN)] == [[0, 0], [1, 2], [1.0, 0.0]]
    assert [part.tolist() for part in data.training_rows()] == [[0], [1, 2]]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"interactions": rows((0, 9, 1, TRAIN))}, "points outside of the item table"),
        ({"interactions": rows((-1, 0, 1, TRAIN))}, "points outside of the user table"),
        ({"interactions": rows((0, 1, 1, TRAIN), (0, 1, 0, TEST))}, "has two interactions"),
        ({"interactions": rows((0, 1, 0, TRAIN), (0, 2, 1, TEST))}, "no positive interaction in the training split"),
        ({"users": Table(frame=pd.DataFrame({"u": [1, 1]}), key="u")}, "user table repeats a u"),
        ({"items": Table(frame=pd.DataFrame({"i": []}), key="i")}, "item table is empty"),
    ],
)
def test_what_is_no_data_set(change: dict[str, object], expected: str) -> None:
    parts = {"users": table(3, "u"), "items": table(4, "i"), "interactions": rows((0, 1, 1, TRAIN)), **change}
    with pytest.raises(DataError, match=expected):
        DataSet(name="d", **parts)  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=200), st.integers(0, 50))
def test_time_split_never_mixes_moments(times: list[int], until: int) -> None:
    time = np.array(times)
    split = split_by_time(time, until)
    for earlier, later in ((TRAIN, VALIDATION), (VALIDATION, TEST), (TRAIN, TEST)):
        if (split == earlier).any() and (split == later).any():
            assert time[split == earlier].max() < time[split == later].min()
    assert ((split == TEST) == (time > until)).all()


def test_time_split_shares() -> None:
    split = split_by_time(np.arange(1000), 799, validation_share=0.1)
    assert [int((split == part).sum()) for part in (TRAIN, VALIDATION, TEST)] == [720, 80, 200]


@pytest.mark.parametrize("rule", [split_by_group, split_within_user])
def test_seeded_splits_are_the_same_again(rule: Callable[..., np.ndarray]) -> None:
    users = np.random.default_rng(0).integers(0, 40, 600)
    assert (rule(users, (0.1, 0.2)) == rule(users, (0.1, 0.2))).all()
    assert (rule(users, (0.1, 0.2), seed=1) != rule(users, (0.1, 0.2))).any()


def test_group_split_keeps_groups_whole() -> None:
    users = np.random.default_rng(0).integers(0, 50, 600)
    split = split_by_group(users, (0.1, 0.2))
    assert all(len(set(split[users == user])) == 1 for user in np.unique(users))
    sides = {user: split[users == user][0] for user in np.unique(users)}
    assert [list(sides.values()).count(part) for part in (TRAIN, VALIDATION, TEST)] == [35, 5, 10]


def test_split_within_user_holds_out_a_share_of_each() -> None:
    users = np.repeat(np.arange(30), np.r_[np.full(29, 20), 3])
    split = split_within_user(users, (0.1, 0.2))
    for user in range(29):
        own = split[users == user]
        assert [int((own == part).sum()) for part in (TRAIN, VALIDATION, TEST)] == [14, 2, 4]
    assert (split[users == 29] == TRAIN).all()  # three rows are too few for a tenth or a fifth
