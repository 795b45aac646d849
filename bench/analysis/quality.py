"""How well models rank, over users and seeds: the records of ranking quality become tables and verdicts."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import special

from bench.analysis.cells import QUALITY, identity, number, variant_of, without
from bench.analysis.means import LEVEL, Floats, Mean, holm, mean_of, mean_share, permutation_p, pooled_p, standard_error
from bench.baselines import BASELINES
from bench.records.per_user import read_per_user, sidecar_of
from bench.records.record import Record
from bench.records.store import Run, RunError

Verdict = Literal["better", "worse", "no difference found"]

TRAINED = [name for name, baseline in BASELINES.items() if baseline.trained]
MOST_COMPARED = 190  # pairs of a data set: 20 models, each with each
POWER = 0.8  # of the test whose smallest detectable difference is told
NOTES = ("data", "split", "candidates")  # on the data set, the same in all its records
NOT_A_METRIC = ("user", "n_positives", "n_before")


@dataclass(frozen=True, kw_only=True)
class ModelQuality:
    """What all seeds of one model on one data set say.

    Attributes:
        run: name of the run.
        dataset: name of the data set, and of the protocol where that is not the usual one.
        label: short and different for every model of the data set.
        cell: the cells' fields, without the seed.
        n_seeds: seeds that gave a number.
        failures: why the others gave none.
        odd: what was odd in the data set's files, and what became of it.
        split: how the test was set apart; empty where that is not known.
        candidates: what is ranked for a user: ``catalogue``, or those with an ``observed`` answer; or empty.
        metrics: by name, such as ``ndcg@10``.
        values: other readings (cost, catalogue), median over seeds.
        curves: the learning curve of each seed.
        segments: the metric that decides, of ``warm`` users (who liked something before the test) and of ``cold``
            ones, with their number; empty where there is one kind alone.
        per_user: by metric (n_seeds, n_users); empty where the sidecars are missing.
        users: the users' keys.
    """

    run: str
    dataset: str
    label: str
    cell: Mapping[str, Any]
    n_seeds: int
    failures: Sequence[str]
    odd: str
    split: str
    candidates: str
    metrics: Mapping[str, Mean]
    values: Mapping[str, float]
    curves: Sequence[Mapping[str, Sequence[float]]]
    segments: Mapping[str, tuple[Mean, int]]
    per_user: Mapping[str, Floats]
    users: Sequence[str]

    @property
    def trained(self) -> bool:
        return "baseline" not in self.cell or self.name in TRAINED

    @property
    def name(self) -> str:
        """Of its mixer or baseline."""
        return name_of(self.cell)

    @property
    def mixer(self) -> str:
        """Its mixer with the parameters that are its own, or its baseline."""
        return variant_of(self.cell).mixer if "mixer" in self.cell else self.name


def name_of(cell: Mapping[str, Any]) -> str:
    """The mixer or the baseline of a cell."""
    return str(cell.get("mixer", cell.get("baseline")))


Pair = tuple[ModelQuality, ModelQuality]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One model against another on the same users.

    Attributes:
        run: name of the run.
        dataset: name of the data set.
        metric: that was compared.
        first, second: labels.
        difference: first minus second, with its interval over users and seeds.
        p_value: that there is no difference, corrected for all comparisons of all data sets; see ``compared``.
        smallest: the least difference that this number of users and seeds would have shown with 80 % power.
        score: the higher mean of the two, which the differences are told as a share of.
        verdict: on the first; a difference is found when both the tests and the interval say so.
    """

    run: str
    dataset: str
    metric: str
    first: str
    second: str
    difference: Mean
    p_value: float
    smallest: float
    score: float
    verdict: Verdict


@dataclass(frozen=True)
class Quality:
    """Everything the quality records of some runs say.

    Attributes:
        models: by run, data set and label, the best first.
        comparisons: of every pair with a trained model in it (where none was trained, of every pair), or of more than
            190 those with the best one.
        problems: what could not be used, one line each.
    """

    models: Sequence[ModelQuality]
    comparisons: Sequence[Comparison]
    problems: Sequence[str]


