"""Two runs cell by cell: same, faster, slower, or not to be told from these readings.

The effect is the ratio of the two medians. Its logarithm has an error of ``sqrt(e_a^2 + e_b^2)`` and the degrees of
freedom of Welch and Satterthwaite; p-values are corrected for the number of cells by Holm's method (1979). A cell is
``same`` when the whole 95 % interval lies within the margin, whatever the test says: a difference too small to matter
is none. It is ``faster`` or ``slower`` when the corrected test says so, and ``ambiguous`` otherwise; in particular a
difference that these readings could not have shown is never called ``same``.

Where a run has a single round, the interval knows nothing of how processes differ. There, a verdict needs the whole
interval beyond the margin.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from scipy import stats

from bench.analysis.cells import MEMORY, OF_A_RUN, TIME, CellSummary, identity, summarise_cells, without
from bench.analysis.estimate import LEVEL, MOST_LOG, Estimate, weakest
from bench.analysis.means import holm
from bench.records.store import Run

Verdict = Literal["same", "faster", "slower", "better", "worse", "ambiguous", "lost", "gained"]
VERDICTS: tuple[Verdict, ...] = ("slower", "worse", "lost", "faster", "better", "gained", "ambiguous", "same")
# What says nothing about why two runs might differ: of the run itself, and anywhere.
OF_THE_RUN = ("argv", "name", "started_at", "ended_at", "sessions", "schema", "kind", "command")
ANYWHERE = ("free_bytes",)


@dataclass(frozen=True, kw_only=True)
class CellChange:
    """One cell in both runs.

    Attributes:
        cell_id: of both.
        cell: its fields.
        verdict: on the second run; ``lost`` where only the first has a number, ``gained`` where only the second.
        before, after: the two estimates, None where there is no number.
        ratio: after over before, with its 95 % interval; NaN where one is missing.
        p: two-sided, corrected for all cells; NaN where there is no test.
        reason: why there is no number or no verdict, for people.
    """

    cell_id: str
    cell: Mapping[str, Any]
    verdict: Verdict
    before: Estimate | None
    after: Estimate | None
    ratio: Estimate
    p: float
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class RunChange:
    """Two runs against each other.

    Attributes:
        metric: that was compared.
        margin: a relative difference that does not matter.
        cells: those that either run has a number for and both tried.
        only_before, only_after: ids of cells that have a number in one run and that the other did not try.
        differences: ``(name, before, after)`` of machine, versions, code and settings.
        single_round: whether a run has cells of one round, so that intervals miss how processes differ.
    """

    metric: str
    margin: float
    cells: tuple[CellChange, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    differences: tuple[tuple[str, str, str], ...]
    single_round: bool

    def counts(self) -> dict[str, int]:
        """Number of cells by verdict, those that matter most first."""
        found = Counter(change.verdict for change in self.cells)
        return {verdict: found[verdict] for verdict in VERDICTS if found[verdict]}

    def failures(self, threshold: float) -> list[str]:
        """Why a gate must not pass: cells lost, or slower or worse by more than ``threshold`` (0.05 for 5 %)."""
        told = [
            f"{change.cell_id} {change.verdict} ({change.reason or f'{change.ratio.value - 1:+.1%}'})"
            for change in self.cells
            if change.verdict == "lost"
            or (change.verdict == "slower" and change.ratio.value > 1 + threshold)
            or (change.verdict == "worse" and change.ratio.value < 1 - threshold)
        ]
        return told + [f"{cell_id} lost (not in the second run)" for cell_id in self.only_before]


def compare(before: Run, after: Run, *, metric: str = TIME, margin: float = 0.03) -> RunChange:
    """Verdicts on every cell that both runs tried.

    Args:
        metric: ``wall_s``, ``peak_memory_bytes`` or ``energy_j``.
        margin: a relative difference that does not matter.
    """
    old, new = ({_key(cell): cell for cell in summarise_cells(run.records)} for run in (before, after))
    pairs = [(cell, new[key]) for key, cell in old.items() if key in new]
    tests = [_test(a.estimates[metric], b.estimates[metric]) for a, b in pairs if _both(a, b, metric)]
    adjusted = iter(holm([p for _, p in tests]))
    ratios = iter([ratio for ratio, _ in tests])
    changes = [
        _tested(a, b, metric, next(ratios), next(adjusted), margin) if _both(a, b, metric) else _untested(a, b, metric)
        for a, b in pairs
        if metric in a.estimates or metric in b.estimates
    ]
    return RunChange(
        metric=metric, margin=margin, cells=tuple(sorted(changes, key=order)), only_before=_only(old, new, metric),
        only_after=_only(new, old, metric), differences=tuple(differences(before.meta, after.meta)),
        single_round=any(change.ratio.covers != "rounds" for change in changes if not math.isnan(change.ratio.value)),
    )  # fmt: skip


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What differs between two ``run.json``, as texts; an absent value is empty."""
    old, new = (dict(_leaves(without(meta, *OF_THE_RUN))) for meta in (before, after))
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield name, old.get(name, ""), new.get(name, "")


