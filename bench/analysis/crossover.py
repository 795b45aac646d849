"""The crossover length L*: from which L on one mixer costs less than the other, and how sure that is.

Between two measured lengths both costs are taken as straight lines in log-log, so log(cost ratio) is linear in
log(L) and L* is where it is zero. L* is the *last* zero: from there on, up to the longest measured L, the cheaper
mixer stays cheaper. Nothing outside the measured range is reported as L*.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from bench.analysis.cells import MEMORY, METRICS, TIME, CellSummary, identity, without
from bench.analysis.estimate import Estimate, Floats, weakest

Outcome = Literal["crosses", "always", "bounded", "alone"]
VARIANT_FIELDS = ("mixer", "backend")
# What a missing number proves: a cell that ran out of time takes long, one that ran out of memory needs much.
CENSORED_BY = {TIME: "time", MEMORY: "memory"}


@dataclass(frozen=True, order=True)
class Variant:
    """A mixer and the backend that ran it."""

    mixer: str
    backend: str


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """Where the cost of two variants crosses, all else fixed.

    Attributes:
        run: name of the run.
        setting: the cell's fields without mixer, backend and ``n_tokens``.
        metric: the cost that is compared.
        cheaper, dearer: which variant costs less at the longest common L (``bounded``: which must, beyond it).
        outcome: ``crosses`` (L* lies in the measured range), ``always`` (the same one is cheaper at every common L),
            ``bounded`` (it lies between the longest common L and one where the dearer variant ran out of time or
            memory), ``alone`` (no common L: only the cheaper one ran).
        n_tokens: L*. 0 stands for "below the shortest common L" and infinity for "beyond the longest": as the value
            (outcome ``always``) or as an end of the interval (the readings do not exclude it).
        crossings: every L where the point estimates cross, ascending; more than one means that the order changes back.
        lengths: the common L.
        ratios: cost of ``dearer`` over cost of ``cheaper`` at each of them.
    """

    run: str
    setting: Mapping[str, Any]
    metric: str
    cheaper: Variant
    dearer: Variant
    outcome: Outcome
    n_tokens: Estimate
    crossings: tuple[float, ...]
    lengths: tuple[int, ...]
    ratios: tuple[Estimate, ...]

    @property
    def undecided(self) -> bool:
        """Whether the readings cannot tell which one is cheaper at the longest common L: the interval includes 1."""
        return bool(self.ratios) and self.ratios[-1].low <= 1


def find_crossovers(cells: Sequence[CellSummary]) -> list[Crossover]:
    """One crossover for each run, setting, metric and pair of variants of different mixers."""
    settings: dict[str, dict[Variant, list[CellSummary]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        setting = _setting_key(cell.run, without(cell.cell, "n_tokens", *VARIANT_FIELDS))
        settings[setting][_variant(cell)].append(cell)
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
            key = (_setting_key(cell.run, without(cell.cell, "n_tokens", *VARIANT_FIELDS)), _variant(cell).mixer)
            candidate = (-cell.n_tokens, cell.estimates[TIME].value, _variant(cell))
            reach[key] = min(reach.get(key, candidate), candidate)
    best = {(setting, variant) for (setting, _), (_, _, variant) in reach.items()}
    return [
        found
        for found in crossovers
        if all((_setting_key(found.run, found.setting), each) in best for each in (found.cheaper, found.dearer))
        or found.outcome == "alone"
    ]


def last_zeros(lengths: Sequence[int], logs: Floats) -> Floats:
    """For each row of ``logs`` (rows, n): the L of its last change of sign.

    0 where the row ends and stays positive or never changes sign from positive; infinity where it ends negative.
    """
    x = np.log(np.asarray(lengths, dtype=float))
    positive = logs > 0
    result = np.zeros(len(logs))
    for i in range(len(lengths) - 1):
        crossed = positive[:, i] != positive[:, i + 1]
        left, right = logs[crossed, i], logs[crossed, i + 1]
        result[crossed] = np.exp(x[i] + (x[i + 1] - x[i]) * left / (left - right))
    result[~positive[:, -1]] = math.inf
    return result


def _variant(cell: CellSummary) -> Variant:
    return Variant(*(str(cell.cell.get(name, "")) for name in VARIANT_FIELDS))


def _setting_key(run: str, setting: Mapping[str, Any]) -> str:
    return identity({"run": run, "setting": setting})


def _cross(
    metric: str, a: Variant, cells_a: Sequence[CellSummary], b: Variant, cells_b: Sequence[CellSummary]
) -> Crossover | None:
    costs = {a: _costs(cells_a, metric), b: _costs(cells_b, metric)}
    lengths = tuple(sorted(costs[a].keys() & costs[b].keys()))
    setting = without(cells_a[0].cell, "n_tokens", *VARIANT_FIELDS)
    if not lengths:
        return _alone(metric, setting, {a: cells_a, b: cells_b}, costs)
    cheaper, dearer = (a, b) if costs[a][lengths[-1]].value < costs[b][lengths[-1]].value else (b, a)
    bound = _bound(metric, costs[dearer], cells_b if cheaper == b else cells_a, lengths[-1])
    if bound:
        cheaper, dearer = dearer, cheaper
    ratios = tuple(costs[dearer][n].over(costs[cheaper][n]) for n in lengths)
    points = np.log([[ratio.value for ratio in ratios]])
    draws = last_zeros(lengths, np.log(np.stack([ratio.draws for ratio in ratios], axis=1)))
    covers = weakest(ratios)
    star = Estimate.from_draws(float(last_zeros(lengths, points)[0]), draws, covers)
    outcome: Outcome = "always" if star.value in (0.0, math.inf) else "crosses"
    if bound:  # the order of the two at the common L is now the opposite of the order beyond them
        outcome, star = "bounded", Estimate(math.nan, float(lengths[-1]), float(bound), covers)
    crossings = [_zero(lengths[i : i + 2], points[0, i : i + 2]) for i in range(len(lengths) - 1)]
    return Crossover(
        run=cells_a[0].run,
        setting=setting,
        metric=metric,
        cheaper=cheaper,
        dearer=dearer,
        outcome=outcome,
        n_tokens=star,
        crossings=tuple(n for n in crossings if n is not None),
        lengths=lengths,
        ratios=ratios,
    )


def _costs(cells: Sequence[CellSummary], metric: str) -> dict[int, Estimate]:
    return {cell.n_tokens: cell.estimates[metric] for cell in cells if metric in cell.estimates and cell.n_tokens > 0}


def _zero(lengths: Sequence[int], logs: Floats) -> float | None:
    if (logs[0] > 0) == (logs[1] > 0):
        return None
    x = np.log(np.asarray(lengths, dtype=float))
    return float(np.exp(x[0] + (x[1] - x[0]) * logs[0] / (logs[0] - logs[1])))


def _bound(metric: str, other: Mapping[int, Estimate], cheaper: Sequence[CellSummary], longest: int) -> int | None:
    """The shortest L beyond the common ones at which the so far cheaper variant is known to cost more."""
    known = [
        cell.n_tokens
        for cell in cheaper
        if cell.censored_by == CENSORED_BY.get(metric, "nothing") and cell.n_tokens > longest and cell.n_tokens in other
    ]
    return min(known, default=None)


def _alone(
    metric: str,
    setting: Mapping[str, Any],
    cells: Mapping[Variant, Sequence[CellSummary]],
    costs: Mapping[Variant, Mapping[int, Estimate]],
) -> Crossover | None:
    ran = [variant for variant in cells if costs[variant]]
    if len(ran) != 1:
        return None
    (other,) = (variant for variant in cells if variant not in ran)
    return Crossover(
        run=cells[ran[0]][0].run,
        setting=setting,
        metric=metric,
        cheaper=ran[0],
        dearer=other,
        outcome="alone",
        n_tokens=Estimate(math.nan, math.nan, math.nan, "nothing"),
        crossings=(),
        lengths=(),
        ratios=(),
    )
