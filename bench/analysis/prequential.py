"""Ranking quality as time goes by: a curve a model and arm over windows, and tests over users of who ranks better."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from bench.analysis.cells import COURSE, identity, number, variant_of, without
from bench.analysis.groups import grouped
from bench.analysis.means import LEVEL, Mean, holm, mean_of, mean_share, permutation_p
from bench.analysis.quality import medians
from bench.records.per_user import read_per_user, sidecar_of
from bench.records.record import Record
from bench.records.store import Run, RunError

METRIC, UPDATED = "ndcg@10", ("retrained", "online")


@dataclass(frozen=True, kw_only=True)
class Course:
    """One model and arm on one data set, seeds together.

    Attributes:
        run, dataset, update_days: which one.
        label: model, arm and states.
        mixer: with its parameters; empty for a baseline.
        curve: mean over users by window, seeds averaged.
        mean: over users and seeds.
        updated: whether weights are updated between windows.
        per_user: seeds averaged.
        values: median over seeds.
    """

    run: str
    dataset: str
    update_days: int
    label: str
    mixer: str
    curve: Mapping[int, float]
    mean: Mean
    updated: bool
    per_user: pd.Series[float]
    values: Mapping[str, float]


@dataclass(frozen=True)
class Pair:
    """Two courses on the same users: the first's mean above the second's, and whether that is clear after Holm."""

    first: str
    second: str
    difference: Mean
    clear: bool


def courses_of(*runs: Run) -> tuple[list[Course], list[str]]:
    """The courses of all records, the best first in each run and data set; and what could not be used."""
    courses: list[Course] = []
    problems: list[str] = []
    for run in runs:
        own = [record for record in run.records if record.cell.get("task") == COURSE]
        problems += [f"{_label(record)}: {record.reason}" for record in own if record.status != "ok"]
        good = [record for record in own if record.status == "ok"]
        found = []
        for group in grouped(good, lambda record: identity(without(record.cell, "seed"))).values():
            try:
                found.append(_course(run, group))
            except (RunError, KeyError) as error:
                problems.append(f"{_label(group[0])}: {error}")
        courses += sorted(found, key=lambda each: (each.dataset, -each.mean.value))
    return courses, problems


def pairs_of(courses: Sequence[Course]) -> list[Pair]:
    """Every two of one data set, the better one first, tested over the users that both have."""
    both = [(a, b, *a.per_user.align(b.per_user, join="inner")) for a, b in itertools.combinations(courses, 2)]
    p_values = holm(
        [
            float(permutation_p((x - y).to_numpy()[None], f"{a.run}/{a.dataset}/{METRIC}", len(both))[0])
            for a, _, x, y in both
        ]
    )
    return [
        Pair(a.label, b.label, mean_of((x - y).to_numpy()[None]), p < 1 - LEVEL)
        for (a, b, x, y), p in zip(both, p_values, strict=True)
    ]


def _label(record: Record) -> str:
    cell = record.cell
    if "mixer" not in cell:
        return str(cell.get("baseline"))
    states = f", {cell.get('states')} states" if cell.get("arm") in UPDATED else ""
    return f"{variant_of(cell).mixer}, {cell.get('arm')}{states}"


def _course(run: Run, group: Sequence[Record]) -> Course:
    if run.folder is None:
        raise RunError(f"{run.name} has no folder with its users' values")
    cell = group[0].cell
    tables = [read_per_user(sidecar_of(run.folder, record)).set_index("user")[METRIC] for record in group]
    users = pd.concat(tables, axis=1).dropna()
    points: dict[int, list[float]] = {}
    for record in group:
        for window, value in zip(record.samples["window"], record.samples[f"window_{METRIC}"], strict=True):
            points.setdefault(int(window), []).append(value)
    return Course(
        run=run.name, dataset=str(cell.get("dataset")), update_days=int(number(cell.get("update_days")) or 0),
        label=_label(group[0]), mixer=variant_of(cell).mixer if "mixer" in cell else "",
        curve={window: float(np.mean(values)) for window, values in sorted(points.items())},
        mean=mean_share(users.to_numpy().T), updated=cell.get("arm") in UPDATED, per_user=users.mean(axis=1),
        values=medians(group),
    )  # fmt: skip
