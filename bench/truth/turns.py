"""Planted slow-downs of 5 %, and none, timed in turns as ``bench.compare --base`` does: alone and beside other work.

Run as ``python -m bench.truth.turns DESCRIPTOR`` this is the child that runs the planted work.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from bench.analysis.turns import FEWEST, compare_turns, undecided
from bench.plan import presets
from bench.plan.cell import Cell
from bench.records.record import Record
from bench.run import turns
from bench.truth.finding import Finding
from bench.truth.measured import START_S, Planted, TruthError
from bench.truth.verdicts import judge_like, judge_slower
from bench.truth.work import step_of

RUNS, PAIRS = 3, 4  # pairs of each kind of work in a run, like and slower
WORK = {"turns": 50_000, "products": 20}  # on one thread, and on all
FACTORS = {"like": 1.0, "slower": 1.05}
BUSY = (sys.executable, "-c", "while True: pass")
BESIDE = {"alone": 0, "beside a busy process": 1}


def check_turns(*, quick: bool) -> list[Finding]:
    """Runs with the default settings, first alone, then, unless ``quick``, beside a process that never rests."""
    findings = []
    for where, n_busy in [*BESIDE.items()][: 1 if quick else None]:
        told: dict[str, Counter[str]] = {kind: Counter() for kind in FACTORS}
        with ExitStack() as stack:
            for _ in range(n_busy):
                stack.callback(stack.enter_context(subprocess.Popen(BUSY)).kill)
            for _ in range(1 if quick else RUNS):
                for kind, verdict in verdicts(quick=quick):
                    told[kind][verdict] += 1
        findings += [
            judge_like(told["like"], f" in turns, {where}"),
            judge_slower(told["slower"], f" in turns, {where}"),
        ]
    return findings


def verdicts(*, quick: bool) -> list[tuple[str, str]]:
    """Kind and verdict of each pair of one run."""
    kinds: dict[str, str] = {}
    jobs: list[tuple[Cell, turns.Job, turns.Job]] = []
    for kind, factor in FACTORS.items():
        for work, amount in WORK.items():
            for i in range(1 if quick else PAIRS):
                cell = Planted("", f"{kind} {work}", i + 1, {}).cell
                kinds[cell.id] = kind
                base = amount * (i + 1)
                jobs.append((cell, {work: round(factor * base)}, {work: base}))
    settings = presets.load("compare") | ({"rounds": FEWEST, "budget_s": 0.02} if quick else {})
    version = turns.Version("planted", worker="bench.truth.turns")
    records: Sequence[Record] = list(
        turns.rounds_of(jobs, (version, version), {**settings, "timeout_s": START_S}, 0, "turns", undecided)
    )
    if reasons := [record.reason for record in records if record.reason]:
        raise TruthError(reasons[0])
    return [(kinds[each.cell_id], each.verdict) for each in compare_turns(records).cells]


def ready_work(job: turns.Job) -> tuple[Callable[[], object], str, dict[str, str]]:
    """The planted work of a job."""
    return step_of(job), "cpu", {}


if __name__ == "__main__":
    turns.serve(ready_work)
