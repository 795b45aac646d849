"""Whether a data set can tell models apart: what there is to learn from who likes what, over what its test can see."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from bench.analysis.quality import ModelQuality, Quality, compare
from bench.baselines import BASELINES, POPULARITY


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What one data set can show.

    Attributes:
        run, dataset: which one.
        metric: that decides.
        best: label of the best collaborative baseline.
        gap: its lead over popularity.
        smallest: difference that would probably have shown: the median over pairs of trained models, or that of this
            pair where there are none.
        recent: lead of the best baseline that looks at time alone over popularity; NaN where none ran.
    """

    run: str
    dataset: str
    metric: str
    best: str
    gap: float
    smallest: float
    recent: float

    @property
    def is_open(self) -> bool:
        return self.gap >= self.smallest > 0


def gates(quality: Quality) -> Iterator[Gate]:
    """One for each run and data set on which popularity and a collaborative baseline ran."""
    for run, dataset in dict.fromkeys((model.run, model.dataset) for model in quality.models):
        here = [model for model in quality.models if (model.run, model.dataset) == (run, dataset) and model.users]
        popular = next((model for model in here if model.name == POPULARITY), None)
        best = next((model for model in here if _is(model, "collaborative")), None)  # they come best first
        if popular is None or best is None or list(popular.users) != list(best.users):
            continue
        found = compare(best, popular)
        trained = {model.label for model in here if model.trained}
        pairs = [each for each in quality.comparisons if (each.run, each.dataset) == (run, dataset)]
        seen = [each.smallest for each in pairs if {each.first, each.second} <= trained]
        later = next((model for model in here if _is(model, "recent")), None)
        yield Gate(
            run=run, dataset=dataset, metric=found.metric, best=best.label, gap=found.difference.value,
            smallest=statistics.median(seen) if seen else found.smallest,
            recent=compare(later, popular).difference.value if later else float("nan"),
        )  # fmt: skip


def _is(model: ModelQuality, what: str) -> bool:
    return model.name in BASELINES and bool(getattr(BASELINES[model.name], what))
