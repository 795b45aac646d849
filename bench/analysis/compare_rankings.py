"""Two runs of rankings, model by model: better, worse, the same, or not to be told from these users and seeds.

A model is compared with itself on the users that both runs ranked for, seed by seed where both have the seed. The test
and the interval are those of two models of one run (`bench.analysis.means`); the ratio is the later score over the
earlier one, its interval that of the difference over the earlier score. P-values are corrected for all models (Holm).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from bench.analysis.cells import HISTORY, QUALITY, identity, number, without
from bench.analysis.compare import CellChange, RunChange, Verdict, differences, order
from bench.analysis.estimate import LEVEL, Estimate
from bench.analysis.means import Floats, holm, mean_of, permutation_p
from bench.analysis.quality import labels_of, place_of
from bench.records.per_user import read_per_user, sidecar_of
from bench.records.record import Record
from bench.records.store import Run, RunError

METRIC = "ndcg@10"
OF_A_RECORD = ("seed", "cut", "threads")  # what the records of one model differ in
Group = Sequence[Record]


def has_rankings_alone(*runs: Run) -> bool:
    """Whether there is nothing else to compare."""
    return {record.cell.get("task") in (QUALITY, HISTORY) for run in runs for record in run.records} == {True}


def compare_rankings(before: Run, after: Run, *, metric: str = METRIC, margin: float = 0.03) -> RunChange:
    """Verdicts on every model that both runs tried.

    Args:
        metric: such as ``ndcg@10``.
        margin: a difference relative to the earlier score that does not matter.
    """
    old, new = _models(before), _models(after)
    names = dict(zip(old | new, labels_of([without((old | new)[key][0].cell, "seed", "cut") for key in old | new]),
                     strict=True))  # fmt: skip
    ids = {key: f"{_place((old | new)[key][0])}: {name}" for key, name in names.items()}
    changes, p_values = [], []
    both = [key for key in old if key in new]
    for key in both:
        change, p = _change(ids[key], (before, old[key]), (after, new[key]), metric, len(both))
        changes.append(change)
        p_values.append(p)
    judged = [_judged(*each, margin) for each in zip(changes, holm(p_values), strict=True)]
    return RunChange(
        metric=metric, margin=margin, cells=tuple(sorted((x for x in judged if x.before or x.after), key=order)),
        only_before=tuple(ids[key] for key in old if key not in new),
        only_after=tuple(ids[key] for key in new if key not in old),
        differences=tuple(differences(before.meta, after.meta)), single_round=False,
    )  # fmt: skip


def _models(run: Run) -> dict[str, Group]:
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in run.records:
        if record.cell.get("task") in (QUALITY, HISTORY):
            groups[identity(without(record.cell, *OF_A_RECORD))].append(record)
    return dict(groups)


def _place(record: Record) -> str:
    length = record.cell.get("history_length")
    return place_of(record.cell) + (f", {length:,} events" if number(length) is not None else "")


def _change(
    cell_id: str, old: tuple[Run, Group], new: tuple[Run, Group], metric: str, n_tests: int
) -> tuple[CellChange, float]:
    """Both scores and their ratio, without a verdict; and the p-value of no difference, one of ``n_tests``."""
    nothing = Estimate(math.nan, math.nan, math.nan, "nothing")
    scores = [_score(group, metric) for _, group in (old, new)]
    reason, ratio, p = "", nothing, 1.0
    failed = [next((each.reason for each in group if each.status != "ok"), "") for _, group in (old, new)]
    if None in scores:
        reason = failed[scores.index(None)] or f"no {metric}"
    else:
        try:
            ratio, p, base, reason = _paired(_users(*old, metric), _users(*new, metric), cell_id, n_tests)
            scores = [base, base * ratio.value]
        except RunError as error:
            reason = f"not paired: {error}"
    before, after = (None if score is None else Estimate(score, math.nan, math.nan, "nothing") for score in scores)
    verdict: Verdict = "lost" if after is None else "gained" if before is None else "ambiguous"
    return CellChange(
        cell_id=cell_id, cell=without(new[1][0].cell, "seed"), verdict=verdict, before=before, after=after, ratio=ratio,
        p=p, reason=reason,
    ), p  # fmt: skip


def _score(group: Group, metric: str) -> float | None:
    """Mean over the records that gave one."""
    known = [x for record in group if record.status == "ok" and (x := number(record.values.get(metric))) is not None]
    return float(np.mean(known)) if known else None


def _users(run: Run, group: Group, metric: str) -> Mapping[object, pd.Series[float]]:
    """Each seed's value of every user, cuts averaged; of histories without users who have none.

    Raises:
        RunError: a sidecar is missing, or has no such metric.
    """
    if run.folder is None:
        raise RunError(f"{run.name} has no folder with its users' values")
    tables: dict[object, list[pd.DataFrame]] = defaultdict(list)
    for record in (record for record in group if record.status == "ok"):
        table = read_per_user(sidecar_of(run.folder, record))
        if metric not in table:
            raise RunError(f"{run.name} has no {metric} of each user")
        known = table[table["n_before"] > 0] if record.cell["task"] == HISTORY else table
        tables[record.cell.get("seed")].append(known)
    return {seed: pd.concat(each).groupby("user")[metric].mean().dropna() for seed, each in tables.items()}


def _paired(
    old: Mapping[object, pd.Series[float]], new: Mapping[object, pd.Series[float]], key: str, n_tests: int
) -> tuple[Estimate, float, float, str]:
    """Ratio of the scores on the same users and seeds, its p-value, the earlier score, and what users were left out."""
    users = sorted(set.intersection(*(set(each.index) for each in (*old.values(), *new.values()))))
    most = max(len(each) for each in (*old.values(), *new.values()))
    if not users:
        raise RunError("no user is in both")
    first, second = (
        {seed: np.asarray(each.loc[users], np.float64) for seed, each in side.items()} for side in (old, new)
    )
    seeds = [seed for seed in first if seed in second]
    both: list[tuple[Floats, Floats]] = [(first[seed], second[seed]) for seed in seeds]
    if not both:
        mean_first, mean_second = (np.asarray(np.mean([*side.values()], axis=0)) for side in (first, second))
        both = [(mean_first, mean_second)]
    matrix = np.stack([b - a for a, b in both])
    base, difference = float(np.mean([a for a, _ in both])), mean_of(matrix)
    if base <= 0:
        raise RunError("the earlier score is 0")
    value, low, high = (1 + end / base for end in (difference.value, difference.low, difference.high))
    told = "" if len(users) == most else f"{len(users):,} of {most:,} users are in both"
    ratio = Estimate(value, low, high, "rounds" if len(both) > 1 else "samples")
    p_value = float(permutation_p(matrix.mean(axis=0, keepdims=True), f"compare/{key}", n_tests)[0])
    return ratio, p_value, base, told


def _judged(change: CellChange, p: float, margin: float) -> CellChange:
    ratio, verdict = change.ratio, change.verdict
    if verdict != "ambiguous":
        return replace(change, p=math.nan)
    if 1 - margin <= ratio.low and ratio.high <= 1 + margin:
        verdict = "same"
    elif p < 1 - LEVEL and ratio.low > 1:
        verdict = "better"
    elif p < 1 - LEVEL and ratio.high < 1:
        verdict = "worse"
    return replace(change, verdict=verdict, p=p)