def quality_of(*runs: Run) -> Quality:
    """Summaries and comparisons of all quality records."""
    models: list[ModelQuality] = []
    pairs: list[Pair] = []
    n_tests = 0
    problems: list[str] = []
    for run in runs:
        groups: dict[str, list[Record]] = defaultdict(list)
        for record in run.records:
            if record.cell.get("task") == QUALITY:
                groups[identity(without(record.cell, "seed"))].append(record)
        labels = labels_of([without(group[0].cell, "seed") for group in groups.values()])
        found = [_model(run, label, group, problems) for label, group in zip(labels, groups.values(), strict=True)]
        models += sorted(found, key=_order)
        for own in _pairs(found):
            n_tests += len(own)
            pairs += own if len(own) <= MOST_COMPARED else [pair for pair in own if pair[0] is own[0][0]]
    return Quality(models, compared(pairs, n_tests), problems)


def _model(run: Run, label: str, group: Sequence[Record], problems: list[str]) -> ModelQuality:
    good = [record for record in group if record.status == "ok"]
    tables: list[pd.DataFrame] = []
    for record in good if run.folder else []:
        try:
            assert run.folder is not None
            tables.append(read_per_user(sidecar_of(run.folder, record)))
        except RunError as error:
            problems.append(f"{error}; {label} has no interval")
    same = len(tables) == len(good) > 0 and all(list(t["user"]) == list(tables[0]["user"]) for t in tables)
    names = [name for name in tables[0].columns if name not in NOT_A_METRIC] if same else []
    per_user = {name: np.stack([table[name].to_numpy(np.float64) for table in tables]) for name in names}
    values = medians(good)
    metrics = {name: mean_share(matrix) for name, matrix in per_user.items()}
    told = {name: next((str(r.notes[name]) for r in good if name in r.notes), "") for name in NOTES}
    known = tables[0]["n_before"].to_numpy() > 0 if same and "n_before" in tables[0] else np.ones(0, bool)
    segments = {}
    if (metric := headline(names)) and 0 < known.sum() < len(known):
        segments = {
            name: (mean_share(per_user[metric][:, who]), int(who.sum()))
            for name, who in (("warm", known), ("cold", ~known))
        }
    return ModelQuality(
        run=run.name, dataset=place_of(group[0].cell), label=label, cell=without(group[0].cell, "seed"),
        n_seeds=len(good),
        failures=[f"seed {record.cell.get('seed')}: {record.reason}" for record in group if record.status != "ok"],
        odd=told["data"], split=told["split"], candidates=told["candidates"], metrics=metrics,
        values={name: value for name, value in values.items() if name not in metrics},
        curves=[record.samples for record in good if record.samples], segments=segments, per_user=per_user,
        users=list(tables[0]["user"]) if same else [],
    )  # fmt: skip


def place_of(cell: Mapping[str, Any]) -> str:
    """What is compared: rankings of one data set by one protocol."""
    protocol, refit, seen = cell.get("protocol", "full"), cell.get("refit"), cell.get("leave_out") == "seen"
    parts = ("" if protocol == "full" else f"{protocol} protocol", "refitted" * bool(refit), "seen left out" * seen)
    return ", ".join(filter(None, (str(cell.get("dataset")), *parts)))


def medians(records: Iterable[Record]) -> dict[str, float]:
    readings: dict[str, list[float]] = defaultdict(list)
    for record in records:
        for name, value in record.values.items():
            if (reading := number(value)) is not None:
                readings[name].append(reading)
    return {name: float(np.median(values)) for name, values in readings.items()}


