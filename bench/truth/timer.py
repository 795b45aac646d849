"""An independent timer on the same workload: pyperf, in turn with the benchmark's own clock."""

from __future__ import annotations

import importlib.util
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.analysis.cells import TIME
from bench.records.record import Record
from bench.records.text import printable
from bench.truth.finding import Finding, judge_error, median_interval
from bench.truth.measured import Planted, measure, was_disturbed

TURNS = 200_000  # about a third of a millisecond
TOLERANCE = 0.02
FULL = 8  # readings; a shared machine's speed changes by a third within seconds
TIMEOUT_S = 60.0
SETUP = "import collections, itertools; repeat, deque = itertools.repeat, collections.deque"
STATEMENT = f"deque(repeat(None, {TURNS}), maxlen=0)"


class PyperfError(RuntimeError):
    """Why pyperf gave no reading; the message is one line for people."""


def check_timer(*, quick: bool) -> list[Finding]:
    """The median by pyperf and by us, one straight after the other, several times."""
    name, mark = "readings against pyperf", f"within {TOLERANCE:.0%}"
    if importlib.util.find_spec("pyperf") is None:
        return [Finding(name=name, figure="pyperf is not installed (extra dev)", mark=mark, outcome="ambiguous")]
    errors: list[float] = []
    drifts: list[float] = []
    records: list[Record] = []
    while len(errors) < (2 if quick else FULL) or (len(errors) < FULL and abs(statistics.median(errors)) > TOLERANCE):
        try:
            before = pyperf_median_s()
            (ours,) = measure([Planted("timer", "loop", 1, {"turns": TURNS})], rounds=1, budget_s=0.2)
            after = pyperf_median_s()
        except PyperfError as reason:
            return [Finding(name=name, figure=str(reason), mark=mark, outcome="ambiguous")]
        records.append(ours)
        drifts.append(abs(math.log(after / before)))
        # Theirs on both sides of ours, so that a drift falls out.
        errors.append(math.log(statistics.median(ours.samples[TIME])) - math.log(before * after) / 2)
    return [Finding(name=name, mark=mark, **judge(errors, drifts, disturbed=was_disturbed(records)))]


def judge(errors: Sequence[float], drifts: Sequence[float], *, disturbed: bool) -> dict[str, Any]:
    """Figure and outcome from the logarithms of our reading over theirs, and of their second over their first.

    Where pyperf does not agree with itself within the tolerance, it cannot tell whether we agree with it.
    """
    error, low, high = median_interval(errors)
    return {
        "figure": f"{math.expm1(error):+.2%} [{math.expm1(low):+.2%}, {math.expm1(high):+.2%}]",
        "outcome": judge_error(
            error, low, high, TOLERANCE, disturbed=disturbed or statistics.median(drifts) > TOLERANCE
        ),
    }


def pyperf_median_s() -> float:
    """Median seconds of single iterations as ``pyperf timeit`` finds it, in a process that pyperf starts.

    Raises:
        PyperfError: it gave none.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pyperf.json"
        command = [
            sys.executable, "-m", "pyperf", "timeit", "--quiet", "--processes=1", "--values=200", "--warmups=50",
            "--loops=1", f"--output={path}", f"--setup={SETUP}", STATEMENT,
        ]  # fmt: skip
        try:
            subprocess.run(command, check=True, capture_output=True, errors="replace", timeout=TIMEOUT_S)
            found = json.loads(path.read_text(encoding="utf-8"))
            runs = found["benchmarks"][0]["runs"]
            return float(statistics.median(value for run in runs for value in run.get("values", ())))
        except subprocess.CalledProcessError as error:
            raise PyperfError(f"pyperf failed: {printable(error.stderr)[-200:]}") from None
        except subprocess.TimeoutExpired:
            raise PyperfError(f"pyperf did not end within {TIMEOUT_S:g} s") from None
        except (OSError, KeyError, ValueError) as error:
            raise PyperfError(f"pyperf gave no reading: {error}") from None
