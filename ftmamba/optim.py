"""How fast which weights learn."""

from __future__ import annotations

from typing import Any

from torch import nn

WEIGHT_DECAY = 1e-5  # the FT-Transformer's (arXiv 2106.11959, appendix)
# Lookup tables learn this much faster: a row is updated only when its value is met, and its token is one of many.
TABLE_RATE = 3.0


def parameter_groups(model: nn.Module, learning_rate: float) -> list[dict[str, Any]]:
    """A model's parameters for an optimiser of ``torch.optim``: the lookup tables learn ``TABLE_RATE`` times faster.

    Args:
        model: whose lookup tables are those of ``FeatureTokenizer``.
        learning_rate: of all other weights.

    Returns:
        Two groups, the lookup tables first, each with ``params``, ``lr`` and ``weight_decay`` (``WEIGHT_DECAY``).

    Examples:
        >>> import torch
        >>> from ftmamba import EncoderSpec, FeatureSpec, FTEncoder, MambaSpec, parameter_groups
        >>> tower = FTEncoder(EncoderSpec(mixer=MambaSpec()), FeatureSpec(3, (10, 20)))
        >>> optimizer = torch.optim.AdamW(parameter_groups(tower, 0.001))
        >>> [group["lr"] for group in optimizer.param_groups]
        [0.003, 0.001]
    """
    tables: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (tables if name.endswith("categorical_table") else others).append(parameter)
    rates = ((tables, learning_rate * TABLE_RATE), (others, learning_rate))
    return [{"params": params, "lr": rate, "weight_decay": WEIGHT_DECAY} for params, rate in rates]