def labels_of(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """The model's name, with those settings that tell apart two of the same name on the same data set.

    What differs only from those with another loss is left out: it follows from the loss.
    """
    labels = []
    flat = [{**without(cell, "params"), **(cell.get("params") or {})} for cell in cells]
    for cell in flat:
        place = place_of(cell), name_of(cell)
        rivals = [other for other in flat if (place_of(other), name_of(other)) == place]
        like = [other for other in rivals if other.get("loss") == cell.get("loss")]
        varying = [
            name
            for name in cell
            if any(other.get(name) != cell[name] for other in (rivals if name == "loss" else like))
        ]
        settings = ", ".join(str(cell[name]) if name == "loss" else f"{name} {cell[name]}" for name in varying)
        labels.append(f"{name_of(cell)} ({settings})" if settings else name_of(cell))
    return labels


def _order(model: ModelQuality) -> tuple[str, float, str]:
    metric = headline(model.metrics)
    return model.dataset, -(model.metrics[metric].value if metric else -math.inf), model.label


def headline(names: Iterable[str]) -> str | None:
    """The metric that decides: NDCG at 10, or at the largest k there is."""
    cutoffs = [int(name.partition("@")[2]) for name in names if name.startswith("ndcg@")]
    if not cutoffs:
        return None
    return f"ndcg@{10 if 10 in cutoffs else max(cutoffs)}"


def _pairs(models: Sequence[ModelQuality]) -> Iterator[list[Pair]]:
    """For each data set the pairs with a trained model, if there is one, on the same users, the best model first."""
    for dataset in sorted({model.dataset for model in models}):
        here = sorted((model for model in models if model.dataset == dataset and model.users), key=_order)
        untrained = not any(model.trained for model in here)
        yield [
            (first, second)
            for first, second in itertools.combinations(here, 2)
            if (untrained or first.trained or second.trained) and list(first.users) == list(second.users)
        ]


def compared(pairs: Sequence[Pair], n_tests: int | None = None) -> list[Comparison]:
    """Models against each other, p corrected for all of them together, or for more that they were picked from.

    Flips of users say nothing of other seeds, so a difference has to pass a second test as well, of a mean over users
    and seeds; the larger p-value counts. Two or three seeds of two models tell little of how far seeds lie apart: for
    this test the trained models of a data set lend each other theirs.
    """
    p_values = [0.0] * len(pairs)
    differences = [_differences(*pair) for pair in pairs]
    groups: dict[str, list[int]] = defaultdict(list)
    for i, (first, _) in enumerate(pairs):
        groups[f"{first.run}/{first.dataset}/{headline(first.metrics)}/{len(first.users)}"].append(i)
    for key, places in groups.items():
        spread, df = _spread_of_seeds([model for i in places for model in pairs[i] if model.trained])
        over_users = np.stack([differences[i].mean(axis=0) for i in places])
        for i, p in zip(places, permutation_p(over_users, key, n_tests or len(pairs)), strict=True):
            of_seeds = sum(_of_seeds(model, spread) for model in pairs[i])
            p_values[i] = max(float(p), pooled_p(differences[i], of_seeds, df))
    return [compare(*pair, p) for pair, p in zip(pairs, holm(p_values, n_tests), strict=True)]


def _means(model: ModelQuality) -> Floats:
    """Of each seed, in the metric that decides."""
    return np.asarray(model.per_user[headline(model.metrics) or ""].mean(axis=1))


def _of_seeds(model: ModelQuality, spread: float) -> float:
    """Variance that seeds add to a model's mean: of a trained one's by the ``spread`` of all."""
    means = _means(model)
    own = float(np.var(means, ddof=1)) if len(means) > 1 else 0.0
    return (spread if model.trained else own) / len(means)


def _spread_of_seeds(models: Sequence[ModelQuality]) -> tuple[float, int]:
    """Variance of a trained model's mean between its seeds, over all of them, and its degrees of freedom."""
    each = {model.label: _means(model) for model in models}.values()
    df = sum(len(means) - 1 for means in each)
    return (sum(float(np.var(means)) * len(means) for means in each) / df if df else 0.0), df


def _differences(first: ModelQuality, second: ModelQuality) -> Floats:
    """First minus second in the metric that decides, (n_seeds, n_users)."""
    metric = headline(first.metrics)
    assert metric is not None
    one, other = first.per_user[metric], second.per_user[metric]
    if len(one) != len(other) and min(len(one), len(other)) > 1:  # a seed failed: pair what there is
        one, other = one[: len(other)], other[: len(one)]
    return one - other  # a single row stands for every seed


def compare(first: ModelQuality, second: ModelQuality, p_value: float = math.nan) -> Comparison:
    """One model against another on the same users."""
    metric = headline(first.metrics)
    assert metric is not None
    matrix = _differences(first, second)
    difference = mean_of(matrix)
    _, error, df = standard_error(matrix)
    smallest = error * (float(special.stdtrit(df, (1 + LEVEL) / 2)) + float(special.ndtri(POWER))) if df else math.nan
    verdict: Verdict = "no difference found"
    if p_value < 1 - LEVEL and not difference.low <= 0 <= difference.high:
        verdict = "better" if difference.value > 0 else "worse"
    return Comparison(
        run=first.run, dataset=first.dataset, metric=metric, first=first.label, second=second.label,
        difference=difference, p_value=p_value, smallest=smallest,
        score=float(max(each.per_user[metric].mean() for each in (first, second))), verdict=verdict,
    )  # fmt: skip