def _leaves(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key not in ANYWHERE:
                yield from _leaves(each, f"{name} {key}".strip())
    elif isinstance(value, list) and any(isinstance(each, Mapping | list) for each in value):
        for i, each in enumerate(value):
            yield from _leaves(each, f"{name} {i}")
    elif isinstance(value, list):
        if value:
            yield name, ", ".join(map(str, value))
    else:
        yield name, str(value)


def _only(cells: Mapping[str, CellSummary], others: Mapping[str, CellSummary], metric: str) -> tuple[str, ...]:
    return tuple(cell.cell_id for key, cell in cells.items() if metric in cell.estimates and key not in others)


def _key(cell: CellSummary) -> str:
    return identity(without(cell.cell, *OF_A_RUN))


def _both(a: CellSummary, b: CellSummary, metric: str) -> bool:
    return metric in a.estimates and metric in b.estimates


def _test(before: Estimate, after: Estimate) -> tuple[Estimate, float]:
    """Ratio after over before with its interval, and the p-value of a ratio of 1."""
    covers = weakest((before, after))
    value = after.value / before.value
    if covers == "nothing":
        return Estimate(value, math.nan, math.nan, covers), 1.0
    variances = (before.error**2, after.error**2)
    error = math.sqrt(sum(variances))
    if error == 0:
        return Estimate(value, value, value, covers), float(value == 1)
    spread = sum(v**2 / each.df for v, each in zip(variances, (before, after), strict=True))
    df = sum(variances) ** 2 / spread
    half = min(float(stats.t.ppf((1 + LEVEL) / 2, df)) * error, MOST_LOG)
    p = 2 * float(stats.t.sf(abs(math.log(value)) / error, df))
    return Estimate(value, value * math.exp(-half), value * math.exp(half), covers), p


def _tested(a: CellSummary, b: CellSummary, metric: str, ratio: Estimate, p: float, margin: float) -> CellChange:
    verdict: Verdict = "ambiguous"
    disturbed = metric != MEMORY and (a.disturbed or b.disturbed)
    cores = max(a.other_cores, b.other_cores)
    beyond = 1.0 if ratio.covers == "rounds" else 1 + margin
    if disturbed:
        pass
    elif 1 / (1 + margin) <= ratio.low and ratio.high <= 1 + margin:
        verdict = "same"
    elif p < 1 - LEVEL and ratio.low > beyond:
        verdict = "slower"
    elif p < 1 - LEVEL and ratio.high < 1 / beyond:
        verdict = "faster"
    return CellChange(
        cell_id=a.cell_id, cell=b.cell, verdict=verdict, before=a.estimates[metric], after=b.estimates[metric],
        ratio=ratio, p=p, reason=f"disturbed: others took {cores:.1f} cores" if disturbed else "",
    )  # fmt: skip


def _untested(a: CellSummary, b: CellSummary, metric: str) -> CellChange:
    missing = b if metric in a.estimates else a
    why = missing.notes.get(metric, "not measured") if missing.status == "ok" else f"{missing.status}: {missing.reason}"
    return CellChange(
        cell_id=a.cell_id, cell=b.cell, verdict="lost" if metric in a.estimates else "gained",
        before=a.estimates.get(metric), after=b.estimates.get(metric),
        ratio=Estimate(math.nan, math.nan, math.nan, "nothing"), p=math.nan, reason=why,
    )  # fmt: skip


def order(change: CellChange) -> tuple[int, float]:
    """By verdict, the largest effect first."""
    return VERDICTS.index(change.verdict), -effect(change.ratio.value)


def effect(ratio: float) -> float:
    """How far a ratio is from 1 either way; of a score that fell to nothing, farther than any other."""
    return 0.0 if math.isnan(ratio) else abs(math.log(ratio)) if ratio > 0 else math.inf
