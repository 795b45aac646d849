"""Dropout reaches what a block adds to its tokens, in training alone, and is not there where it is 0."""

from __future__ import annotations

import pytest
import torch

from ftmamba import AttentionSpec, EncoderSpec, FeatureSpec, FTEncoder, MambaSpec, mixers
from ftmamba.blocks import Block, build_block
from ftmamba.features import random_batch
from ftmamba.spec import MixerSpec

MIXERS = [MambaSpec(backend="reference"), AttentionSpec()]
WHERE = [(MIXERS[0], ""), (MIXERS[1], "ffn.contract"), (MIXERS[1], "mixer.out_proj")]


@pytest.mark.parametrize("read", [None, 5])
@pytest.mark.parametrize(("mixer", "silent"), WHERE)
def test_each_number_is_left_out_or_scaled(mixer: MixerSpec, silent: str, read: int | None) -> None:
    """With the other of its two layers silent, a block adds nothing or 1 / (1 - p) of what it added before."""
    torch.manual_seed(0)
    block = build_block(mixer, 32, dropout=0.25)
    if silent:
        for parameter in block.get_submodule(silent).parameters():
            torch.nn.init.zeros_(parameter)
    x = torch.randn(64, 6, 32)
    residual = x if read is None else x[:, read : read + 1]
    with torch.no_grad():
        added = block.eval()(x, read) - residual
        found = block.train()(x, read) - residual
    dropped = found == 0
    torch.testing.assert_close(found, torch.where(dropped, 0, added / 0.75), rtol=1e-3, atol=1e-5)
    assert dropped.float().mean().item() == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("mixer", MIXERS, ids=lambda mixer: mixer.name)
def test_no_dropout_is_not_there(mixer: MixerSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    features, rows = FeatureSpec(3), random_batch(FeatureSpec(3), 4, torch.Generator())
    towers = []
    for dropout in (0.5, 0.0):
        torch.manual_seed(0)
        towers.append(FTEncoder(EncoderSpec(mixer=mixer, d_model=16, n_layers=2, dropout=dropout), features))
    assert [name for name, _ in towers[0].named_modules()] == [name for name, _ in towers[1].named_modules()]
    assert not torch.equal(towers[0](rows), towers[0](rows))
    expected = towers[0].eval()(rows)
    monkeypatch.delattr(torch.nn.functional, "dropout")
    assert torch.equal(towers[1](rows), expected)
    with pytest.raises(AttributeError):
        towers[0](rows)


def test_dropout_that_cannot_be_is_refused() -> None:
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="dropout is a share"):
            EncoderSpec(mixer=MambaSpec(), dropout=share)
    with pytest.raises(ValueError, match="torch_transformer is a whole block of another library"):
        EncoderSpec(mixer=mixers.find("torch_transformer")(), dropout=0.1)
    assert isinstance(build_block(mixers.find("mambapy")(), 16, dropout=0.1), Block)
