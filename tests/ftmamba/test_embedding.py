"""Blockwise embeddings are those of all rows at once."""

from __future__ import annotations

import pytest
import torch

from ftmamba import AttentionSpec, EncoderSpec, FeatureBatch, FeatureSpec, FTEncoder, MambaSpec, embed
from ftmamba.features import random_batch
from ftmamba.spec import MixerSpec

FEATURES = FeatureSpec(2, (5,))


@pytest.mark.parametrize("n_rows", [0, 1, 1024, 2049])
@pytest.mark.parametrize("mixer", [MambaSpec(), AttentionSpec()], ids=lambda mixer: mixer.name)
def test_blocks_are_the_rows_at_once(mixer: MixerSpec, n_rows: int) -> None:
    tower = FTEncoder(EncoderSpec(mixer=mixer, d_model=16, n_layers=1, d_out=3, dropout=0.5), FEATURES)
    rows = random_batch(FEATURES, n_rows, torch.Generator().manual_seed(0))
    found = embed(tower, rows)
    assert found.shape == (n_rows, 3)
    assert tower.training
    with torch.no_grad():
        torch.testing.assert_close(found, tower.eval()(rows))
    assert not found.requires_grad


def test_a_tower_is_as_it_was_after_rows_that_it_refuses() -> None:
    tower = FTEncoder(EncoderSpec(mixer=AttentionSpec(), d_model=16, n_layers=1), FEATURES)
    with pytest.raises(IndexError, match="category 5 is outside"):
        embed(tower, FeatureBatch(torch.zeros(1, 2), torch.tensor([[5]])))
    assert tower.training
