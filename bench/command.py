"""What the commands that run a plan share: options made from the table of axes, a session, and what it shows."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from bench import cli
from bench.data.files import DataError
from bench.plan import presets, tasks
from bench.plan.axes import BY_FIELD, BY_NAME
from bench.plan.plan import Plan
from bench.plan.setting import AUTO, PlanError
from bench.records.store import Run, RunError
from bench.records.text import printable
from bench.run import environment, session
from bench.run.forecast import expected_s
from bench.run.places import LOCAL
from bench.run.runner import cost_of
from bench.run.tasks.profile import TRACES
from ftmamba.cost import Cost

ERRORS = (PlanError, RunError, DataError, environment.MachineError)
PLAN, OTHERS, CONDUCT, OUTPUT = "What is measured", "In presets of other tasks", "How", "Output"


class Grouped(click.Command):
    """A command whose help lists its options in groups."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title in (PLAN, OTHERS, CONDUCT, OUTPUT):
            own = [each for each in self.get_params(ctx) if getattr(each, "group", OUTPUT) == title]
            rows = [row for each in own if (row := each.get_help_record(ctx)) is not None]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Option(click.Option):
    """An option that stands in a group of the help."""

    def __init__(self, *args: Any, group: str = OUTPUT, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group


def plan_options(defaults: Plan, names: Iterable[str], flags: Mapping[str, tuple[str, ...]]) -> Iterator[Option]:
    """An option for each setting of those names; what a plan has as its default is told."""
    for each in dict.fromkeys(names):
        yield Option(
            [*flags.get(each, BY_NAME[each].options), each], type=cli.Value(BY_NAME[each]),
            help=BY_NAME[each].help(), group=PLAN if each in defaults else OTHERS,
            show_default=(session.told(defaults[each]) or "none") if each in defaults else False,
        )  # fmt: skip


def plan_command(
    name: str, about: str | None, *, preset: str, stem: str, also: tuple[str, ...] = (),
    flags: dict[str, tuple[str, ...]] | None = None,
) -> click.Command:  # fmt: skip
    """A command that runs plans.

    Args:
        name: of the command, ``bench.NAME``.
        about: its first line is the help's.
        preset: the default one; its settings are the command's options.
        stem: of the results folder's name where none is given.
        also: tasks that it runs beside those of the default preset.
        flags: other spellings of some settings' options.
    """
    defaults = Plan(presets.load(preset))  # with the defaults of the axes that the preset does not name
    # A sweep runs presets of every task, so that all settings are its options; those of its own come first.
    known = (*defaults.tasks, *also)
    others = BY_NAME if name == "sweep" else [BY_FIELD[each].name for task in also for each in tasks.find(task).axes]
    names = [*(each for each in defaults if each != "tasks" or name == "sweep"), *others]
    options: list[click.Parameter] = [*plan_options(defaults, names, flags or {})]
    add = partial(Option, group=CONDUCT)
    options += [
        add(["--preset"], default=preset, show_default=True,
            help=f"{', '.join(_presets(name, known))}, or a .toml file."),
        add(["--data"], type=cli.PathType(), help="Folder of the data set, where it is not in the cache."),
        add(["--verify/--no-verify"], default=True, show_default=True,
            help="Compare results with the reference before timing."),
        add(["--skip-ahead/--no-skip-ahead"], default=True, show_default=True,
            help="Leave out cells larger than one that ran out of memory or time."),
        add(["--seconds"], type=click.FloatRange(min=0, min_open=True),
            help="Stop after so long, once the cell that runs has ended; --resume goes on."),
        add(["--on"], type=cli.On(), default=LOCAL, show_default=True,
            help="Where cells run: local, ray (the running cluster; ray:local starts one here, ray:ADDRESS), or slurm "
            "(slurm:local: submitit's jobs on this machine)."),
        add(["--workers"], type=click.IntRange(min=1, max=10_000), default=1, show_default=True,
            help="Jobs of Slurm that measure at the same time."),
        add(["--unlike-machines", "unlike"], is_flag=True,
            help="Let machines that are not alike take part; their readings are never pooled."),
        add(["--resume"], is_flag=True, help="Run what is missing in --out, with the settings found there."),
        add(["--retry"], is_flag=True, help="With --resume, run again what ended in an error."),
        Option(["--out"], type=cli.PathType(), show_default=f"results/{stem}-TIME", help="Results folder."),
        Option(["--list", "listing"], is_flag=True, help="Show the cells and run nothing."),
        Option(["--quiet"], is_flag=True, help="No progress."),
        Option(["--json", "as_json"], is_flag=True, help="Cells (with --list) or records as JSON on standard output."),
    ]  # fmt: skip
    return Grouped(
        name, params=options, callback=partial(run, name, preset, stem, known), help=(about or "").splitlines()[0]
    )


def _presets(name: str, tasks: Sequence[str]) -> list[str]:
    """Presets with one of a command's own tasks; a sweep takes all."""
    known = presets.names()
    return known if name == "sweep" else [each for each in known if set(presets.load(each)["tasks"]) & set(tasks)]


def run(
    name: str, base: str, stem: str, known: Sequence[str], *, preset: str, out: Path | None, resume: bool, retry: bool,
    listing: bool, as_json: bool, quiet: bool, seconds: float | None, data: Path | None, verify: bool,
    skip_ahead: bool, on: str, workers: int, unlike: bool, **flags: Any,
) -> int:  # fmt: skip
    """Begin or continue a run, then show what it holds."""
    given = {each: value for each, value in flags.items() if value is not None}
    if (resume or retry) and (out is None or not resume):
        raise click.UsageError("--resume needs --out, the folder to continue, and --retry needs --resume")
    if data is not None and not resume and preset == base and "datasets" not in given:
        raise click.UsageError("--data needs --dataset NAME, the data set that the folder holds")
    conduct = session.Conduct(
        command=f"bench.{name}", argv=[f"bench.{name}", *map(printable, sys.argv[1:])], verify=verify, retry=retry,
        skip_ahead=skip_ahead, seconds=seconds or 0.0, data=data, quiet=quiet,
        on=on, workers=workers, unlike=unlike,
        say=partial(cli.err.print, markup=False, soft_wrap=True), warn=cli.complain,
        check=partial(check_data, data=data),
    )  # fmt: skip
    if resume and not listing:
        assert out is not None
        wanted = {**(presets.load(preset, "") if preset != base else {}), **given}
        return guarded(out, partial(session.resume, out, wanted, frozenset(given), conduct), as_json=as_json)
    plan = Plan({**presets.load(preset, base), **given}, frozenset(given))
    if name != "sweep" and not set(plan.tasks) & set(known):
        raise PlanError(
            f"preset {preset} is of {', '.join(plan.tasks)}; run it by: python -m bench.sweep --preset {preset}"
        )
    if listing:
        show_cells(plan.resolved(_listed_on(plan)), as_json=as_json)
        return 0
    folder = out or Path("results") / datetime.now(UTC).strftime(f"{stem}-%Y%m%d-%H%M%S")
    return guarded(folder, partial(session.begin, plan, folder, conduct), as_json=as_json)


def _listed_on(plan: Plan) -> str:
    """The device that cells are listed for: that of the plan, or what this machine has."""
    if plan.device != AUTO:
        return str(plan.device)
    try:
        return environment.resolve_device(AUTO, environment.probe())
    except RunError:  # nothing can be measured here
        return "cpu"


def guarded(folder: Path, work: Callable[[], None], *, as_json: bool) -> int:
    """Run a session and conclude it; the exit code tells whether it was brought to its end and gave any number."""
    try:
        work()
    except session.TimeIsUpError as stopped:
        cli.conclude(folder, show, as_json=as_json)
        cli.complain(str(stopped))
        return cli.EXIT_INTERRUPTED
    except session.InterruptedRunError as stopped:
        cli.complain(str(stopped))
        return cli.EXIT_INTERRUPTED
    return cli.conclude(folder, show, as_json=as_json)


def check_data(plan: Plan, *, data: Path | None) -> None:
    """Read every data set once, so that what is wrong with it is told before anything runs."""
    from bench.data import adapter, cache

    names = plan.get("datasets", ())
    if data is not None and len(names) != 1:
        raise click.UsageError(
            "--data is the folder of one data set, for a plan with one --dataset; or set FTMAMBA_DATA"
        )
    for name in names:
        cache.load(adapter(name), data)


def show(run: Run) -> None:
    """Print what the records say."""
    from bench.render.terminal import print_run

    print_run(run, cli.out)
    if run.folder is not None and (run.folder / TRACES).is_dir():
        line = f"traces:  {printable(str(run.folder))}/{TRACES} (open in ui.perfetto.dev)"
        cli.out.print(line, markup=False, soft_wrap=True)


def show_cells(plan: Plan, *, as_json: bool) -> None:
    """Print every cell with the axes that vary, its analytic cost, and roughly how long it takes."""
    from dataclasses import asdict

    from bench.render import words

    cells = plan.cells()
    costs = [cost_of(cell) for cell in cells]
    if as_json:
        pairs = zip(cells, costs, strict=True)
        print(json.dumps([{"cell_id": c.id, "cell": dict(c), "cost": cost and asdict(cost)} for c, cost in pairs]))
        return
    n_cores = plan.get("threads") or os.cpu_count() or 1
    seconds = [expected_s(*pair, plan.get("budget_s", 0.0), n_cores) for pair in zip(cells, costs, strict=True)]
    varying = words.varying(cells)
    rows = [
        (escape(cell.id), *(escape(_shown(cell.get(name))) for name in varying), *_amounts(cost, each))
        for cell, cost, each in zip(cells, costs, seconds, strict=True)
    ]
    cli.print_table(rows, ("cell", *varying, "GFLOP", "least peak MiB", "about s"), n_numbers=3)
    known = [each for each in seconds if each is not None]
    time = f", about {words.duration(plan.rounds * sum(known))} on a quiet machine" if known else ""
    unknown = len(cells) - len(known)
    time += f"; how long {words.count(unknown, 'cell')} of them will train is not known" if unknown else ""
    same = words.setting({name: value for name, value in cells[0].items() if name not in varying})
    cli.out.print(f"all: {same}", markup=False, soft_wrap=True)
    cli.out.print(f"{words.count(len(cells), 'cell')}, {words.count(plan.rounds, 'round')}, device {plan.device}{time}",
                  markup=False, soft_wrap=True)  # fmt: skip


def _amounts(cost: Cost | None, seconds: float | None) -> tuple[str, str, str]:
    if cost is None or seconds is None:
        return "", "", ""
    return f"{cost.flops / 1e9:.4g}", f"{cost.peak_bytes / 2**20:.4g}", f"{seconds:.0f}"


def _shown(value: object) -> str:
    """A value of an axis; a mixer's parameters with their names."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    return session.told(value) if value is not None else ""
