"""The crossover length L*: from which L on one mixer costs less than the other, and how sure that is.

There is an L* only between two measured lengths at which the costs differ clearly, in opposite senses; where the order
changes several times, L* is the last. Its value takes both costs as straight lines in log-log between measured
lengths. Sums of powers of L bend upwards there: a cost lies below its straight line, and above the lines of the
neighbouring pairs of lengths drawn on; beyond the measured range it is taken to grow at least as L^0, at most as L^2.
The interval holds every L* that these bounds allow, draw by draw. Nothing outside the measured range is reported as L*.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bench.analysis.cells import (
    MEMORY,
    METRICS,
    TIME,
    VARIANT,
    CellSummary,
    Variant,
    identity,
    ratio_by_turns,
    variant_of,
    without,
)  # fmt: skip
from bench.analysis.estimate import Covers, Estimate, Floats, weakest

Outcome = Literal["crosses", "always", "unclear", "bounded", "alone"]
# What a missing number proves: a cell that ran out of time takes long, one that ran out of memory needs much.
CENSORED_BY = {TIME: "time", MEMORY: "memory"}
ALIKE = 1.005  # a factor below it is written 1.00x, whatever its interval
LEAST_SLOPE, MOST_SLOPE = 0.0, 2.0  # of log cost against log L
NO_LENGTH = Estimate(math.nan, math.nan, math.nan, "nothing")


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """Where the cost of two variants crosses, all else fixed.

    Attributes:
        run: name of the run.
        setting: the cell's fields without those of the variant and ``n_tokens``.
        metric: the cost that is compared.
        cheaper, dearer: which variant costs less at the longest L that tells (``unclear``: by its median alone).
        outcome: ``crosses`` (L* lies in the measured range), ``always`` (the same one is cheaper at every common L
            where they differ clearly), ``unclear`` (they do so at none), ``bounded`` (L* lies between a common L and
            one where the dearer variant ran out of time or memory), ``alone`` (no common L: only the cheaper one ran).
        n_tokens: L*; NaN where there is none, and where its interval alone is known (``bounded``).
        crossings: every L where the order clearly changes, ascending; more than one means that it changes back.
        lengths: the common L.
        ratios: cost of ``dearer`` over cost of ``cheaper`` at each of them.
    """

    run: str
    setting: Mapping[str, Any]
    metric: str
    cheaper: Variant
    dearer: Variant
    outcome: Outcome
    n_tokens: Estimate = NO_LENGTH
    crossings: tuple[float, ...] = ()
    lengths: tuple[int, ...] = ()
    ratios: tuple[Estimate, ...] = ()

    @property
    def mixers(self) -> tuple[str, str]:
        """Of both variants, in alphabetical order."""
        return min(self.cheaper.mixer, self.dearer.mixer), max(self.cheaper.mixer, self.dearer.mixer)

    @property
    def clear(self) -> tuple[int, ...]:
        """The common L at which the two differ clearly."""
        return tuple(n for n, ratio in zip(self.lengths, self.ratios, strict=True) if sign(ratio))


def sign(ratio: Estimate) -> int:
    """1 where a ratio is clearly above 1, -1 where below, else 0: so too where it is as good as 1.

    One reading has no interval: its value decides.
    """
    if max(ratio.value, 1 / ratio.value) < ALIKE:
        return 0
    low, high = (ratio.value, ratio.value) if math.isnan(ratio.low) else (ratio.low, ratio.high)
    return int(low > 1) - int(high < 1)


def find_crossovers(cells: Sequence[CellSummary]) -> list[Crossover]:
    """One crossover for each run, setting, metric and pair of variants that differ in mixer or parameters."""
    settings: dict[str, dict[Variant, list[CellSummary]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        setting = _setting_key(cell.run, without(cell.cell, "n_tokens", *VARIANT))
        settings[setting][variant_of(cell.cell)].append(cell)
    found = []
    for curves in settings.values():
        for (a, cells_a), (b, cells_b) in itertools.combinations(sorted(curves.items()), 2):
            if a.mixer != b.mixer:
                pairs = (_cross(metric, a, cells_a, b, cells_b) for metric in METRICS)
                found += [crossover for crossover in pairs if crossover]
    return found


def best_against_best(crossovers: Sequence[Crossover], cells: Sequence[CellSummary]) -> list[Crossover]:
    """Those between the best backends of two mixers: the one that reached the longest L, of these the fastest there."""
    reach: dict[tuple[str, str], tuple[int, float, Variant]] = {}
    for cell in cells:
        if TIME in cell.estimates:
            key = (_setting_key(cell.run, without(cell.cell, "n_tokens", *VARIANT)), variant_of(cell.cell).mixer)
            candidate = (-cell.n_tokens, cell.estimates[TIME].value, variant_of(cell.cell))
            reach[key] = min(reach.get(key, candidate), candidate)
    best = {(setting, variant) for (setting, _), (_, _, variant) in reach.items()}
    return [
        found
        for found in crossovers
        if all((_setting_key(found.run, found.setting), each) in best for each in (found.cheaper, found.dearer))
        or found.outcome == "alone"
    ]


def last_crossings(lengths: Sequence[int], dearer: Floats, cheaper: Floats, first: int, last: int) -> Floats:
    """From which L on ``cheaper`` costs less, for each row of log costs (rows, n): earliest, straight, latest.

    Between lengths number ``first`` and ``last``; a row that does not cross there is clipped to them.
    """
    x, gap = np.log(np.asarray(lengths, dtype=float)), dearer - cheaper
    (dearer_end, dearer_start), (cheaper_end, cheaper_start) = _bends(x, dearer), _bends(x, cheaper)
    found = np.where(gap[:, last] > 0, x[first], x[last]) + np.zeros((3, 1))
    for i in range(first, last):
        rows = (gap[:, i] <= 0) & (gap[:, i + 1] > 0)
        start, end = gap[rows, i], gap[rows, i + 1]
        earliest = np.maximum(_zero(start, end + cheaper_end[rows, i]), _zero(start + cheaper_start[rows, i], end))
        latest = np.minimum(_zero(start, end - dearer_end[rows, i]), _zero(start - dearer_start[rows, i], end))
        found[:, rows] = x[i] + (x[i + 1] - x[i]) * np.stack([earliest, _zero(start, end), latest])
    result: Floats = np.exp(found)
    return result


def _bends(x: Floats, costs: Floats) -> tuple[Floats, Floats]:
    """How far each straight line lies above those of the neighbouring pairs drawn on, at its end and at its start."""
    step = np.diff(x)
    slopes = np.diff(costs) / step
    before = np.pad(slopes[:, :-1], ((0, 0), (1, 0)), constant_values=LEAST_SLOPE)
    after = np.pad(slopes[:, 1:], ((0, 0), (0, 1)), constant_values=MOST_SLOPE)
    return np.maximum(slopes - before, 0) * step, np.maximum(after - slopes, 0) * step


def _zero(start: Floats, end: Floats) -> Floats:
    """At which share of its way a rising line is zero; 0 or 1 where it is not zero on the way."""
    on_the_way = start / np.where(start < end, start - end, 1.0)
    result: Floats = np.where(start >= 0, 0.0, np.where(end <= 0, 1.0, on_the_way))
    return result


def _setting_key(run: str, setting: Mapping[str, Any]) -> str:
    return identity({"run": run, "setting": setting})


def _cross(
    metric: str, a: Variant, cells_a: Sequence[CellSummary], b: Variant, cells_b: Sequence[CellSummary]
) -> Crossover | None:
    costs = {a: _costs(cells_a, metric), b: _costs(cells_b, metric)}
    if metric == TIME:
        _take_pairs(costs[b], cells_b, costs[a], cells_a)
        _take_pairs(costs[a], cells_a, costs[b], cells_b)
    lengths = tuple(sorted(costs[a].keys() & costs[b].keys()))
    setting = without(cells_a[0].cell, "n_tokens", *VARIANT)
    if not lengths:
        return _alone(metric, setting, {a: cells_a, b: cells_b}, costs)
    ratios = [costs[b][n].over(costs[a][n]) for n in lengths]
    told = [(n, sign(ratio)) for n, ratio in zip(lengths, ratios, strict=True) if sign(ratio)]
    bounds = [*_bounds(metric, costs[b], cells_a, lengths[-1], -1), *_bounds(metric, costs[a], cells_b, lengths[-1], 1)]
    if told:  # beyond the common L, the one that ran out of time or memory costs more
        told += sorted(bounds)[:1]
    changes = [(n, m, after) for (n, before), (m, after) in itertools.pairwise(told) if before != after]
    cheaper, dearer = (a, b) if (told[-1][1] > 0 if told else ratios[-1].value > 1) else (b, a)
    outcome: Outcome = "always" if told else "unclear"
    star, covers = NO_LENGTH, weakest(ratios)
    stars = [
        _star(lengths, costs[b if after > 0 else a], costs[a if after > 0 else b], n, m, covers)
        for n, m, after in changes
        if m in lengths
    ]
    if changes and changes[-1][1] not in lengths:
        outcome, star = "bounded", Estimate(math.nan, float(changes[-1][0]), float(changes[-1][1]), covers)
    elif changes:
        outcome, star = "crosses", stars[-1]
    return Crossover(
        run=cells_a[0].run, setting=setting, metric=metric, cheaper=cheaper, dearer=dearer, outcome=outcome,
        n_tokens=star, crossings=tuple(each.value for each in stars), lengths=lengths,
        ratios=tuple(ratio.map(1.0, 1.0 if cheaper == a else -1.0) for ratio in ratios),
    )  # fmt: skip


def _star(
    lengths: Sequence[int], dearer: Mapping[int, Estimate], cheaper: Mapping[int, Estimate],
    clear: int, clear_again: int, covers: Covers,
) -> Estimate:  # fmt: skip
    log_dearer, log_cheaper = (
        np.log(np.stack([np.append(costs[n].draws, costs[n].value) for n in lengths], axis=1))
        for costs in (dearer, cheaper)
    )
    first, last = lengths.index(clear), lengths.index(clear_again)
    earliest, straight, latest = last_crossings(lengths, log_dearer, log_cheaper, first, last)
    value = float(straight[-1])
    low = Estimate.from_draws(value, earliest[:-1], covers).low
    return Estimate(value, low, Estimate.from_draws(value, latest[:-1], covers).high, covers)


def _costs(cells: Sequence[CellSummary], metric: str) -> dict[int, Estimate]:
    """Those that a verdict may be built on: other work on the machine changes all but the memory of a step."""
    fit = [cell for cell in cells if metric == MEMORY or not cell.disturbed]
    return {cell.n_tokens: cell.estimates[metric] for cell in fit if metric in cell.estimates and cell.n_tokens > 0}


def _take_pairs(
    costs: dict[int, Estimate], cells: Sequence[CellSummary],
    partner_costs: dict[int, Estimate], partners: Sequence[CellSummary],
) -> None:  # fmt: skip
    """What two cells that took turns cost: the one's own time, and that times their ratio, whatever else ran beside."""
    for cell, partner in itertools.product(cells, partners):
        if cell.n_tokens == partner.n_tokens and TIME in partner.estimates and (ratio := ratio_by_turns(cell, partner)):
            partner_costs[cell.n_tokens] = partner.estimates[TIME]
            costs[cell.n_tokens] = partner.estimates[TIME].times(ratio)


def _bounds(
    metric: str, other: Mapping[int, Estimate], cells: Sequence[CellSummary], longest: int, sign: int
) -> list[tuple[int, int]]:
    """The lengths beyond the common ones at which ``cells`` are known to cost more than ``other``, with that sign."""
    known = CENSORED_BY.get(metric, "nothing")
    beyond = (cell for cell in cells if cell.n_tokens > longest and cell.n_tokens in other)
    return [(cell.n_tokens, sign) for cell in beyond if cell.censored_by == known]


def _alone(
    metric: str, setting: Mapping[str, Any], cells: Mapping[Variant, Sequence[CellSummary]],
    costs: Mapping[Variant, Mapping[int, Estimate]],
) -> Crossover | None:  # fmt: skip
    ran = [variant for variant in cells if costs[variant]]
    if len(ran) != 1 or any(cell.disturbed for each in cells.values() for cell in each):
        return None
    (other,) = (variant for variant in cells if variant not in ran)
    return Crossover(
        run=cells[ran[0]][0].run, setting=setting, metric=metric, cheaper=ran[0], dearer=other, outcome="alone",
    )  # fmt: skip
