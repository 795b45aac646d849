"""What both towers of a model cost together with each mixer, from cells that time one tower each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.analysis.cells import MEMORY, TIME, CellSummary, Variant, paired_ratio, variant_of
from bench.analysis.crossover import sign
from bench.analysis.estimate import Estimate, weakest


@dataclass(frozen=True)
class Towers:
    """Sizes of a two-tower model.

    Attributes:
        user, content: tokens of each tower, [CLS] included.
        batch_size: rows a step.
        n_layers: blocks a tower.
    """

    user: int
    content: int
    batch_size: int
    n_layers: int

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Towers | None:
        """Those that a run was made for, if it was."""
        found = meta.get("towers")
        names = cls.__dataclass_fields__
        if not isinstance(found, dict) or found.keys() != names.keys():
            return None
        return cls(**found) if all(type(each) is int for each in found.values()) else None

    def to_dict(self) -> dict[str, int]:
        return asdict(self)

    @property
    def lengths(self) -> tuple[int, int]:
        return self.user, self.content

    def holds(self, cell: Mapping[str, Any]) -> bool:
        """Whether a cell is one of the two towers."""
        return (cell.get("batch_size"), cell.get("n_layers")) == (self.batch_size, self.n_layers) and (
            cell.get("n_tokens") in self.lengths
        )


@dataclass(frozen=True, kw_only=True)
class Total:
    """Both towers with one mixer.

    Attributes:
        variant: the mixer and its backend.
        cost: of both; for memory the sum too, since a training step holds what both keep for their backward passes.
        over: that over the cheapest one's; of the cheapest itself None.
    """

    variant: Variant
    cost: Estimate
    over: Estimate | None = None


def totals(cells: Iterable[CellSummary], towers: Towers, task: str, metric: str) -> list[Total]:
    """Each mixer that has a number for both towers, the cheapest first.

    A time that was taken in turns with another mixer's is that one's time and the ratio.
    """
    here = [cell for cell in cells if cell.cell.get("task") == task and towers.holds(cell.cell)]
    curves: dict[Variant, dict[int, Estimate]] = {}
    for cell in here:
        if found := _cost(cell, here, metric):
            curves.setdefault(variant_of(cell.cell), {})[cell.n_tokens] = found
    costs = {
        variant: _sum([curve[n] for n in towers.lengths])
        for variant, curve in curves.items()
        if set(towers.lengths) <= curve.keys()
    }
    order = sorted(costs, key=lambda variant: (costs[variant].value, variant))
    return [
        Total(variant=each, cost=costs[each], over=costs[each].over(costs[order[0]]) if each != order[0] else None)
        for each in order
    ]


def alike(found: Sequence[Total]) -> list[Total]:
    """The cheapest, and all that do not clearly cost more."""
    return [each for each in found if each.over is None or not sign(each.over)]


def training_cost(cells: Sequence[CellSummary], towers: Towers, n_rows: tuple[int, int]) -> tuple[float, float] | None:
    """Seconds of a training step of both towers, and of embedding so many rows, with the slowest mixer.

    Args:
        n_rows: of users and of items, all looks at them together.

    Returns:
        None where no mixer has a number.
    """
    training = totals(cells, towers, "train_step", TIME)
    slowest = dict.fromkeys(towers.lengths, 0.0)
    for cell in cells:
        if cell.cell.get("task") == "forward" and towers.holds(cell.cell) and TIME in cell.estimates:
            slowest[cell.n_tokens] = max(slowest[cell.n_tokens], cell.estimates[TIME].value)
    look_s = sum(slowest[n] * rows / towers.batch_size for n, rows in zip(towers.lengths, n_rows, strict=True))
    return (training[-1].cost.value, look_s) if training else None


def _cost(cell: CellSummary, others: Sequence[CellSummary], metric: str) -> Estimate | None:
    own = cell.estimates.get(metric)
    if metric == MEMORY or own is None:
        return own
    for partner in others:
        ratio = paired_ratio(cell, partner) if partner.n_tokens == cell.n_tokens else None
        if ratio and TIME in partner.estimates:
            return partner.estimates[TIME].times(ratio)
    return own


def _sum(parts: Sequence[Estimate]) -> Estimate:
    draws = np.sum([each.draws for each in parts], axis=0)
    return Estimate.from_draws(sum(each.value for each in parts), draws, weakest(parts))
