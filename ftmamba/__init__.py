"""FT-Mamba and FT-Transformer towers for recommenders, from one feature tokenizer.

Names are imported on first use, so that a program which only reads specs or costs does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftmamba.backends import BackendError
    from ftmamba.encoder import FTEncoder
    from ftmamba.features import FeatureBatch
    from ftmamba.mixers.attention import AttentionSpec
    from ftmamba.mixers.mamba import MambaSpec
    from ftmamba.presets import PRESETS
    from ftmamba.spec import EncoderSpec, FeatureSpec
    from ftmamba.tokenizer import FeatureTokenizer
    from ftmamba.two_tower import TwoTower

_HOME = {
    "AttentionSpec": "mixers.attention",
    "BackendError": "backends",
    "EncoderSpec": "spec",
    "FTEncoder": "encoder",
    "FeatureBatch": "features",
    "FeatureSpec": "spec",
    "FeatureTokenizer": "tokenizer",
    "MambaSpec": "mixers.mamba",
    "PRESETS": "presets",
    "TwoTower": "two_tower",
}

__all__ = [
    "PRESETS",
    "AttentionSpec",
    "BackendError",
    "EncoderSpec",
    "FTEncoder",
    "FeatureBatch",
    "FeatureSpec",
    "FeatureTokenizer",
    "MambaSpec",
    "TwoTower",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
