"""Planted memory: peaks of blocks of known size, and an L* of memory beyond which one curve finds none left."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from bench.analysis.cells import MEMORY
from bench.analysis.crossover import Crossover
from bench.analysis.scaling import summarise
from bench.truth.finding import Finding
from bench.truth.measured import Planted, measure

MIB = 2**20
TOLERANCE = 0.02
# The peak is now the first stage, now the last, now blocks that are held together.
STAGES = {
    "16 MiB, then 4": [[16 * MIB], [4 * MIB]],
    "8 MiB, then 24 + 40": [[8 * MIB], [24 * MIB, 40 * MIB]],
    "192 MiB": [[192 * MIB]],
}
LENGTHS = (100, 300, 1000, 3000)
CROSSING = 2000  # L* of the linear and the quadratic curve; the quadratic one does not fit at the longest L
LINEAR, QUADRATIC = "linear", "quadratic"
BYTES: dict[str, Callable[[int], int]] = {
    LINEAR: lambda n: 65_536 * n,
    QUADRATIC: lambda n: 65_536 * n * n // CROSSING,
}
SPARE_BYTES = 240 * MIB  # between the 188 MiB of the one and the 281 MiB of the other at the longest L


def check_memory(*, quick: bool) -> list[Finding]:
    """Peak memory by the cells' own probe, each reading in a fresh process."""
    known = [Planted("known", name, i, {"stages": stages}) for i, (name, stages) in enumerate(STAGES.items(), start=1)]
    censored = [
        Planted("censored", curve, n, {"stages": [[law(n)]]}, SPARE_BYTES)
        for curve, law in BYTES.items()
        for n in LENGTHS
    ]
    records = measure([*known, *censored], rounds=2 if quick else 5, budget_s=0)
    findings = []
    for name, stages in STAGES.items():
        readings = [record.values.get(MEMORY) for record in records if record.cell["mixer"] == name]
        truth = max(map(sum, stages))
        findings.append(judge_peak(name, [reading for reading in readings if reading is not None], truth))
    crossovers = summarise(record for record in records if record.run == "censored").crossovers
    return [*findings, judge_bound(next((each for each in crossovers if each.metric == MEMORY), None))]


def judge_peak(name: str, readings: list[float], truth: int) -> Finding:
    """The worst reading has to be near enough; where there is none, the machine does not tell."""
    mark = f"within {TOLERANCE:.0%}"
    if not readings:
        return Finding(name=f"peak of {name}", figure="not readable here", mark=mark, outcome="ambiguous")
    errors = [reading / truth - 1 for reading in readings]
    worst = max(errors, key=abs)
    return Finding(
        name=f"peak of {name}",
        figure=f"{statistics.median(readings) / MIB:.2f} MiB, worst {worst:+.2%}",
        mark=mark,
        outcome="pass" if abs(worst) <= TOLERANCE else "fail",
    )


def judge_bound(crossover: Crossover | None) -> Finding:
    """L* lies beyond what both curves were measured at, so that the refused cell alone can tell where."""
    right = (
        crossover is not None
        and crossover.outcome == "bounded"
        and crossover.cheaper.mixer == LINEAR
        and crossover.n_tokens.low <= CROSSING <= crossover.n_tokens.high
    )
    interval = crossover.n_tokens if crossover else None
    return Finding(
        name="L* of memory, bounded by an oom",
        figure=f"[{interval.low:.0f}, {interval.high:.0f}], planted {CROSSING}" if interval else "no crossover",
        mark="interval holds L*",
        outcome="pass" if right else "fail",
    )
