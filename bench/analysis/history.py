"""How ranking quality grows with the history that is read, and the length from which on it grows no more.

A user's value is the mean over the cuts at which they have a target. Cold users, who have no history, are left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bench.analysis.cells import HISTORY, identity, variant_of, without
from bench.analysis.means import LEVEL, Floats, Mean, mean_share
from bench.analysis.quality import labels_of, medians
from bench.records.per_user import read_per_user, sidecar_of
from bench.records.record import Record
from bench.records.store import Run, RunError

METRIC = "ndcg@10"
PARTS = ("", "repeated_", "explored_")  # of the targets: all, those that the user had before, the others
SHARE = 0.99  # of the quality at the longest history, at which more of it is not worth its cost
N_DRAWS = 2000
OWN = {"none": "", "vectors": "sum of items + ", "counts": "frequency + "}
POINT = ("history_length", "cut", "seed")


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model that reads so many events.

    Attributes:
        metrics: means over users, cuts and seeds, by name.
        segments: of ``ndcg@10`` by how many events the users have, with the number of users.
        values: cost, median over cuts and seeds.
        per_user: ``ndcg@10`` of each user, a column of ``users``, cuts and seeds averaged.
        n_trainings: cuts and seeds that gave a number.
    """

    metrics: Mapping[str, Mean]
    segments: Mapping[str, tuple[Mean, int]]
    values: Mapping[str, float]
    per_user: pd.Series[float]
    n_trainings: int


class Enough(NamedTuple):
    """The shortest history with ``SHARE`` of the quality of the longest one, and the ends of its 95 % interval."""

    length: int
    low: int
    high: int


@dataclass(frozen=True, kw_only=True)
class HistoryCurve:
    """Quality of one model on one data set over the lengths of history.

    Attributes:
        run, dataset: which one.
        label: short and different for every model of the data set.
        mixer: with the parameters that are its own; empty for a baseline.
        points: by length, the shortest first.
        failures: why trainings gave no number.
    """

    run: str
    dataset: str
    label: str
    mixer: str
    points: Mapping[int, Point]
    failures: Sequence[str]

    @property
    def best(self) -> float:
        return max((point.metrics[METRIC].value for point in self.points.values()), default=-1.0)

    def enough(self) -> Enough | None:
        """None below two lengths, or where users differ between them."""
        columns = [point.per_user for point in self.points.values()]
        if len(columns) < 2 or any(not each.index.equals(columns[0].index) for each in columns):
            return None
        matrix = np.stack([each.to_numpy() for each in columns], axis=1)
        random, n = np.random.default_rng(0), len(matrix)
        counts = random.multinomial(n, np.full(n, 1 / n), N_DRAWS)
        found = np.sort([_first(means) for means in counts @ matrix / n])
        low, high = (found[round(q * (N_DRAWS - 1))] for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        lengths = list(self.points)
        return Enough(lengths[_first(matrix.mean(axis=0))], lengths[low], lengths[high])


def _first(means: Floats) -> int:
    return int(np.argmax(means >= SHARE * means[-1]))


def history_curves(*runs: Run) -> tuple[list[HistoryCurve], list[str]]:
    """The curves of all history records, by run and data set, the best first; and what could not be used."""
    curves: list[HistoryCurve] = []
    problems: list[str] = []
    for run in runs:
        groups: dict[str, list[Record]] = defaultdict(list)
        for record in run.records:
            if record.cell.get("task") == HISTORY:
                groups[identity(without(record.cell, *POINT))].append(record)
        labels = labels_of([without(group[0].cell, *POINT, "own") for group in groups.values()])
        found = [_curve(run, label, group, problems) for label, group in zip(labels, groups.values(), strict=True)]
        curves += sorted((each for each in found if each.points or each.failures), key=lambda each: -each.best)
    return curves, problems


def _curve(run: Run, label: str, group: Sequence[Record], problems: list[str]) -> HistoryCurve:
    cell = group[0].cell
    by_length: dict[int, list[Record]] = defaultdict(list)
    for record in group:
        if record.status == "ok":
            by_length[int(record.cell["history_length"])].append(record)
    points = {}
    for length in sorted(by_length):
        try:
            points[length] = _point(run, by_length[length])
        except RunError as error:
            problems.append(f"{error}; {label} is not drawn there")
    return HistoryCurve(
        run=run.name, dataset=str(cell.get("dataset")), points=points,
        label=OWN[str(cell.get("own", "none"))] + label,
        mixer=variant_of(cell).mixer if "mixer" in cell else "",
        failures=[f"{label}: {record.reason}" for record in group if record.status != "ok"],
    )  # fmt: skip


def _point(run: Run, records: Sequence[Record]) -> Point:
    """Of one model and length: seeds are rows, users columns, and cuts are averaged user by user."""
    if run.folder is None:
        raise RunError(f"{run.name} has no folder with its users' values")
    by_seed: dict[Any, list[pd.DataFrame]] = defaultdict(list)
    for record in records:
        table = read_per_user(sidecar_of(run.folder, record))
        by_seed[record.cell.get("seed")].append(table[table["n_before"] > 0])
    segments = pd.concat(by_seed[records[0].cell.get("seed")]).groupby("user")["segment"].last()
    seeds = [pd.concat(tables).groupby("user").mean(numeric_only=True) for tables in by_seed.values()]
    names = [name for name in seeds[0].columns if "@" in name]
    frames = {name: pd.concat([seed[name] for seed in seeds], axis=1).dropna() for name in names}
    if METRIC not in frames or frames[METRIC].empty:
        raise RunError(f"{run.name} has no {METRIC} of users with a history")
    users = frames[METRIC].index
    kinds = segments.loc[users].to_numpy()
    matrix = frames[METRIC].to_numpy().T
    return Point(
        metrics={name: mean_share(frame.to_numpy().T) for name, frame in frames.items() if len(frame)},
        segments={kind: (mean_share(matrix[:, kinds == kind]), sum(kinds == kind)) for kind in np.unique(kinds)},
        values={name: value for name, value in medians(records).items() if name not in frames},
        per_user=frames[METRIC].mean(axis=1), n_trainings=len(records),
    )  # fmt: skip
