"""What changed between two runs, cell by cell: same, faster, slower, better, worse, or not to be told from them.

    python -m bench.compare results/BEFORE results/AFTER --fail-over 5%
    python -m bench.compare --base HEAD~1 --fail-over 5%

Takes results folders, and JSON files of pytest-benchmark. Rankings are compared user by user where the users' values
lie beside the records. With ``--base`` it measures: this tree in turns with the
``ftmamba`` of a commit, or with another backend, which tells smaller differences than two runs can, and beside other
work too. Fresh pairs of processes are timed until every cell has a verdict or the rounds are spent.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from bench import cli
from bench.analysis.cells import METRICS, TIME
from bench.analysis.compare import RunChange
from bench.analysis.compare import compare as compare_runs
from bench.analysis.compare_rankings import METRIC as RANKING
from bench.analysis.compare_rankings import compare_rankings, has_rankings_alone
from bench.analysis.turns import FEWEST, compare_turns, undecided
from bench.command import ERRORS, Grouped, plan_options
from bench.plan import presets, tasks
from bench.plan.cell import Cell
from bench.plan.plan import Plan
from bench.plan.setting import PlanError
from bench.records.pytest_benchmark import load_results
from bench.records.store import Run, RunError, run_name
from bench.records.text import printable
from bench.records.writer import RunWriter
from bench.render.comparison import comparison_blocks, comparison_data
from bench.render.terminal import print_blocks
from bench.run import environment, provenance, turns
from bench.run.progress import Progress
from ftmamba import mixers


class Percent(click.ParamType[float]):
    """``5%`` as 0.05."""

    name = "N%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            number = float(str(value).removesuffix("%"))
        except ValueError:
            number = -1.0
        if not 0 <= number < 1000 or not str(value).endswith("%"):
            self.fail(f"{ascii(value)[:80]} is not a percentage such as 5%", param, ctx)
        return number / 100


DEFAULTS = Plan(presets.load("compare"))
UNHEARD = ("paired_with", "order", "cells_per_process")  # settings of a plan that turns have their own way about


@click.command(
    "compare", cls=Grouped, help=(__doc__ or "").splitlines()[0],
    params=[*plan_options(DEFAULTS, (name for name in DEFAULTS if name not in UNHEARD), {})],
)  # fmt: skip
@click.argument("before", type=cli.PathType(), required=False)
@click.argument("after", type=cli.PathType(), required=False)
@click.option("--base", help="Measure this tree in turns with a commit, such as main or HEAD~1.")
@click.option("--base-backend", help="Measure each mixer's backend in turns with that one.")
@click.option("--preset", help="What is measured: compare, or another, or a .toml file.")
@click.option("--out", type=cli.PathType(), help="Results folder of what is measured.")
@click.option("--metric", show_default="wall_s, of rankings ndcg@10", help=f"{', '.join(METRICS)} or such as recall@5.")
@click.option("--margin", type=Percent(), default="3%", show_default=True, help="A difference that does not matter.")
@click.option("--fail-over", type=Percent(), help="Exit with code 1 if a cell is slower or worse by more, or lost.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="As JSON on standard output.")
def compare(
    before: Path | None, after: Path | None, base: str | None, base_backend: str | None, preset: str | None,
    out: Path | None, metric: str | None, margin: float, fail_over: float | None, quiet: bool, as_json: bool,
    **flags: Any,
) -> int | None:  # fmt: skip
    given = {name: value for name, value in flags.items() if value is not None}
    if base is None and base_backend is None:
        if before is None or after is None:
            raise click.UsageError("Missing argument: two results, BEFORE and AFTER; or --base or --base-backend")
        if given or preset or out:
            raise click.UsageError("settings of a plan, --preset and --out belong to --base and --base-backend")
        runs = [load_results(path) for path in (before, after)]
        change, names = compared(*runs, metric=by_metric(metric, *runs), margin=margin), [run.name for run in runs]
    else:
        if before or metric not in (None, TIME) or (base is not None and base_backend is not None):
            raise click.UsageError("--base or --base-backend, one of them, compare times, and take no results")
        plan = Plan({**presets.load(preset or "compare"), **given, "paired_with": ""}, frozenset(given))
        folder = out or Path("results") / datetime.now(UTC).strftime("compare-%Y%m%d-%H%M%S")
        change, names = measured(plan, base, base_backend, folder, margin, quiet=quiet)
    if as_json:
        print(json.dumps(comparison_data(change, *names), indent=1, allow_nan=False, default=str))
    else:
        print_blocks(comparison_blocks(change, *names), cli.out)
    if fail_over is None:
        return None
    if not change.cells:
        raise RunError("no cell has a number in both runs, so that --fail-over has nothing to go by")
    failures = change.failures(fail_over)
    for each in failures:
        print(f"regression: {printable(each)}", file=sys.stderr)
    return cli.EXIT_FAILED if failures else 0


def by_metric(metric: str | None, *runs: Run) -> str:
    """The cost or metric of ranking that was asked for, or that suits the runs."""
    if metric is None:
        return RANKING if has_rankings_alone(*runs) else TIME
    if metric not in METRICS and "@" not in metric:
        told = f"{ascii(metric)[:80]} is none of {', '.join(METRICS)}, and no metric of ranking such as ndcg@10"
        raise click.BadParameter(told, param_hint="--metric")
    return metric


def compared(before: Run, after: Run, *, metric: str, margin: float) -> RunChange:
    """Two runs by a cost, or by a metric of ranking."""
    return (compare_runs if metric in METRICS else compare_rankings)(before, after, metric=metric, margin=margin)


def measured(
    plan: Plan, base: str | None, backend: str | None, folder: Path, margin: float, *, quiet: bool
) -> tuple[RunChange, list[str]]:
    """Time a plan's cells in turns with another version of theirs; what changed, and the names of both versions."""
    if odd := [task for task in plan.tasks if tasks.find(task).run is not None]:
        raise PlanError(f"{', '.join(odd)}: no step that could be timed in turns; choose forward or train_step")
    if plan.rounds < FEWEST:
        raise PlanError(
            f"rounds takes at least {FEWEST} here, as fewer pairs of processes tell nothing; got {plan.rounds}"
        )
    machine = environment.probe()
    plan = plan.resolved(environment.resolve_device(plan.device, machine))
    threads = plan.threads or machine["threads"]["torch"]
    jobs: list[tuple[Cell, turns.Job, turns.Job]] = [
        (cell, {"cell": dict(cell), "threads": threads},
         {"cell": dict(cell.but(backend=backend or cell.backend)), "threads": threads})
        for cell in plan.cells()
        if backend is None or (cell.backend != backend and backend in mixers.find(cell.mixer).backends)
    ]  # fmt: skip
    if not jobs:
        raise PlanError(f"no cell has a mixer with another backend {ascii(backend)[:80]}; see python -m bench.env")
    meta = provenance.run_meta("bench.compare", run_name(folder), ["bench.compare", *map(printable, sys.argv[1:])],
                               plan.to_dict(), machine)  # fmt: skip
    with contextlib.ExitStack() as stack:
        other = stack.enter_context(turns.commit(base)) if base else turns.Version(f"backend {backend}")
        mine = turns.Version("this tree, with changes" if (meta["git"] or {}).get("dirty") else "this tree")
        writer = stack.enter_context(RunWriter.create(folder, {**meta, "base": other.name}))
        progress = stack.enter_context(Progress(len(jobs) * plan.rounds, quiet=quiet))
        started, records = time.monotonic(), []
        for record in turns.rounds_of(
            jobs, (mine, other), plan, threads, writer.name, partial(undecided, margin=margin)
        ):  # fmt: skip
            writer.append(record)
            records.append(record)
            progress.advance(record, time.monotonic() - started)
            started = time.monotonic()
        writer.update_meta(ended_at=provenance.utc_now())
    change = compare_turns(records, margin=margin)
    if not any(each.before for each in change.cells):
        raise RunError(f"no cell has a number on both sides: {records[-1].reason}; the records are in {folder}")
    return change, [other.name, mine.name]


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(compare, argv, errors=ERRORS)


if __name__ == "__main__":
    sys.exit(main())
