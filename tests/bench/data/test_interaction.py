"""Two columns far apart whose product matters: neither says anything alone, and both together most of all there is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.special import logit

from bench.data import adapter
from bench.data.dataset import DataSet
from bench.data.encode import fit
from bench.data.files import DataError

Floats = npt.NDArray[np.float64]


def load(settings: str) -> DataSet:
    return adapter(f"synthetic:{settings}").load(Path())


def explained(column: Floats, tastes: Floats) -> float:
    """Share of the variance of all tastes that a straight line in one column explains."""
    column = (column - column.mean()) / column.std()
    return float(((column @ tastes / len(column)) ** 2).sum() / (tastes**2).mean(0).sum())


@pytest.mark.parametrize(("columns", "distance"), [(12, 9), (12, 2), (301, 200), (2, 1)])
def test_only_the_product_of_two_columns_at_the_distance_tells(columns: int, distance: int) -> None:
    data = load(f"users=2000:items=50:columns={columns}:pairs=1:interaction={distance}")
    assert data.truth is not None
    tastes = logit(data.truth(np.arange(2000), slice(0, 50)))
    tastes -= tastes.mean(0)
    frame = data.users.frame
    signs = {name: np.where(frame[name].isin([1, "g1"]), 1.0, -1.0) for name in frame if frame[name].nunique() == 2}
    assert len(signs) == 2
    first, second = signs.values()
    assert explained(first * second, tastes) == pytest.approx(
        0.9, abs=0.05
    )  # three times as far, nine times the variance
    chance = 15 / 2000  # of one straight line through 2,000 users, many times over
    assert explained(first, tastes) < chance
    assert explained(second, tastes) < chance
    names = fit(data.users, np.arange(2000), ids=False).names
    places = [names.index(name) for name in signs]
    assert abs(places[1] - places[0]) == distance
    assert abs(places[0] - (columns - 1 - places[1])) <= 1  # in the middle of the row


def test_each_of_the_two_can_tell_by_itself_as_well() -> None:
    data = load("users=2000:items=400:columns=12:pairs=1:interaction=9:alone=3")
    assert data.truth is not None
    tastes = logit(data.truth(np.arange(2000), slice(0, 400)))
    tastes -= tastes.mean(0)
    frame = data.users.frame
    first, second = (np.where(frame[name].isin([1, "g1"]), 1.0, -1.0) for name in frame if frame[name].nunique() == 2)
    whole = 6**2 + 2 * 3**2 + 4  # variance of the product, of both, and of all other columns
    assert explained(first * second, tastes) == pytest.approx(36 / whole, abs=0.06)
    assert explained(first, tastes) == pytest.approx(9 / whole, abs=0.04)
    assert explained(second, tastes) == pytest.approx(9 / whole, abs=0.04)


def test_no_other_column_tells_of_it() -> None:
    data = load("users=2000:items=50:columns=40:pairs=1:interaction=30")
    frame = data.users.frame
    two = [name for name in frame if frame[name].nunique() == 2]
    product = np.prod([np.where(frame[name].isin([1, "g1"]), 1.0, -1.0) for name in two], axis=0)
    for name in data.users.numeric:
        assert abs(np.corrcoef(product, frame[name])[0, 1]) < 5 / 2000**0.5


def test_without_it_the_data_are_what_they_were() -> None:
    plain, none = (load(f"users=30:items=20:columns=9:pairs=7{text}") for text in ("", ":interaction=0"))
    pd.testing.assert_frame_equal(plain.users.frame, none.users.frame)
    pd.testing.assert_frame_equal(plain.interactions, none.interactions)
    assert all(plain.users.frame[name].nunique() > 2 for name in plain.users.frame)


def test_columns_farther_apart_than_there_are_are_refused() -> None:
    with pytest.raises(DataError, match="no two of 16 columns 16 tokens apart"):
        adapter("synthetic:interaction=16")
