"""What a tower's head gets, and in which order columns become tokens."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from ftmamba import AttentionSpec, EncoderSpec, FeatureSpec, FTEncoder, HistoryEncoder, MambaSpec, TableEncoder
from ftmamba.cost import encoder_cost, encoder_params
from ftmamba.features import FeatureBatch, random_batch
from ftmamba.spec import EventSpec

FEATURES = FeatureSpec(3, (4, 7))
READOUTS = ["cls", "mean", "last_token", "attention_pooling"]
MIXERS = [MambaSpec(backend="reference"), AttentionSpec(n_heads=2, backend="reference")]


def tower_of(mixer: Any, readout: Any, features: FeatureSpec = FEATURES, **options: Any) -> FTEncoder:
    torch.manual_seed(0)
    spec = EncoderSpec(mixer=mixer, d_model=16, n_layers=2, readout=readout, **options)
    return FTEncoder(spec, features).double()


def rows(n: int = 4) -> FeatureBatch:
    return random_batch(FEATURES, n, torch.Generator().manual_seed(1)).to("cpu", torch.float64)


def by_hand(tower: FTEncoder, batch: FeatureBatch) -> Tensor:
    """The tokens of the last block, and what a reader of the docstring would do with them."""
    x = tower.tokenizer(batch)
    for block in tower.blocks:
        x = block(x)
    if tower.spec.readout == "mean":
        return tower.head(sum(x[:, i] for i in range(x.shape[1])) / x.shape[1])  # type: ignore[no-any-return]
    if tower.spec.readout == "attention_pooling":
        odds = torch.exp(torch.einsum("nld,d->nl", x, tower.query) / 4)  # 4 is the root of d_model
        return tower.head(torch.einsum("nl,nld->nd", odds / odds.sum(1, keepdim=True), x))  # type: ignore[no-any-return]
    return tower.head(x[:, -1])  # type: ignore[no-any-return]


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.name)
@pytest.mark.parametrize("last_layer", ["readout", "full"])
@pytest.mark.parametrize("readout", READOUTS)
def test_a_readout_by_hand(readout: str, last_layer: str, mixer: Any) -> None:
    tower = tower_of(mixer, readout, last_layer=last_layer)
    if readout == "attention_pooling":
        torch.nn.init.normal_(tower.query)
    assert tower.tokenizer(rows()).shape == (4, 5 + (readout == "cls"), 16)
    torch.testing.assert_close(tower(rows()), by_hand(tower, rows()), rtol=1e-12, atol=1e-12)
    tower(rows()).square().sum().backward()
    for name, each in tower.named_parameters():
        assert each.grad is not None
        assert name.endswith("kv_proj.bias") or each.grad.abs().sum() > 0, name
    assert tower.tokenizer.numeric_bias.grad.abs().sum(1).min() > 0  # it sees every column
    assert tower.tokenizer.categorical_bias.grad.abs().sum(1).min() > 0


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.name)
@pytest.mark.parametrize("readout", READOUTS)
def test_a_readout_s_cost(readout: Any, mixer: Any) -> None:
    tower = tower_of(mixer, readout)
    assert encoder_params(tower.spec, FEATURES) == sum(each.numel() for each in tower.parameters())
    if readout != "cls":  # which has one more token
        full = (replace(tower.spec, readout=each, last_layer="full") for each in (readout, "last_token"))
        flops = [cost.flops for spec in full if (cost := encoder_cost(spec, FEATURES, 4, "forward"))]
        extra = {"last_token": 0, "mean": 4 * 5 * 16, "attention_pooling": 4 * 5 * 16 * 4}[readout]
        assert flops[0] - flops[1] == extra


def test_without_a_last_block_in_full_less_is_computed() -> None:
    least, mean = (
        encoder_cost(EncoderSpec(mixer=MambaSpec(), readout=each), FEATURES, 1, "forward") for each in READOUTS[2:0:-1]
    )
    assert least is not None
    assert mean is not None
    assert least.flops < mean.flops


@pytest.mark.parametrize("cls_position", ["first", "last"])
def test_columns_become_tokens_in_their_order(cls_position: Any) -> None:
    order = (4, 0, 3, 1, 2)
    options = {"cls_position": cls_position}
    plain, other = (
        tower_of(MIXERS[1], "cls", features, **options).tokenizer(rows())
        for features in (FEATURES, FeatureSpec(3, (4, 7), order=order))
    )
    first = int(cls_position == "first")
    columns = plain[:, first : 5 + first]
    assert torch.equal(other[:, first : 5 + first], torch.stack([columns[:, place] for place in order], dim=1))
    assert torch.equal(other[:, 0 if first else -1], plain[:, 0 if first else -1])


def test_attention_has_no_order_and_a_causal_mixer_has_one() -> None:
    shuffled = FeatureSpec(3, (4, 7), order=(4, 0, 3, 1, 2))
    same, differs = (
        tuple(tower_of(mixer, "mean", features)(rows()) for features in (FEATURES, shuffled)) for mixer in MIXERS[::-1]
    )
    torch.testing.assert_close(*same, rtol=1e-12, atol=1e-12)
    assert (differs[0] - differs[1]).abs().max() > 1e-3


def test_a_table_s_order_names_its_tokens() -> None:
    frame = pd.DataFrame({"x": [1.0, None, 3.0], "town": ["Ulm", "Rome", "Ulm"]})
    encoder = TableEncoder.fit(frame, numeric=["x"], categorical=["town"])
    turned = TableEncoder(numeric=encoder.numeric, categorical=encoder.categorical, order=(2, 0, 1))
    assert turned.names == ("town", "x", "x missing")
    assert turned.features.order == (2, 0, 1)


def test_what_has_no_cls_cannot_have_it_first() -> None:
    with pytest.raises(ValueError, match=r"no \[CLS\] to stand first"):
        EncoderSpec(mixer=AttentionSpec(), readout="mean", cls_position="first")
    with pytest.raises(ValueError, match="a history is read at"):
        HistoryEncoder(EncoderSpec(mixer=MambaSpec(), readout="mean"), EventSpec(10))
