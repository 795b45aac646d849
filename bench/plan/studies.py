"""Studies as data: the default settings, and presets that name only what differs from them."""

from __future__ import annotations

from typing import Any

from bench.plan.sweep import PlanError

DEFAULT: dict[str, Any] = {
    "datasets": ("movielens-100k",),
    "mixers": ("mamba", "attention"),
    "baselines": ("random", "popularity", "oracle"),
    "seeds": (0, 1, 2),
    "protocol": "full",
    "features": "ids",
    "losses": ("mse",),
    "match": "depth",
    "layers": 2,
    "d_model": 32,
    "batch_size": 0,
    "steps": 0,
    "learning_rates": (0.003,),
    "negatives": 1,
    "id_dropout": 0.2,
    "ks": (1, 5, 10),
    "device": "auto",
    "threads": 0,
    "timeout_s": 3600.0,
}
_STUDY: dict[str, Any] = {
    "datasets": ("vaccine", "spotify", "movielens-100k", "complete-journey:level=type", "coupon"),
    "baselines": ("random", "popularity", "oracle", "mlp"),
    "losses": ("mse", "softmax"),
}

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    # three minutes on two cores: the loss that learns most in a short time
    "quick": {"losses": ("softmax",), "steps": 300, "timeout_s": 300.0},
    "paper": {
        "protocol": "paper", "layers": 4, "d_model": 64, "steps": 5000, "learning_rates": (0.001,), "id_dropout": 0.0,
    },
    "study-quick": {**_STUDY, "losses": ("softmax",), "seeds": (0,), "steps": 200, "timeout_s": 600.0},
    "study-cpu": {**_STUDY, "learning_rates": (0.001, 0.003), "timeout_s": 7200.0},
}  # fmt: skip


def load(name: str) -> dict[str, Any]:
    """Settings of a preset over the default ones.

    Raises:
        PlanError: no such preset.
    """
    if name not in PRESETS:
        raise PlanError(f"unknown preset {ascii(name)[:80]}; choose from {', '.join(PRESETS)}")
    return {**DEFAULT, **PRESETS[name]}
