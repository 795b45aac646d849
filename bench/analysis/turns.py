"""Two versions that were timed in turns: verdicts from the ratio in each round.

A round is a fresh pair of processes. Its ratio is that of a low quantile of both sides' readings: what other work
delays is delayed by bursts, and the least disturbed moments are the same for both, as they take turns. The ratio of a
cell is the Hodges-Lehmann centre of the rounds' logarithms, with the exact interval and test of Wilcoxon's signed
ranks (Hollander and Wolfe, Nonparametric Statistical Methods, chapter 3): a round that went wild counts as one, however
wild. Verdicts are asked for after every round, so that each takes a smaller risk than the usual 5 %.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from bench.analysis.cells import TIME, number
from bench.analysis.compare import CellChange, RunChange, Verdict, order
from bench.analysis.estimate import LEVEL, Estimate
from bench.records.record import Record

LOW = 0.1  # quantile of readings
RISK = 0.01  # of a wrong verdict at one look
FEWEST = 8  # rounds, of which a test at that risk can say anything
NOTHING = Estimate(math.nan, math.nan, math.nan, "nothing")


def compare_turns(records: Iterable[Record], *, margin: float = 0.03) -> RunChange:
    """Verdicts on all cells that either version has a number for.

    Args:
        records: with ``paired_wall_s`` beside ``wall_s``; ``failed`` in their notes names versions without a number.
        margin: a relative difference that does not matter.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.cell_id].append(record)
    changes = [change for group in groups.values() if (change := _change(group, margin))]
    return RunChange(
        metric=TIME, margin=margin, cells=tuple(sorted(changes, key=order)), only_before=(), only_after=(),
        differences=(), single_round=False,
    )  # fmt: skip


def undecided(records: Sequence[Record], *, margin: float = 0.03) -> set[str]:
    """Ids of cells on which there is no verdict yet."""
    return {each.cell_id for each in compare_turns(records, margin=margin).cells if each.verdict == "ambiguous"}


def signed_ranks(logs: Sequence[float]) -> tuple[Estimate, float]:
    """Centre of logarithms of ratios, as a ratio with its 95 % interval, and the p-value of a ratio of 1.

    Below six values there is no interval.
    """
    n = len(logs)
    first, second = np.triu_indices(n)
    means = np.sort((np.asarray(logs)[first] + np.asarray(logs)[second]) / 2)  # Walsh's averages
    counts = np.ones(1)
    for rank in range(1, n + 1):
        counts = np.convolve(counts, [1, *[0] * (rank - 1), 1])
    tail = np.cumsum(counts) / 2**n  # probability that the ranks of one sign sum to at most so much
    p = min(1.0, 2 * float(tail[min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))]))
    value, k = math.exp(float(np.median(means))), int(np.searchsorted(tail, (1 - LEVEL) / 2, side="right"))
    if not k:
        return Estimate(value, math.nan, math.nan, "nothing"), p
    return Estimate(value, math.exp(means[k - 1]), math.exp(means[-k])), p


def _change(group: Sequence[Record], margin: float) -> CellChange | None:
    """None where neither version has a number."""
    last = group[-1]
    if last.status != "ok":
        failed, other = last.notes.get("failed", ""), last.notes.get("paired_with", "")
        verdict: Verdict = "gained" if failed == other else "lost"
        return None if ", " in failed else CellChange(
            cell_id=last.cell_id, cell=last.cell, verdict=verdict, before=None, after=None, ratio=NOTHING, p=math.nan,
            reason=f"{last.status}: {last.reason}",
        )  # fmt: skip
    after, before = ([_low(record.samples[name]) for record in group] for name in (TIME, "paired_wall_s"))
    ratio, p = signed_ranks([math.log(a / b) for a, b in zip(after, before, strict=True)])
    verdict = "ambiguous"
    if 1 / (1 + margin) <= ratio.low and ratio.high <= 1 + margin:
        verdict = "same"
    elif p < RISK:
        verdict = "slower" if ratio.value > 1 else "faster"
    old, new = (Estimate(float(np.median(each)), math.nan, math.nan, "nothing") for each in (before, after))
    return CellChange(
        cell_id=last.cell_id, cell=last.cell, verdict=verdict, before=old, after=new, ratio=ratio, p=p
    )  # fmt: skip


def _low(readings: Sequence[float]) -> float:
    return float(np.quantile([x for x in map(number, readings) if x], LOW))
