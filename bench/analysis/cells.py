"""Records of one cell, over its rounds, become one summary."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.analysis.estimate import Estimate, estimate, pool_spreads
from bench.analysis.percentiles import PERCENTILES, percentile
from bench.plan.axes import AXES
from bench.records.record import Record
from ftmamba import mixers

TIME = "wall_s"
MEMORY = "peak_memory_bytes"
ENERGY = "energy_j"
METRICS = (TIME, MEMORY, ENERGY)
PAIRED_RATIO = "paired_ratio"  # time over that of another mixer, taken in turn in one process
BUSY_CORES = 0.1  # taken by others during a cell; above it, its times may be too long
LEAST, MOST = 1e-100, 1e100  # no reading is beyond them, and no ratio of two within them overflows
QUALITY, HISTORY, PROFILE, OP, OP_CHECK = "rank_quality", "rank_history", "profile", "op", "op_check"  # own sections
STEP, LOAD, COURSE = "stream_step", "stream_load", "rank_stream"  # of live systems
# Of a whole run: its cells are found again in another run without them.
OF_A_RUN = ("threads", "heap", "paired_with")
VARIANT = (
    "mixer",
    "params",
    "backend",
    "paired_with",
    "policy",
)  # what is compared; a setting is all else but the length
ORDER = (*(axis.field for axis in AXES if axis.field not in (*VARIANT, "n_tokens")), "mixer", "backend")


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
        percentiles: of all timed readings, by percent, those that so many readings hold.
        verified: whether its results were compared with the reference's.
        other_cores: that others took beside it, of at least half of its rounds; 0 where that is unknown.
        n_disturbed: rounds in which others took more than ``BUSY_CORES``.
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
    percentiles: Mapping[int, Estimate] = field(default_factory=dict)
    verified: bool = False
    other_cores: float = 0.0
    n_disturbed: int = 0

    @property
    def n_tokens(self) -> int:
        return int(number(self.cell.get("n_tokens")) or 0)

    @property
    def disturbed(self) -> bool:
        """Whether its times may be too long for other work."""
        return self.other_cores > BUSY_CORES

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


@dataclass(frozen=True, order=True)
class Variant:
    """What is compared.

    Attributes:
        mixer: its name, with those parameters that are not its usual ones, and the policy of a live system:
            ``attention(n_heads=2)``, ``mamba(state)``; or an operator's.
        backend: that ran it.
    """

    mixer: str
    backend: str

    def __str__(self) -> str:
        return f"{self.mixer}/{self.backend}" if self.backend else self.mixer


def variant_of(cell: Mapping[str, Any]) -> Variant:
    """Of a cell; a mixer of a user's own is not looked up, as records may name anything."""
    name, params = str(cell.get("mixer", cell.get("op", "?"))), cell.get("params")
    usual = mixers.defaults(name) if name in mixers.NAMES else {}
    given = params.items() if isinstance(params, Mapping) else ()
    own = [f"{key}={value}" for key, value in given if key not in usual or usual[key] != value]
    own += [str(cell["policy"])] if "policy" in cell else []
    return Variant(f"{name}({', '.join(own)})" if own else name, str(cell.get("backend", "")))


def paired_ratio(cell: CellSummary, partner: CellSummary) -> Estimate | None:
    """Time of a cell over that of its partner, from turns in one process; None where they were not paired."""
    text, _, backend = cell.notes.get("paired_with", "").partition("/")
    if PAIRED_RATIO not in cell.estimates or text.partition(":")[0] != partner.cell.get("mixer"):
        return None
    try:
        name, params = mixers.parse(text) if partner.cell["mixer"] in mixers.NAMES else (text, {})
    except ValueError:
        return None
    paired = variant_of({"mixer": name, "params": params, "backend": backend})
    return cell.estimates[PAIRED_RATIO] if paired == variant_of(partner.cell) else None


def ratio_by_turns(cell: CellSummary, other: CellSummary) -> Estimate | None:
    """The same of a cell and its partner, or of two that took turns with the same third one."""
    third = cell.notes.get("paired_with", "")
    if third == other.notes.get("paired_with") and PAIRED_RATIO in cell.estimates.keys() & other.estimates:
        return cell.estimates[PAIRED_RATIO].over(other.estimates[PAIRED_RATIO])
    return paired_ratio(cell, other)


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


def is_comparison(note: object) -> bool:
    """Whether the note that verification left tells of a comparison, not of why there was none."""
    return isinstance(note, str) and not note.startswith("not compared")


def without(fields: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}


def summarise_cells(records: Iterable[Record]) -> list[CellSummary]:
    """One summary a run and cell, in the order of the cells' fields. Quality records are another stage's."""
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        if record.cell.get("task") not in (QUALITY, HISTORY):
            groups[record.run, record.cell_id].append(record)
    estimates: dict[tuple[str, str], dict[str, Estimate]] = {key: {} for key in groups}
    for run, metric in itertools.product({run for run, _ in groups}, (*METRICS, PAIRED_RATIO)):
        readings = {key: rounds for key in groups if key[0] == run and (rounds := _readings(groups[key], metric))}
        spread = pool_spreads(list(readings.values()))
        for key, rounds in readings.items():
            first_id = str(groups[key][0].env.get("sidecar", key[1]))  # under which it was written; draws stay the same
            estimates[key][metric] = estimate(rounds, spread, key=f"{run}/{first_id}/{metric}")
    return sorted((_summary(*key, group, estimates[key]) for key, group in groups.items()), key=_order)


def _summary(run: str, cell_id: str, group: list[Record], estimates: Mapping[str, Estimate]) -> CellSummary:
    good = [record for record in group if record.status == "ok"]
    bad = [record for record in group if record.status != "ok"]
    busy = [cores for each in good if (cores := number(each.env.get("other_busy_cores"))) is not None]
    timed = [seconds for readings in _readings(good, TIME) for seconds in readings]
    values: dict[str, list[float]] = defaultdict(list)
    for record in good:
        for name, value in record.values.items():
            if name not in METRICS and (reading := number(value)) is not None:
                values[name].append(reading)
    return CellSummary(
        run=run, cell_id=cell_id, cell=group[-1].cell, status="ok" if good else bad[-1].status,
        reason=bad[-1].reason if bad else "", n_rounds=len(good),
        n_samples=sum(len(record.samples.get(TIME, ())) for record in good), n_failed=len(bad), estimates=estimates,
        values={name: statistics.median(readings) for name, readings in values.items()},
        notes={name: str(note) for record in good or bad for name, note in record.notes.items()},
        verified=any(is_comparison(record.notes.get("verify")) for record in group),
        other_cores=statistics.median_high(busy) if busy else 0.0, n_disturbed=sum(x > BUSY_CORES for x in busy),
        percentiles={percent: each for percent in PERCENTILES if (each := percentile(timed, percent))},
    )  # fmt: skip


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
    fields = without(summary.cell, "n_tokens")
    key = [(number(fields.get(name)) or 0.0, str(fields.get(name, ""))) for name in ORDER]
    return (*key, identity(fields), summary.n_tokens, summary.run)
