"""Which factors of a model matter: models that differ from a centre in one setting alone, each held against it.

All levels of all factors on all data sets are one family of tests, corrected together, so that where nothing matters a
factor is called important in at most 5 % of such families.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import stats

from bench.analysis.cells import number, without
from bench.analysis.means import LEVEL
from bench.analysis.quality import Comparison, ModelQuality, Quality, compared, headline
from bench.plan.cell import PARAMS

SPEED = "train_steps_per_s"
FEWEST_ORDERS = 3


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One setting of one mixer on one data set.

    Attributes:
        run, dataset, mixer: whose.
        name: field of the cell, or parameter of the mixer.
        usual: its level in the centre.
        levels: models by their level, that of the centre included, in the order of the levels.
        against: each other level against the centre, p corrected for all levels of all factors of all data sets.
    """

    run: str
    dataset: str
    mixer: str
    name: str
    usual: str
    levels: Mapping[str, ModelQuality]
    against: Mapping[str, Comparison] = field(default_factory=dict)

    def cost(self, level: str) -> float | None:
        """Time of a training step over that of the centre, of medians over seeds; None where one is unknown."""
        own, centre = (self.levels[each].values.get(SPEED) for each in (level, self.usual))
        return centre / own if own and centre else None


@dataclass(frozen=True, kw_only=True)
class OrderSpread:
    """How far the quality of a mixer differs between random orders of the columns.

    Attributes:
        run, dataset, mixer: whose.
        n_orders: random orders.
        deviation: of the means of the orders.
        by_seeds: what it would be, on average, if seeds alone made them differ.
        p_value: of the analysis of variance that says so.
    """

    run: str
    dataset: str
    mixer: str
    n_orders: int
    deviation: float
    by_seeds: float
    p_value: float

    @property
    def is_seen(self) -> bool:
        return self.p_value < 1 - LEVEL


def factors_of(quality: Quality) -> list[Factor]:
    """Every factor around every centre: the one model of a mixer that most others differ from in a single setting."""
    found: list[Factor] = []
    for run, dataset in dict.fromkeys((model.run, model.dataset) for model in quality.models):
        here = [each for each in quality.models if (each.run, each.dataset) == (run, dataset) and each.users]
        names = dict.fromkeys(each.name for each in here if "mixer" in each.cell)
        found += [factor for name in names for factor in _around([each for each in here if each.name == name])]
    others = [[level for level in factor.levels if level != factor.usual] for factor in found]
    pairs = [(f.levels[level], f.levels[f.usual]) for f, own in zip(found, others, strict=True) for level in own]
    told = iter(compared(pairs))
    return [
        replace(factor, against={level: next(told) for level in own}) for factor, own in zip(found, others, strict=True)
    ]


def order_spreads(factors: Sequence[Factor]) -> Iterator[OrderSpread]:
    """Of each mixer that ran with several seeds in each of at least three random orders of the columns."""
    for factor in factors:
        models = [model for level, model in factor.levels.items() if level.startswith("random:")]
        metric = headline(models[0].metrics) if models else None
        if factor.name != "column_order" or len(models) < FEWEST_ORDERS or metric is None:
            continue
        seeds = [model.per_user[metric].mean(axis=1) for model in models]
        if min(map(len, seeds)) < 2:
            continue
        yield OrderSpread(
            run=factor.run, dataset=factor.dataset, mixer=factor.mixer, n_orders=len(models),
            deviation=float(np.std([each.mean() for each in seeds], ddof=1)),
            by_seeds=float(np.mean([each.var(ddof=1) / len(each) for each in seeds]) ** 0.5),
            p_value=float(stats.f_oneway(*seeds).pvalue),
        )  # fmt: skip


def _around(models: Sequence[ModelQuality]) -> list[Factor]:
    """The factors of one mixer, p-values not yet corrected."""
    flat = [_flat(model.cell) for model in models]
    apart = [[_differing(one, other) for other in flat] for one in flat]
    counts = [sum(len(names) == 1 for names in row) for row in apart]
    if not counts or counts.count(max(counts)) > 1:
        return []
    place = counts.index(max(counts))
    centre, usual = models[place], flat[place]
    found = []
    for name in dict.fromkeys(names[0] for names in apart[place] if len(names) == 1):
        levels = {str(usual.get(name)): (usual.get(name), centre)} | {
            str(own.get(name)): (own.get(name), model)
            for own, names, model in zip(flat, apart[place], models, strict=True)
            if names == [name] and model.users == centre.users
        }
        ordered = sorted(levels.items(), key=lambda item: (number(item[1][0]) or 0.0, item[0]))
        found.append(
            Factor(
                run=centre.run, dataset=centre.dataset, mixer=centre.name, name=name, usual=str(usual.get(name)),
                levels={level: model for level, (_, model) in ordered},
            )
        )  # fmt: skip
    return found


def _flat(cell: Mapping[str, Any]) -> dict[str, Any]:
    params = cell.get(PARAMS)
    return {**without(cell, PARAMS), **(params if isinstance(params, Mapping) else {})}


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return [name for name in dict.fromkeys((*one, *other)) if one.get(name) != other.get(name)]
