"""Columns to tensors: fitted on training rows, unseen and missing values told apart, nothing learned from test rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from ftmamba import AttentionSpec, EncoderSpec, FTEncoder, MambaSpec, TableEncoder
from ftmamba.columns import UNSEEN, Scaling
from ftmamba.spec import MixerSpec

FRAME = pd.DataFrame(
    {
        "id": [10, 11, 12, 13],
        "age": [20.0, 40.0, np.nan, 1000.0],
        "pay": [1.0, 3.0, 5.0, 9.0],
        "town": ["a", "b", None, "z"],
    }
)
NUMERIC, CATEGORICAL = ("age", "pay"), ("town", "id")


def test_by_hand() -> None:
    encoder = TableEncoder.fit(FRAME[:3], numeric=NUMERIC, categorical=CATEGORICAL)
    assert encoder.names == ("age", "age missing", "pay", "town", "id")
    assert encoder.features.n_numeric == 3
    assert encoder.features.cardinalities == (4, 4)  # unseen and three values, missing being one; unseen and three ids
    batch = encoder.transform(FRAME)
    deviation = np.std([1.0, 3.0, 5.0])
    expected = [[-1, 0, -2 / deviation], [1, 0, 0], [0, 1, 2 / deviation], [97, 0, 6 / deviation]]
    assert batch.numeric.numpy() == pytest.approx(np.array(expected), abs=1e-6)
    assert batch.categorical.dtype == torch.int64
    town, ids = batch.categorical.T.tolist()
    assert len(set(town[:3])) == 3
    assert UNSEEN not in town[:3]
    assert town[3] == UNSEEN
    assert ids == [1, 2, 3, UNSEEN]


def test_missing_where_training_has_none_is_the_mean() -> None:
    frame = pd.DataFrame({"id": [1, 2, 3], "x": [1.0, 3.0, np.nan]})
    encoder = TableEncoder.fit(frame[:2], numeric=["x"])
    assert encoder.transform(frame).numeric.tolist() == [[-1.0], [1.0], [0.0]]


ROUNDED = [0.1 + 0.2, 0.3, 0.15 + 0.15]  # differ in the last bit alone
COLUMNS = {
    "equal": ([7.0, 7.0, 7.0], 8.0),
    "equal but for rounding": (ROUNDED, 5.0),
    "large and equal but for rounding": ([1e15 * value for value in ROUNDED], -1e16),
    "nearly equal": ([1.0, 1.0, 1.0 + 1e-9], 2.0),
    "missing": ([np.nan, np.nan, np.nan], 3.0),
    "infinite": ([np.inf, -np.inf, np.inf], 3.0),
    "infinite in part": ([1.0, np.inf, 3.0], -np.inf),
    "infinite later": ([1.0, 2.0, 3.0], np.inf),
    "huge": ([1e308, -1e308, 1.7e308], 1.0),
    "large": ([1e149, -1e149, 0.0], 1e308),
    "tiny": ([5e-324, 1e-310, 0.0], 1e300),
    "small": ([1e-100, 2e-100, 3e-100], 1e100),
    "far outlier": ([0.0, 1e140, 1.0], -1e140),
}


@pytest.mark.parametrize("training", [[0], [0, 1], [0, 1, 2]], ids=len)
@pytest.mark.parametrize("scaling", ["standard", "quantile"])
@pytest.mark.parametrize("mixer", [MambaSpec(), AttentionSpec()], ids=lambda mixer: mixer.name)
def test_no_column_can_make_a_score_that_is_no_number(mixer: MixerSpec, scaling: Scaling, training: list[int]) -> None:
    frame = pd.DataFrame({"id": range(4), **{name: [*seen, new] for name, (seen, new) in COLUMNS.items()}})
    encoder = TableEncoder.fit(frame.iloc[training], numeric=list(COLUMNS), scaling=scaling)
    batch = encoder.transform(frame)
    torch.manual_seed(0)
    scores = FTEncoder(EncoderSpec(mixer=mixer, d_model=16, n_layers=2), encoder.features)(batch)
    assert torch.isfinite(scores).all()
    scores.square().sum().backward()


@pytest.mark.parametrize("scaling", ["standard", "quantile"])
@pytest.mark.parametrize("name", ["equal", "equal but for rounding", "large and equal but for rounding"])
def test_a_column_that_does_not_vary_says_nothing(name: str, scaling: Scaling) -> None:
    seen, new = COLUMNS[name]
    assert transformed([*seen, new], scaling) == [[0.0], [0.0], [0.0], [0.0]]


def test_what_is_no_number_to_compute_with_is_missing() -> None:
    assert transformed([1.0, np.inf, 3.0, -np.inf]) == [[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    assert transformed([1.0, 1e200, 3.0, -1e200]) == [[-1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]


def test_a_small_variation_is_one() -> None:
    """1, 1 and 1 + 1e-9: mean 1 + 1e-9 / 3, deviation sqrt(2) / 3 * 1e-9; 2 is beyond all that training rows can be."""
    found = np.array(transformed([1.0, 1.0, 1.0 + 1e-9, 2.0]))[:, 0]
    assert found[:3] == pytest.approx([-(0.5**0.5), -(0.5**0.5), 2**0.5], rel=1e-6)
    assert found[3] == 1000


def transformed(values: list[float], scaling: Scaling = "standard") -> list[list[float]]:
    """All four values, encoded by what the first three teach."""
    frame = pd.DataFrame({"id": range(4), "x": values})
    encoder = TableEncoder.fit(frame[:3], numeric=["x"], scaling=scaling)
    return encoder.transform(frame).numeric.tolist()


def test_quantiles_make_any_distribution_normal() -> None:
    values = np.exp(np.random.default_rng(0).normal(size=5000) * 3)
    frame = pd.DataFrame({"id": range(5000), "x": values})
    encoder = TableEncoder.fit(frame, numeric=["x"], scaling="quantile")
    found = encoder.transform(frame).numeric[:, 0].numpy()
    assert (np.argsort(found, kind="stable") == np.argsort(values, kind="stable")).mean() > 0.99
    assert found.mean() == pytest.approx(0, abs=0.02)
    assert found.std() == pytest.approx(1, abs=0.03)


def test_too_many_values_are_hashed_into_a_set_number_of_rows() -> None:
    frame = pd.DataFrame({"id": range(5000)})
    encoder = TableEncoder.fit(frame, categorical=["id"], max_rows=64)
    (column,) = encoder.categorical
    rows = column.transform(frame["id"])
    assert column.hashed
    assert encoder.features.cardinalities == (64,)
    assert encoder.table_bytes(d_model=8) == 64 * 8 * 4
    assert rows.min() >= 1
    assert rows.max() < 64
    counts = np.bincount(rows, minlength=64)[1:]
    assert counts.min() > 5000 / 63 / 2  # spread over all rows, about 79 in each
    assert (rows == column.transform(frame["id"])).all()


def test_types_do_not_matter_to_categories() -> None:
    """A column read as whole numbers for training and as text later is the same column."""
    frame = pd.DataFrame({"id": [1, 2], "c": [5, 6]})
    encoder = TableEncoder.fit(frame, categorical=["c"])
    assert torch.equal(encoder.transform(frame).categorical, encoder.transform(frame.assign(c=["5", "6"])).categorical)
