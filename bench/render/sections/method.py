"""How each number was made, in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from bench.analysis.cells import ENERGY, MEMORY
from bench.render.blocks import Bullets, Section
from bench.render.findings import Findings

ORDER = 130


def build(findings: Findings) -> Section | None:
    items = [*_cost(findings), *_ranking(findings)]
    return Section("method", "How these numbers were made", [Bullets(items)]) if items else None


def _cost(findings: Findings) -> Iterator[str]:
    cells = findings.summary.cells
    if not cells:
        return
    yield (
        "A cell is one point of the sweep. In each round all cells run once, in a fresh random order, each in a fresh "
        "process; out of memory, time-outs and crashes are results of that cell and stop nothing."
    )
    yield (
        "Time: after a warm-up, single steps are timed until the interval of their median is narrow or the cell's "
        "budget is spent. The figure shown is the median over rounds of each round's median."
    )
    if any(len(cell.percentiles) > 1 for cell in cells):
        yield (
            "p50, p90, p99: of all readings of a cell, of all rounds together, where they are so many that two of them "
            "hold the percentile with 95 % (6, 36, 368). On a GPU readings are the pace of queued steps."
        )
    yield from _heaps(findings)
    yield _intervals(Counter(cell.n_rounds for cell in cells if cell.n_rounds))
    if any(MEMORY in cell.estimates for cell in cells):
        yield (
            "Peak memory is read in a step of its own, not during timing: the most that torch's tensors held at once, "
            "above what they held before. Model weights are not in it; gradients and the optimizer's state are. What "
            "an allocator or a library takes on top is not; older records of a CPU hold it, up to as much again."
        )
    if any(ENERGY in cell.estimates for cell in cells):
        yield "Energy is the device's own counter, divided by the number of steps; its idle share is in it."
    yield (
        "Exponent: the slope of a least-squares line through log(cost) against log(L), over the longer half of "
        "the measured lengths, where growth dominates the constant. An exponent of 1 means that "
        "twice the length costs twice as much, 2 that it costs four times as much."
    )
    yield "Fit: c0 + c1 L + c2 L^2 with terms that may not be negative, by least relative squares over all lengths."
    yield (
        "L*: the length from which on one mixer costs less, up to the longest measured one. It is given only where the "
        "costs differ clearly at a shorter and at a longer measured length, in opposite senses; nothing is "
        "extrapolated. Its value takes both costs as straight lines between measured lengths, on logarithmic axes; its "
        "interval also covers how far sums of powers of L may bend between them. A length at which one mixer ran out "
        "of time (or memory) bounds L* in time (or memory)."
    )
    yield (
        "A factor is called a difference only where its 95 % interval excludes 1; with many cells a few such will be "
        "chance. Exponents, factors and L* get their intervals by repeating the same computation on 2,000 draws of "
        "the medians. Cells are taken as independent. What all rounds share, such as this machine, is in no interval."
    )
    yield (
        "Where a mixer ran with several backends, the answer sets the best one against the best one; the tables list "
        "all."
    )


def _heaps(findings: Findings) -> Iterator[str]:
    specs = [(run.name, run.meta.get("spec")) for run in findings.runs]
    kept = [name for name, spec in specs if isinstance(spec, dict) and spec.get("heap") == "kept"]
    if kept:
        where = "" if len(kept) == len(specs) else f" in {', '.join(kept)}"
        yield (
            f"While steps are timed on a CPU{where}, the process keeps the memory that it frees, as allocators made "
            "for serving do. With the C library's own default (--heap system) steps wait for the system to map fresh "
            "pages, the longer the more memory a step takes and gives back."
        )


def _ranking(findings: Findings) -> Iterator[str]:
    models = findings.quality.models
    if not models:
        return
    yield (
        "Ranking: for each test user all candidates are ranked, without what the user is known to have liked before; "
        "the table of data sets says which those are and how the test was set apart. Random order and plain popularity "
        "show what ranking without a model is worth."
    )
    if any(mean.covers_seeds for model in models for mean in model.metrics.values()):
        yield "Intervals of ranking metrics cover both users and seeds (two-way random effects)."
    else:
        yield "Intervals of ranking metrics cover users only: one seed says nothing of how other trainings would end."
    if findings.quality.comparisons:
        yield (
            "Two models are compared user by user, seeds averaged, by a permutation test that flips signs, and by a "
            "test over users and seeds, for which the models of a data set pool their seeds; the larger p counts, "
            "corrected for all comparisons of all data sets (Holm). A difference is called one only if its interval "
            "excludes 0 as well. The smallest visible difference is the true one that such a test would find four "
            "times in five, were it the only one."
        )


def _intervals(rounds: Counter[int]) -> str:
    least = min(rounds, default=0)
    if least < 2 and len(rounds) == 1:
        return (
            "Intervals (95 %) cover the variation between the samples of a single round only. Another run may well "
            "fall outside them; two rounds or more would tell."
        )
    counts = " or ".join(str(n) for n in sorted(rounds))
    return (
        f"Intervals (95 %) cover the variation between rounds, of which there are {counts} a cell: Student's t on the "
        "logarithms of the round medians. So few rounds say little about one cell's spread, so it is "
        "steadied by the spread of the run's other cells (empirical Bayes, Smyth 2004)."
    )
