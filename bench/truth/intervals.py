"""Planted noise: how often 95 % intervals hold the known value.

The readings come from a clock that makes them up: a known median, moved in each round and scattered inside it. The
stop rule sees them as it sees a real clock's, so a bias from stopping early would show; the analysis sees the records.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bench.analysis.cells import TIME
from bench.analysis.scaling import Summary, summarise
from bench.plan import presets
from bench.records.record import Record
from bench.truth.finding import Finding, judge_share
from bench.truth.measured import Planted, as_record

LENGTHS = (100, 300, 1000, 3000, 10000)
CROSSING = 2000.0
COSTS: dict[str, Callable[[float], float]] = {  # seconds
    "linear": lambda n: 2e-6 * n,
    "quadratic": lambda n: 2e-6 * n * n / CROSSING,
}
EXPONENTS = {"linear": 1.0, "quadratic": 2.0}
BETWEEN, WITHIN = 0.03, 0.05  # standard deviations on the log scale: of rounds, and of readings inside one
BUDGET_S = 0.5
LEAST_HELD = 0.93


class PlantedClock:
    """Gives readings around ``median_s`` instead of running anything."""

    def __init__(self, median_s: float, rng: np.random.Generator) -> None:
        self._median_s = median_s * math.exp(rng.normal(0, BETWEEN))
        self._rng = rng

    def read(self, step: Callable[[], object], n: int) -> list[float]:
        readings: list[float] = (self._median_s * np.exp(self._rng.normal(0, WITHIN, n))).tolist()
        return readings


def check_intervals(*, quick: bool) -> list[Finding]:
    """Many sweeps with the default number of rounds, whose medians, exponents and L* are known."""
    held: dict[str, list[bool]] = {"medians": [], "exponents": [], "L*": []}
    for seed in range(25 if quick else 300):
        summary = summarise(planted_records(np.random.default_rng(seed)))
        for name, found in intervals_hold(summary).items():
            held[name] += found
    return [
        Finding(
            name=f"intervals of {name}, {len(found)} of them",
            figure=f"{sum(found) / len(found):.1%} hold the planted value",
            mark=f"at least {LEAST_HELD:.0%}",
            outcome=judge_share(sum(found), len(found), at_least=LEAST_HELD),
        )
        for name, found in held.items()
    ]


def planted_records(rng: np.random.Generator) -> list[Record]:
    """One sweep by the stop rule and a clock whose readings are made up."""
    from bench.run import stopping  # loads torch, which --help can do without

    records = []
    for curve, cost in COSTS.items():
        for n in LENGTHS:
            planted = Planted("intervals", curve, n, {"turns": 0})
            for round_ in range(presets.load("default")["rounds"]):
                clock = PlantedClock(cost(n), rng)
                samples, _ = stopping.collect(clock, lambda: None, BUDGET_S, first_s=cost(n))
                records.append(as_record(planted, round_, {"status": "ok", "reason": "", "samples": {TIME: samples}}))
    return records


def intervals_hold(summary: Summary) -> dict[str, list[bool]]:
    medians, exponents = [], []
    for cell in summary.cells:
        each = cell.estimates[TIME]
        medians.append(each.low <= COSTS[cell.cell["mixer"]](cell.n_tokens) <= each.high)
    for scaling in summary.scalings:
        assert scaling.exponent is not None
        exponents.append(scaling.exponent.low <= EXPONENTS[scaling.curve["mixer"]] <= scaling.exponent.high)
    stars = [each.n_tokens.low <= CROSSING <= each.n_tokens.high for each in summary.crossovers]
    return {"medians": medians, "exponents": exponents, "L*": stars}
