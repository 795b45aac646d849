"""Records of one cell, over its rounds, become one summary."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.analysis.estimate import Estimate, estimate, pool_spreads
from bench.records.record import Record

TIME = "wall_s"
MEMORY = "peak_memory_bytes"
ENERGY = "energy_j"
METRICS = (TIME, MEMORY, ENERGY)
PAIRED_RATIO = "paired_ratio"  # time over that of another mixer, taken in turn in one process
LEAST, MOST = 1e-100, 1e100  # no reading is beyond them, and no ratio of two within them overflows
QUALITY_TASK = "rank_quality"


@dataclass(frozen=True, kw_only=True)
class CellSummary:
    """What all rounds of one cell say.

    Attributes:
        run: name of the run.
        cell_id: stable id of the cell.
        cell: the cell's fields.
        status: ``ok`` when any round gave a number, else what the last round ended in.
        reason: of the last round that was not ok, or empty.
        n_rounds: rounds that gave a number.
        n_samples: timed readings over all rounds.
        n_failed: rounds that gave none.
        estimates: by metric: ``wall_s`` (seconds a step), ``peak_memory_bytes``, ``energy_j``, ``paired_ratio``; absent
            if not measured.
        values: the other single readings, median over rounds.
        notes: why a value is absent or special, from the last round that says so.
    """

    run: str
    cell_id: str
    cell: Mapping[str, Any]
    status: str
    reason: str
    n_rounds: int
    n_samples: int
    n_failed: int
    estimates: Mapping[str, Estimate]
    values: Mapping[str, float]
    notes: Mapping[str, str]

    @property
    def n_tokens(self) -> int:
        return int(number(self.cell.get("n_tokens")) or 0)

    @property
    def censored_by(self) -> str:
        """What a cell without a number ran into, or would have: ``memory``, ``time``, or empty when that is unknown."""
        told = self.notes.get("censored_by", {"oom": "memory", "timeout": "time"}.get(self.status, ""))
        return "" if self.status == "ok" else str(told)

    @property
    def rows_per_s(self) -> Estimate | None:
        """Table rows (batch entries) a second."""
        time, batch_size = self.estimates.get(TIME), number(self.cell.get("batch_size"))
        return time.map(batch_size, -1.0) if time and batch_size else None


def number(value: object) -> float | None:
    """A finite float, or None: results files may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def identity(fields: Mapping[str, Any]) -> str:
    """One string for equal fields, whatever their order and types."""
    return json.dumps(fields, sort_keys=True, default=str)


def without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def summarise_cells(records: Iterable[Record]) -> list[CellSummary]:
    """One summary a run and cell, in the order of the cells' fields. Quality records are another stage's."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.cell.get("task") != QUALITY_TASK:
            groups[record.run, record.cell_id].append(record)
    estimates: dict[tuple[str, str], dict[str, Estimate]] = {key: {} for key in groups}
    for run, metric in itertools.product({run for run, _ in groups}, (*METRICS, PAIRED_RATIO)):
        readings = {key: rounds for key in groups if key[0] == run and (rounds := _readings(groups[key], metric))}
        spread = pool_spreads(list(readings.values()))
        for key, rounds in readings.items():
            estimates[key][metric] = estimate(rounds, spread, key="/".join((*key, metric)))
    return sorted((_summary(*key, group, estimates[key]) for key, group in groups.items()), key=_order)


def _summary(run: str, cell_id: str, group: list[Record], estimates: Mapping[str, Estimate]) -> CellSummary:
    good = [record for record in group if record.status == "ok"]
    bad = [record for record in group if record.status != "ok"]
    values: dict[str, list[float]] = defaultdict(list)
    for record in good:
        for name, value in record.values.items():
            if name not in METRICS and (reading := number(value)) is not None:
                values[name].append(reading)
    return CellSummary(
        run=run,
        cell_id=cell_id,
        cell=group[-1].cell,
        status="ok" if good else bad[-1].status,
        reason=bad[-1].reason if bad else "",
        n_rounds=len(good),
        n_samples=sum(len(record.samples.get(TIME, ())) for record in good),
        n_failed=len(bad),
        estimates=estimates,
        values={name: statistics.median(readings) for name, readings in values.items()},
        notes={name: str(note) for record in good or bad for name, note in record.notes.items()},
    )


def _readings(group: Iterable[Record], metric: str) -> list[list[float]]:
    """Readings of one metric, a list a round; a time of zero is below the clock's resolution."""
    rounds = []
    for record in group:
        if record.status != "ok":
            continue
        raw = record.samples[metric] if metric in record.samples else [record.values.get(metric)]
        readings = [x for x in map(number, raw) if x is not None and LEAST < x < MOST]
        if readings:
            rounds.append(readings)
    return rounds


def _order(summary: CellSummary) -> tuple[Any, ...]:
    cell = summary.cell
    fields = without(cell, "n_tokens")
    names = ("task", "device", "dtype", "execution", "batch_size", "n_layers", "d_model", "mixer", "backend")
    key = [(number(fields.get(name)) or 0.0, str(fields.get(name, ""))) for name in names]
    return (*key, identity(fields), summary.n_tokens, summary.run)
