"""Rankings that need no tower: what any model must beat. A file each; nothing but this table names them.

They are listed without importing anything heavy, so that a plan can be made without torch.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.baselines.known import Fitted
    from bench.data.dataset import DataSet

HALF_LIVES = (math.inf, 7, 14, 30, 60, 90, 120, 180)  # days

POPULARITY, MLP = "popularity", "mlp"  # the two that others ask for by name


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """One baseline.

    Attributes:
        module: its file in this folder; empty where it is a model that is trained as towers are.
        grid: values of each setting, all tried together; validation chooses. The first are taken where it cannot.
        by_chance: whether another seed gives another ranking.
        simulated: whether it needs the probabilities that a data set was drawn from.
        collaborative: whether it learns from what else users like; the best of them says what there is to learn.
        recent: whether it learns from when items were liked, and nothing else.
    """

    module: str = ""
    grid: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    by_chance: bool = False
    simulated: bool = False
    collaborative: bool = False
    recent: bool = False

    @property
    def trained(self) -> bool:
        return not self.module

    def fit(self, data: DataSet, seed: int, **settings: float) -> Fitted:
        """Learn from the training split."""
        fitted: Fitted = importlib.import_module(f"bench.baselines.{self.module}").fit(data, seed, **settings)
        return fitted


BASELINES: dict[str, Baseline] = {
    "random": Baseline(module="chance", by_chance=True),
    POPULARITY: Baseline(module="popularity"),
    "recent-popularity": Baseline(
        module="popularity", grid={"half_life_days": (14, 3.5, 7, 28, 56, 112, 224, 448)}, recent=True
    ),
    "itemknn": Baseline(
        module="itemknn", grid={"neighbours": (100, 25, 400, 1600), "shrinkage": (0, 10, 100)}, collaborative=True
    ),
    "ease": Baseline(module="ease", grid={"penalty": (300, 30, 100, 1000, 3000, 10_000)}, collaborative=True),
    "ials": Baseline(
        module="ials", by_chance=True, collaborative=True,
        grid={"width": (64,), "unobserved": (0.3, 0.1, 1), "penalty": (10, 2, 5, 20)},
    ),
    "oracle": Baseline(module="oracle", simulated=True),
    MLP: Baseline(),
}  # fmt: skip

# Of histories: each ranks by a user's last events, and the values of its one parameter, from which validation chooses.
EVENT_BASELINES: dict[str, tuple[float, ...]] = {
    POPULARITY: (math.inf,),
    "recent-popularity": HALF_LIVES,
    "frequency": (math.inf,),
    "recent-frequency": HALF_LIVES,
    "visit-popularity": HALF_LIVES,
    "visit-frequency": HALF_LIVES,
    "itemknn": (20, 50, 100, 200, 500),
    "ease": (100, 200, 500, 1000, 2000, 5000),
}
