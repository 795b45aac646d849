"""A run against its like, and against one that is 5 % slower: what verdicts the comparison gives."""

from __future__ import annotations

from collections import Counter

from bench.analysis.compare import compare
from bench.plan import presets
from bench.records.record import Record
from bench.records.store import Run
from bench.truth.finding import Finding, Outcome, judge_share
from bench.truth.measured import Planted, measure

CELLS = 10  # a run; a cell's interval leans on how its run's other cells vary, as in a sweep
TURNS = 50_000  # of the shortest cell's loop
SIDES = {"before": 1.0, "same": 1.0, "slower": 1.05}
MOST_WRONG = 0.05
LEAST_FOUND = 0.95
MOST_UNTRUE = 0.025  # of the 95 % intervals lie wholly on one side of the truth


def check_verdicts(*, quick: bool) -> list[Finding]:
    """Pairs of runs of ten cells with the default number of rounds, the sides' readings in one random order."""
    repetitions, budget_s = (2, 0.05) if quick else (20, 0.2)
    rounds = presets.load("default")["rounds"]
    planted = [
        Planted(side, f"loop {i}", i + 1, {"turns": round(factor * TURNS * 1.2**i)})
        for side, factor in SIDES.items()
        for i in range(CELLS)
    ]
    records = measure(planted, rounds=rounds * repetitions, budget_s=budget_s)
    like: Counter[str] = Counter()
    slower: Counter[str] = Counter()
    for repetition in range(repetitions):
        own = [record for record in records if record.round // rounds == repetition]
        like.update(verdicts(own, "same"))
        slower.update(verdicts(own, "slower"))
    return [judge_like(like), judge_slower(slower)]


def verdicts(records: list[Record], side: str) -> list[str]:
    """On each cell of ``side`` against ``before``."""
    before, after = (Run(name, {}, [each for each in records if each.run == name]) for name in ("before", side))
    return [change.verdict for change in compare(before, after).cells]


def judge_like(counts: Counter[str], how: str = "") -> Finding:
    wrong, total = counts["faster"] + counts["slower"], counts.total()
    return Finding(
        name=f"A/A{how}, {total} pairs",
        figure=f"{wrong / total:.1%} wrong ({_told(counts)})",
        mark=f"at most {MOST_WRONG:.0%} wrong",
        outcome=judge_share(wrong, total, at_most=MOST_WRONG),
    )


def judge_slower(counts: Counter[str], how: str = "") -> Finding:
    """Noise may hide the slow-down, and then has to be admitted."""
    found, total = counts["slower"], counts.total()
    untrue = counts["same"] + counts["faster"]
    outcome: Outcome = "pass" if found >= LEAST_FOUND * total and not untrue else "ambiguous"
    if judge_share(untrue, total, at_most=MOST_UNTRUE) == "fail":
        outcome = "fail"
    return Finding(
        name=f"5 % slow-down{how}, {total} pairs",
        figure=f"{found / total:.1%} found ({_told(counts)})",
        mark=f"{LEAST_FOUND:.0%} found; the rest ambiguous, none same",
        outcome=outcome,
    )


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
