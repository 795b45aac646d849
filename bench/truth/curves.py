"""Planted growth: exponents of time, and the length L* where a linear and a quadratic cost cross."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bench.analysis.cells import TIME
from bench.analysis.crossover import Crossover
from bench.analysis.scaling import Scaling, summarise
from bench.truth.finding import Finding, judge_error
from bench.truth.measured import Planted, measure, was_disturbed

# Iterations stay under a millisecond: on a busy machine most of them then pass between two turns of the scheduler.
LENGTHS = (200, 400, 800, 1600, 3200)
CROSSING = 1000  # L* of the linear and the quadratic curve
LINEAR, QUADRATIC = "c L", "c L^2"
TURNS: dict[str, Callable[[int], float]] = {
    LINEAR: lambda n: 50_000 / 1000 * n,
    QUADRATIC: lambda n: 50_000 / 1000 * n * n / CROSSING,
    "c0 + c L log L": lambda n: 20_000 + 15 * n * math.log(n),
}
EXPONENT_TOLERANCE = 0.05
CROSSING_TOLERANCE = 0.05  # of L*


def check_curves(*, quick: bool) -> list[Finding]:
    """Loops whose turns follow three laws, timed as cells are."""
    planted = [Planted("curves", law, n, {"turns": round(turns(n))}) for law, turns in TURNS.items() for n in LENGTHS]
    records = measure(planted, rounds=3 if quick else 6, budget_s=0.1 if quick else 0.5)
    summary, disturbed = summarise(records), was_disturbed(records)
    exponents = [judge_exponent(scaling, disturbed=disturbed) for scaling in summary.scalings if scaling.metric == TIME]
    (crossing,) = [
        each
        for each in summary.crossovers
        if {each.cheaper.mixer, each.dearer.mixer} == {LINEAR, QUADRATIC} and each.metric == TIME
    ]
    return [*exponents, judge_crossing(crossing, disturbed=disturbed)]


def judge_exponent(scaling: Scaling, *, disturbed: bool) -> Finding:
    """Against the slope of the planted turns over the lengths that the exponent was fitted on."""
    law, found = scaling.curve["mixer"], scaling.exponent
    assert found is not None
    turns = [TURNS[law](n) for n in scaling.fitted]
    truth = float(np.polyfit(np.log(scaling.fitted), np.log(turns), 1)[0])
    outcome = judge_error(
        found.value - truth, found.low - truth, found.high - truth, EXPONENT_TOLERANCE, disturbed=disturbed
    )
    return Finding(
        name=f"exponent of {law}",
        figure=f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}], planted {truth:.3f}",
        mark=f"within {EXPONENT_TOLERANCE}",
        outcome=outcome,
    )


def judge_crossing(crossing: Crossover, *, disturbed: bool) -> Finding:
    star = crossing.n_tokens
    error, low, high = (n / CROSSING - 1 for n in (star.value, star.low, star.high))
    outcome = judge_error(error, low, high, CROSSING_TOLERANCE, disturbed=disturbed)
    return Finding(
        name="crossover length L*",
        figure=f"{star.value:.0f} [{star.low:.0f}, {star.high:.0f}], planted {CROSSING}",
        mark=f"within {CROSSING_TOLERANCE:.0%}",
        outcome=outcome if crossing.cheaper.mixer == LINEAR or disturbed else "fail",
    )
