"""FT-Mamba and FT-Transformer towers for recommenders, from one feature tokenizer.

Names are imported on first use, so that a program which only reads specs or costs does not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ftmamba.backends import BackendError as BackendError
    from ftmamba.checkpoint import load as load
    from ftmamba.checkpoint import save as save
    from ftmamba.columns import TableEncoder as TableEncoder
    from ftmamba.cost import Cost as Cost
    from ftmamba.cost import block_cost as block_cost
    from ftmamba.cost import blocks_params as blocks_params
    from ftmamba.cost import encoder_cost as encoder_cost
    from ftmamba.cost import encoder_params as encoder_params
    from ftmamba.cost import history_cost as history_cost
    from ftmamba.embedding import embed as embed
    from ftmamba.encoder import FTEncoder as FTEncoder
    from ftmamba.features import FeatureBatch as FeatureBatch
    from ftmamba.history import HistoryBatch as HistoryBatch
    from ftmamba.history import HistoryEncoder as HistoryEncoder
    from ftmamba.losses import LOSSES as LOSSES
    from ftmamba.losses import EmbeddedPairs as EmbeddedPairs
    from ftmamba.mixers.attention import AttentionSpec as AttentionSpec
    from ftmamba.mixers.mamba import MambaSpec as MambaSpec
    from ftmamba.optim import parameter_groups as parameter_groups
    from ftmamba.plain import from_dict as from_dict
    from ftmamba.plain import to_dict as to_dict
    from ftmamba.presets import PRESETS as PRESETS
    from ftmamba.rows import EventSpec as EventSpec
    from ftmamba.rows import FeatureSpec as FeatureSpec
    from ftmamba.spec import EncoderSpec as EncoderSpec
    from ftmamba.stream import Stream as Stream
    from ftmamba.threads import get_threads as get_threads
    from ftmamba.threads import set_threads as set_threads
    from ftmamba.tokenizer import FeatureTokenizer as FeatureTokenizer
    from ftmamba.two_tower import TwoTower as TwoTower
    from ftmamba.weights import from_rtdl as from_rtdl

_NAMES = {
    "backends": ["BackendError"],
    "checkpoint": ["load", "save"],
    "columns": ["TableEncoder"],
    "cost": ["Cost", "block_cost", "blocks_params", "encoder_cost", "encoder_params", "history_cost"],
    "embedding": ["embed"],
    "encoder": ["FTEncoder"],
    "features": ["FeatureBatch"],
    "history": ["HistoryBatch", "HistoryEncoder"],
    "losses": ["LOSSES", "EmbeddedPairs"],
    "mixers": [],
    "mixers.attention": ["AttentionSpec"],
    "mixers.mamba": ["MambaSpec"],
    "ops": [],
    "optim": ["parameter_groups"],
    "plain": ["from_dict", "to_dict"],
    "presets": ["PRESETS"],
    "rows": ["EventSpec", "FeatureSpec"],
    "spec": ["EncoderSpec"],
    "state": [],
    "stream": ["Stream"],
    "threads": ["get_threads", "set_threads"],
    "tokenizer": ["FeatureTokenizer"],
    "two_tower": ["TwoTower"],
    "weights": ["from_rtdl"],
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, *_NAMES]
