"""Inference of one block on its own: every token in, every token out. For peers that offer a layer, not a tower."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ftmamba.blocks import build_block
from ftmamba.encoder import FTEncoder
from ftmamba.features import FeatureBatch


def prepare(tower: FTEncoder, batch: FeatureBatch) -> Callable[[], Tensor]:
    block = build_block(tower.spec.mixer, tower.spec.d_model).to(batch.numeric).eval()
    with torch.no_grad():
        tokens = tower.tokenizer(batch)

    def step() -> Tensor:
        with torch.no_grad():
            return block(tokens)  # type: ignore[no-any-return]

    return step
