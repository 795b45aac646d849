"""Tokens of numbers against rtdl_num_embeddings with the same weights, and against what their paper says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from ftmamba import EncoderSpec, FeatureBatch, FeatureSpec, FTEncoder, MambaSpec, TableEncoder, load, save
from ftmamba.cost import encoder_cost, encoder_params
from ftmamba.tokenizer import FeatureTokenizer

D_MODEL = 6
BINS = ((-2.0, -0.5, 0.25, 3.0), (0.0, 1.0), (-1.0, 4.0, 5.0))  # of one bin too


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def numbers() -> Tensor:
    """Within all bins, on their edges and beyond both ends."""
    edges = torch.tensor([-9.0, -2.0, -1.0, -0.5, 0.0, 0.25, 1.0, 3.0, 4.0, 4.5, 5.0, 9.0])
    return torch.cat([edges, torch.randn(20, generator=torch.Generator().manual_seed(0))]).unsqueeze(1).expand(-1, 3)


def tokens(tokenizer: FeatureTokenizer, x: Tensor) -> Tensor:
    return tokenizer(FeatureBatch(x, torch.empty(len(x), 0, dtype=torch.int64)))


def equal_weights(theirs: Any, tokenizer: FeatureTokenizer, weight: Tensor) -> None:
    """Both with the same random weights; ``weight`` is theirs in the layout of ours."""
    with torch.no_grad():
        tokenizer.numeric_weight.copy_(weight)
        tokenizer.numeric_bias.copy_(theirs.linear.bias)


def test_periodic_tokens_equal_rtdl_s() -> None:
    rtdl = pytest.importorskip("rtdl_num_embeddings")
    torch.manual_seed(0)
    theirs = rtdl.PeriodicEmbeddings(3, D_MODEL, frequency_init_scale=1.0, lite=False)
    tokenizer = FeatureTokenizer(FeatureSpec(3), D_MODEL, None, "periodic")
    equal_weights(theirs, tokenizer, theirs.linear.weight)
    with torch.no_grad():
        tokenizer.numeric_frequency.copy_(theirs.periodic.weight)
    torch.testing.assert_close(tokens(tokenizer, numbers()), theirs(numbers()), rtol=1e-10, atol=1e-10)


def test_piecewise_linear_tokens_equal_rtdl_s() -> None:
    """Theirs keep a column's last bin in the last place; what lies between is never read."""
    rtdl = pytest.importorskip("rtdl_num_embeddings")
    torch.manual_seed(0)
    theirs = rtdl.PiecewiseLinearEmbeddings(
        [torch.tensor(each) for each in BINS], D_MODEL, activation=True, version="A"
    )
    weight = torch.randn_like(theirs.linear.weight)
    for j, edges in enumerate(BINS):
        n = len(edges) - 1
        weight[j, :n] = theirs.linear.weight[j, [*range(n - 1), -1]]
    tokenizer = FeatureTokenizer(FeatureSpec(3, bins=BINS), D_MODEL, None, "piecewise_linear")
    equal_weights(theirs, tokenizer, weight)
    torch.testing.assert_close(tokens(tokenizer, numbers()), theirs(numbers()), rtol=1e-10, atol=1e-10)


def test_bins_are_rtdl_s_quantiles_of_the_training_rows() -> None:
    rtdl = pytest.importorskip("rtdl_num_embeddings")
    random = np.random.default_rng(0)
    frame = pd.DataFrame({"a": random.normal(size=200), "few": random.integers(0, 5, 200).astype(float)})
    encoder = TableEncoder.fit(frame, numeric=["a", "few"], n_bins=12)
    scaled = np.column_stack([column.transform(frame[column.name])[0] for column in encoder.numeric])
    for ours, theirs in zip(encoder.features.bins, rtdl.compute_bins(torch.from_numpy(scaled), 12), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-10, atol=1e-10)


def test_a_piecewise_linear_number_by_hand() -> None:
    """0.25 lies at the end of the second of three bins: 1, 1, 0. -1.25 is in the middle of the first: 0.5, 0, 0."""
    tokenizer = FeatureTokenizer(FeatureSpec(1, bins=BINS[:1]), 3, None, "piecewise_linear")
    with torch.no_grad():
        tokenizer.numeric_weight.copy_(torch.eye(3).unsqueeze(0))
        tokenizer.numeric_bias.zero_()
    found = tokens(tokenizer, torch.tensor([[0.25], [-1.25], [-5.0], [5.75]]))[:, 0]
    assert found.tolist() == [[1, 1, 0], [0.5, 0, 0], [0, 0, 0], [1, 1, 2]]  # -5 is -2 before the ReLU


def test_what_cannot_be_binned_has_one_bin() -> None:
    frame = pd.DataFrame({"same": [3.0, 3.0, 3.0], "gaps": [1.0, None, 2.0]})
    encoder = TableEncoder.fit(frame, numeric=["same", "gaps"], n_bins=4)
    same, gaps, missing = encoder.features.bins
    assert same == missing == (0.0, 1.0)
    assert (gaps[0], gaps[-1]) == pytest.approx((-1.0, 1.0))
    assert TableEncoder.fit(frame, numeric=["same", "gaps"]).features.bins == ()


@pytest.mark.parametrize("kind", ["periodic", "piecewise_linear"])
def test_cost_and_file_follow(kind: Any, tmp_path: Any) -> None:
    features = FeatureSpec(3, (4,), bins=BINS, order=(3, 0, 2, 1))
    spec = EncoderSpec(mixer=MambaSpec(), d_model=16, n_layers=1, numeric_tokens=kind)
    tower = FTEncoder(spec, features)
    assert encoder_params(spec, features) == sum(each.numel() for each in tower.parameters())
    linear = EncoderSpec(mixer=MambaSpec(), d_model=16, n_layers=1)
    costs = [encoder_cost(each, features, 1, "forward") for each in (spec, linear)]
    assert costs[0] is not None
    assert costs[1] is not None
    width, extra = {"periodic": (96, 3 * 48), "piecewise_linear": (3, 2 * 3)}[kind]
    assert costs[0].flops - costs[1].flops == 3 * (2 * (width - 1) * 16 + extra)
    save(tmp_path / "tower.safetensors", tower)
    again, _ = load(tmp_path / "tower.safetensors")
    batch = FeatureBatch(numbers()[:4], torch.tensor([[0], [1], [2], [3]]))
    assert torch.equal(again(batch), tower.eval()(batch))


@pytest.mark.parametrize(
    ("features", "words"),
    [
        ({"bins": ((0.0, 1.0),)}, "of each of the 2 numeric columns"),
        ({"bins": ((0.0, 1.0), (1.0, 1.0))}, "rising edges"),
        ({"order": (0, 0, 1)}, "each of the 3 columns once"),
        ({"order": (0, 1)}, "each of the 3 columns once"),
    ],
)
def test_bins_and_orders_that_are_not_the_columns_are_refused(features: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FeatureSpec(2, (5,), **features)


def test_tokens_without_the_bins_they_need_are_refused() -> None:
    with pytest.raises(ValueError, match="which are not given"):
        FeatureTokenizer(FeatureSpec(2), 8, "last", "piecewise_linear")
