"""Each weight learns at its rate: AdamW's first step is the rate, whatever the gradient's size, and the decay."""

from __future__ import annotations

import pytest
import torch

from ftmamba import AttentionSpec, EncoderSpec, FeatureSpec, FTEncoder, MambaSpec, TwoTower, parameter_groups


def test_lookup_tables_learn_three_times_as_fast() -> None:
    towers = (
        FTEncoder(EncoderSpec(mixer=mixer, n_layers=1), FeatureSpec(2, (3,)))
        for mixer in (MambaSpec(), AttentionSpec())
    )
    model = TwoTower(*towers).double()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.01))
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    for each in model.parameters():
        each.grad = torch.full_like(each, 7.0)
    optimizer.step()
    tables = 0
    for name, each in model.named_parameters():
        rate = 0.03 if name.endswith(".tokenizer.categorical_table") else 0.01
        tables += rate == 0.03
        expected = before[name] * (1 - rate * 1e-5) - rate
        assert (each - expected).abs().max().item() == pytest.approx(0, abs=1e-9), name
    assert tables == 2
