"""Answers drawn from a planted truth: who meets what, how often it is liked, and what the truth says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bench.data.dataset import DataSet, Table
from bench.data.simulated import draw

TASTE, CONTENT = np.array([[1.0, 0.0], [0.0, -2.0]]), np.array([[2.0, 1.0], [-1.0, 0.5], [0.0, 0.0]])
LEANING, STANDING = np.array([0.5, -0.5]), np.array([0.0, 1.0, -1.0])


def drawn(n_users: int, each: int, seed: int = 0) -> DataSet:
    """Users of the two tastes above in turn."""
    kinds = np.arange(n_users) % 2
    return draw(
        np.random.default_rng(seed), (TASTE[kinds], CONTENT), (LEANING[kinds], STANDING), each=each, moments=7,
        moment_s=60, name="toy", users=Table(frame=pd.DataFrame({"user": np.arange(n_users)}), key="user"),
        items=Table(frame=pd.DataFrame({"item": range(3)}), key="item"),
    )  # fmt: skip


def chance(user: int, item: int) -> float:
    """By hand: the sigmoid of the inner product and both biases."""
    odds = sum(a * b for a, b in zip(TASTE[user % 2], CONTENT[item], strict=True)) + LEANING[user % 2] + STANDING[item]
    return float(1 / (1 + np.exp(-odds)))


def test_the_truth_is_the_probability_of_every_pair() -> None:
    truth = drawn(4, 3).truth
    assert truth is not None
    expected = [[chance(user, item) for item in (1, 2)] for user in (3, 0)]
    np.testing.assert_allclose(truth(np.array([3, 0]), slice(1, 3)), expected, rtol=1e-12)


def test_labels_come_as_often_as_the_truth_says() -> None:
    rows = drawn(8000, 3).interactions
    for kind in (0, 1):
        for item in range(3):
            liked = rows["label"][(rows["user"] % 2 == kind) & (rows["item"] == item)]
            assert len(liked) == 4000
            assert liked.mean() == pytest.approx(chance(kind, item), abs=4 * 0.5 / 4000**0.5)


@pytest.mark.parametrize(("each", "met"), [(2, 2), (5, 3)])
def test_every_user_meets_so_many_items_and_none_twice(each: int, met: int) -> None:
    rows = drawn(200, each).interactions
    assert (rows.groupby("user")["item"].nunique() == met).all()
    assert len(rows) == 200 * met
    assert set(rows["time"]) == {60 * moment for moment in range(7)}


def test_one_seed_gives_one_data_set() -> None:
    pd.testing.assert_frame_equal(drawn(50, 2).interactions, drawn(50, 2).interactions)
    assert not drawn(50, 2).interactions.equals(drawn(50, 2, seed=1).interactions)
