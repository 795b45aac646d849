"""All models of a data set against one, pair by pair: what a forest plot draws, for every data set alike.

The one is attention where it was trained, since that is what a tower mixes with unless told otherwise; else the best
trained model; of baselines alone, popularity. Of several trainings of one model the best stands for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.analysis.means import Mean
from bench.analysis.peers import not_peers
from bench.analysis.quality import Comparison, ModelQuality, Quality
from bench.baselines import BASELINES, POPULARITY

REFERENCE = "attention"
LEARNED = [name for name, each in BASELINES.items() if each.collaborative or not each.by_chance]  # chance says nothing


@dataclass(frozen=True, kw_only=True)
class Forest:
    """One data set.

    Attributes:
        reference: the model that the others are held against.
        rows: the others with their difference to it, the best first.
        lines: popularity and the best baseline, likewise; empty where baselines are the rows.
    """

    reference: ModelQuality
    rows: Sequence[tuple[ModelQuality, Comparison]]
    lines: Sequence[tuple[ModelQuality, Comparison]]

    @property
    def score(self) -> float:
        """Of the reference."""
        metric = next(found.metric for _, found in (*self.rows, *self.lines))
        return self.reference.metrics[metric].value


def forests(quality: Quality) -> Iterator[Forest]:
    """One for each run and data set on which two models can be compared."""
    for run, dataset in dict.fromkeys((model.run, model.dataset) for model in quality.models):
        here = [model for model in quality.models if (model.run, model.dataset) == (run, dataset) and model.users]
        best: dict[str, ModelQuality] = {}
        for model in here:  # the best first
            best.setdefault(model.name, model)
        trained = not_peers({name: model for name, model in best.items() if model.trained})
        untrained = {name: model for name, model in best.items() if not model.trained and name in LEARNED}
        rows = trained or {name: model for name, model in untrained.items() if not BASELINES[name].simulated}
        reference = rows.get(REFERENCE if trained else POPULARITY) or next(iter(rows.values()), None)
        if reference is None:
            continue
        found = [each for each in quality.comparisons if (each.run, each.dataset) == (run, dataset)]
        own = _against(reference, rows, found)
        lines = [untrained[POPULARITY]] if trained and POPULARITY in untrained else []
        lines += [next(each for each in untrained.values() if not BASELINES[each.name].simulated)] if lines else []
        beside = _against(reference, {model.name: model for model in lines}, found)
        if own or beside:
            yield Forest(reference=reference, rows=own, lines=beside)


def _against(
    reference: ModelQuality, models: dict[str, ModelQuality], found: Sequence[Comparison]
) -> list[tuple[ModelQuality, Comparison]]:
    """Each model's difference to the reference."""
    rows = []
    for model in models.values():
        pair = {model.label, reference.label}
        each = next((each for each in found if {each.first, each.second} == pair), None)
        if each:
            rows.append((model, each if each.first == model.label else _turned(each)))
    return rows


def _turned(found: Comparison) -> Comparison:
    d = found.difference
    verdict = {"better": "worse", "worse": "better"}.get(found.verdict, found.verdict)
    return replace(
        found, first=found.second, second=found.first, verdict=verdict,  # type: ignore[arg-type]
        difference=Mean(-d.value, -d.high, -d.low, d.covers_seeds),
    )  # fmt: skip
