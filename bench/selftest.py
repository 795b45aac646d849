"""Truth tests: the benchmark measures what is known, and says how near it came.

    python -m bench.selftest --quick

Loops and memory of planted cost, a run against its like, planted slow-downs (of runs, and in turns), planted noise and
an independent timer go through the sweep's own clock, stop rule, probes and analysis. Exit code 1 if a test fails. What
a busy machine makes impossible to tell is ``ambiguous``, and no failure.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial

import click
from rich.markup import escape

from bench import cli
from bench.plan.setting import Setting
from bench.records.store import RunError
from bench.truth.curves import check_curves
from bench.truth.finding import Finding, Outcome
from bench.truth.intervals import check_intervals
from bench.truth.measured import TruthError
from bench.truth.memory import check_memory
from bench.truth.timer import check_timer
from bench.truth.turns import check_turns
from bench.truth.verdicts import check_verdicts

CHECKS: dict[str, Callable[..., list[Finding]]] = {
    "curves": check_curves,
    "memory": check_memory,
    "timer": check_timer,
    "intervals": check_intervals,
    "verdicts": check_verdicts,
    "turns": check_turns,
}
WHICH = Setting(name="checks", kind=str, many=True, choices=lambda: CHECKS, about="Which to make.")
STYLES: dict[Outcome, str] = {"pass": "green", "ambiguous": "yellow", "fail": "bold red"}


@click.command("selftest", help=(__doc__ or "").splitlines()[0])
@click.option("--checks", type=cli.Value(WHICH), default=",".join(CHECKS), show_default=True, help=WHICH.about)
@click.option("--quick", is_flag=True, help="Reduced size, about a minute.")
@click.option("--quiet", is_flag=True, help="No progress; only what did not pass, and the last line.")
@click.option("--json", "as_json", is_flag=True, help="Findings as JSON on standard output.")
def selftest(checks: tuple[str, ...], quick: bool, quiet: bool, as_json: bool) -> int:
    findings: list[Finding] = []
    for name in checks:
        with nullcontext() if quiet or not sys.stderr.isatty() else cli.err.status(f"{name} ..."):
            found = CHECKS[name](quick=quick)
        findings += found
        if not as_json:
            for each in found:
                if not quiet or each.outcome != "pass":
                    show(each)
    counts = Counter(each.outcome for each in findings)
    if as_json:
        print(json.dumps({"counts": counts, "findings": [asdict(each) for each in findings]}, indent=1))
    else:
        told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in STYLES)
        cli.out.print(f"{len(findings)} truth tests: {told}", markup=False)
    return cli.EXIT_FAILED if counts["fail"] else 0


def show(finding: Finding) -> None:
    """One line: outcome, name, figure, mark."""
    outcome = f"[{STYLES[finding.outcome]}]{finding.outcome:9}[/]"
    told = escape(f"{finding.name:32}  {finding.figure}  (mark: {finding.mark})")
    cli.out.print(f"{outcome}  {told}", soft_wrap=True)


main = partial(cli.run, selftest, errors=(RunError, TruthError))

if __name__ == "__main__":
    sys.exit(main())
