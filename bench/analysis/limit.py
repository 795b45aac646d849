"""Where the costs of two mixers would cross if both were as fast as the machine's measured rates allow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.analysis.cells import TIME, VARIANT, CellSummary, Variant, variant_of, without
from bench.analysis.crossover import ALIKE, Crossover, sign
from bench.analysis.roof import cell_least_s, rates_of

SHORTEST = 2  # tokens of a table: one column and [CLS]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A crossover at the limit.

    Attributes:
        cheaper, dearer: which variant would cost less at the longest common L.
        n_tokens: from which L on it would; 2 where it would at every L.
        longest: that longest common L.
        gap: least time of ``dearer`` over that of ``cheaper`` there.
        measured: the same ratio as measured; NaN where it shows no clear difference.
        shares: least over measured time there, of ``cheaper`` and ``dearer``.
    """

    cheaper: Variant
    dearer: Variant
    n_tokens: int
    longest: int
    gap: float
    measured: float
    shares: tuple[float, float]


def limit_of(found: Crossover, cells: Iterable[CellSummary], meta: Mapping[str, Any]) -> Limit | None:
    """The limit beside a crossover in time; None where a cost model or a rate is missing, or both limits are alike.

    Args:
        found: as measured.
        cells: all summaries.
        meta: of its run, with the rates that it measured.
    """
    if found.metric != TIME or not found.lengths:
        return None
    longest = found.lengths[-1]
    rates = rates_of(meta, found.setting)
    sides = {
        variant_of(cell.cell): cell
        for cell in cells
        if (cell.run, cell.n_tokens) == (found.run, longest)
        and TIME in cell.estimates
        and without(cell.cell, "n_tokens", *VARIANT) == found.setting
    }
    pair = [sides[each] for each in (found.cheaper, found.dearer) if each in sides]  # records may hold NaN as a setting
    least = [seconds for cell in pair if (seconds := cell_least_s(cell.cell, rates))]
    if len(least) < 2 or max(least) < ALIKE * min(least):
        return None
    time, ratio = pair[0].estimates[TIME].value, found.ratios[-1]
    times, measured = [time, time * ratio.value], ratio.value if sign(ratio) else math.nan
    if least[0] > least[1]:
        pair, least, times, measured = pair[::-1], least[::-1], times[::-1], 1 / measured

    def gap(n_tokens: int) -> float:
        cheaper, dearer = (cell_least_s({**cell.cell, "n_tokens": n_tokens}, rates) or math.nan for cell in pair)
        return dearer / cheaper

    return Limit(
        cheaper=variant_of(pair[0].cell), dearer=variant_of(pair[1].cell), n_tokens=_first(gap, longest),
        longest=longest, gap=gap(longest), measured=measured, shares=(least[0] / times[0], least[1] / times[1]),
    )  # fmt: skip


def least_curve(fields: Mapping[str, Any], meta: Mapping[str, Any], lengths: Iterable[int]) -> list[tuple[int, float]]:
    """Least time of a cell at each of these L, where there is a model of it."""
    rates = rates_of(meta, fields)
    curve = ((n, cell_least_s({**fields, "n_tokens": n}, rates)) for n in lengths)
    return [(n, seconds) for n, seconds in curve if seconds]


def _first(gap: Callable[[int], float], longest: int) -> int:
    """The L from which on a gap is above 1, up to ``longest``, where it is."""
    grid = np.unique(np.geomspace(SHORTEST, longest, 100).round().astype(int))
    below = [int(n) for n in grid if not gap(int(n)) > 1]
    if not below:
        return SHORTEST
    low, high = below[-1], longest
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if gap(middle) > 1 else (middle, high)
    return high
