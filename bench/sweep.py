"""How cost grows with sequence length: time and memory of every cell of a sweep.

    python -m bench.sweep --lengths 100,1000,10000

Writes ``results/NAME/run.json`` and ``records.jsonl``, prints what they say, and writes ``reports/NAME.html``.
"""

from __future__ import annotations

import json
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bench import cli
from bench.plan import presets
from bench.plan.choices import DEVICES, DTYPES, EXECUTIONS, HEAPS, MIXERS, TASKS
from bench.plan.sweep import PlanError, Sweep
from bench.plan.tower import cell_cost
from bench.records.record import Record
from bench.records.store import Run, RunError, run_name
from bench.records.text import printable
from bench.records.writer import RunWriter
from bench.run import environment, provenance
from bench.run.progress import Progress
from bench.run.runner import Runner, missing, plan

DEFAULTS = presets.load("default")
BUSY_CORES = 0.25  # other work beyond this makes a cell's times doubtful
IDENTITY: dict[str, Callable[[Any], Any]] = {  # what has to be the same throughout a run
    "processor": lambda machine: machine["cpu"]["model"],
    "GPUs": lambda machine: [gpu["name"] for gpu in machine["gpus"]],
    "torch": lambda machine: machine["torch"]["version"],
}


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How to go about a sweep; none of it changes what is measured."""

    skip_ahead: bool
    verify: bool
    quiet: bool
    as_json: bool


def setting(flag: str, name: str, kind: Any, about: str) -> Callable[[Any], Any]:
    """An option that sets ``name`` of the sweep; without it the preset's value stands."""
    default = DEFAULTS[name]
    shown = ",".join(map(str, default)) if isinstance(default, list) else str(default) or "none"
    return click.option(flag, name, type=kind, default=None, show_default=shown, help=about)


@click.command("sweep", help=f"{(__doc__ or '').splitlines()[0]}  Defaults are those of the preset `default`.")
@setting("--lengths", "lengths", cli.IntList(), "Numbers of tokens L, [CLS] included.")
@setting("--batch-sizes", "batch_sizes", cli.IntList(), "Rows a step.")
@setting("--layers", "layers", cli.IntList(), "Blocks a tower.")
@setting("--d-model", "d_model", cli.IntList(), "Width of a token.")
@setting("--mixers", "mixers", cli.CommaList(), f"Of {', '.join(MIXERS)}.")
@setting("--tasks", "tasks", cli.CommaList(), f"Of {', '.join(TASKS)}.")
@setting("--backends", "backends", cli.CommaList(), "Each mixer takes the names that are its own; see bench.env.")
@setting("--dtype", "dtype", cli.CommaList(), f"Of {', '.join(DTYPES)}.")
@setting("--execution", "execution", cli.CommaList(), f"Of {', '.join(EXECUTIONS)}.")
@setting("--device", "device", str, f"auto, {' or '.join(DEVICES)}.")
@setting("--rounds", "rounds", int, "Passes over all cells, each in a fresh random order.")
@setting("--budget", "budget_s", float, "Seconds of timed iterations a cell and round.")
@setting("--timeout", "timeout_s", float, "Seconds after which a cell's process is ended.")
@setting("--most-tokens", "most_tokens", int, "Leave out points of more tokens a step, B times L; 0: none.")
@setting("--threads", "threads", int, "CPU threads of a cell; 0 leaves it to torch.")
@setting("--seed", "seed", int, "Of weights, inputs and the order of cells.")
@setting("--paired-with", "paired_with", str, "Time every cell in turn with this MIXER[/BACKEND] in one process.")
@setting("--heap", "heap", str, f"Of {', '.join(HEAPS)}: whether freed memory is kept while steps are timed.")
@click.option(
    "--preset", default="default", show_default=True, help=f"{', '.join(presets.names())}, or the path of a .toml file."
)
@click.option("--out", type=cli.PathType(), show_default="results/local-TIME", help="Results folder.")
@click.option("--resume", is_flag=True, help="Run only what is missing in --out, with the settings found there.")
@click.option("--skip-ahead/--no-skip-ahead", default=True, show_default=True,
              help="Leave out cells larger than one that ran out of memory or time.")  # fmt: skip
@click.option(
    "--verify/--no-verify", default=True, show_default=True, help="Compare results with the reference before timing."
)
@click.option("--list", "listing", is_flag=True, help="Show the cells and run nothing.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Cells (with --list) or records as JSON on standard output.")
def sweep(
    preset: str, out: Path | None, resume: bool, skip_ahead: bool, verify: bool, listing: bool, quiet: bool,
    as_json: bool, **flags: Any,
) -> int | None:  # fmt: skip
    manner = Manner(skip_ahead=skip_ahead, verify=verify, quiet=quiet, as_json=as_json)
    given = {name: value for name, value in flags.items() if value is not None}
    if resume and out is None:
        raise click.UsageError("--resume needs --out, the folder to continue")
    if resume and not listing and out is not None:
        return continue_run(out, {**(presets.load(preset) if preset != "default" else {}), **given}, manner)
    wanted = Sweep.from_dict({**presets.load(preset), **given})
    if listing and wanted.device == "cpu":
        show_cells(wanted.resolved("cpu"), as_json=as_json)
        return None
    if listing:
        show_cells(resolve(wanted, environment.probe()), as_json=as_json)
        return None
    machine = probe(wanted)
    resolved = resolve(wanted, machine)
    folder = out or Path("results") / datetime.now(UTC).strftime("local-%Y%m%d-%H%M%S")
    meta = provenance.run_meta("sweep", run_name(folder), command_line(), resolved.to_dict(), machine)
    with RunWriter.create(folder, meta) as writer:
        return execute(resolved, machine, writer, manner)


def probe(wanted: Sweep) -> dict[str, Any]:
    """Facts about this machine, and its best rates with the sweep's dtypes and threads."""
    return environment.probe(roof_device=wanted.device, dtypes=wanted.dtype, threads=wanted.threads)


def resolve(wanted: Sweep, machine: dict[str, Any]) -> Sweep:
    """The sweep with an exact device, exact backends and a count of threads; every cell is checked."""
    device = environment.resolve_device(wanted.device, machine)
    resolved = wanted.resolved(device, threads=wanted.threads or machine["threads"]["torch"])
    resolved.cells()
    return resolved


def continue_run(folder: Path, given: dict[str, Any], manner: Manner) -> int | None:
    """Run what is missing in ``folder``, on the same machine and with the same settings."""
    with RunWriter.resume(folder) as writer:
        if writer.meta.get("kind") != "sweep" or not isinstance(writer.meta.get("spec"), dict):
            raise RunError(f"{folder} does not hold a sweep")
        saved = Sweep.from_dict(writer.meta["spec"])
        machine = environment.probe()
        wanted = resolve(Sweep.from_dict({**saved.to_dict(), **given}), machine)
        changed = [name for name, value in saved.to_dict().items() if wanted.to_dict()[name] != value]
        if changed:
            name = changed[0]
            raise RunError(
                f"{folder} was begun with {name} {saved.to_dict()[name]}, not {wanted.to_dict()[name]}; "
                "leave it out or choose another --out"
            )
        check_same_machine(folder, writer.meta.get("machine") or {}, machine)
        for problem in writer.problems:
            cli.complain(problem)
        return execute(saved, machine, writer, manner)


def check_same_machine(folder: Path, saved: object, machine: dict[str, Any]) -> None:
    """Refuse to mix machines, or versions of torch, in one run."""
    for what, identify in IDENTITY.items():
        try:
            before = identify(saved)
        except (KeyError, TypeError):
            before = "unknown"
        if before != identify(machine):
            raise RunError(f"{folder} was begun with {what} {before}, and here is {identify(machine)}; start a new run")


def execute(resolved: Sweep, machine: dict[str, Any], writer: RunWriter, manner: Manner) -> int | None:
    """Run the sweep into an open results folder, then print what it holds and write the report."""
    session: dict[str, Any] = {
        "argv": command_line(), "git": provenance.git_state(), "started_at": provenance.utc_now(), "ended_at": None,
    }  # fmt: skip
    earlier = writer.meta.get("sessions")
    sessions = [*(earlier if isinstance(earlier, list) else []), session]
    writer.update_meta(sessions=sessions)
    folder = printable(str(writer.folder))
    if not manner.quiet:
        cli.err.print(f"records go to {folder}", markup=False, soft_wrap=True)
    todo, total = len(missing(resolved, writer.records)), len(plan(resolved))
    runner = Runner(resolved, machine, writer, skip_ahead=manner.skip_ahead, verify=manner.verify)
    try:
        with Progress(todo, total - todo, quiet=manner.quiet) as progress:
            runner.run(progress.advance)
    except KeyboardInterrupt:
        session["ended_at"] = provenance.utc_now()
        writer.update_meta(sessions=sessions)
        cli.complain(
            f"interrupted; all finished records are in {folder}; "
            f"continue with: python -m bench.sweep --resume --out {shlex.quote(folder)}"
        )
        return cli.EXIT_INTERRUPTED
    session["ended_at"] = provenance.utc_now()
    writer.update_meta(sessions=sessions, ended_at=session["ended_at"])
    return cli.conclude(writer.folder, show, as_json=manner.as_json)


def show(run: Run) -> None:
    """Print what the records say."""
    from bench.analysis.scaling import summarise
    from bench.render.terminal import print_summary

    print_summary(summarise(run.records), cli.out)
    print_harness(run.records)


def print_harness(records: Sequence[Record]) -> None:
    """Print what the harness took for itself, and what others took of the machine meanwhile."""
    ran = [record.env for record in records if record.status == "ok" and "overhead_s" in record.env]
    if ran:
        overhead_s = statistics.median(env["overhead_s"] for env in ran)
        cli.out.print(f"harness: {overhead_s:.1f} s a cell outside the measured code (median)", soft_wrap=True)
    busy = [env["other_busy_cores"] for env in ran if env["other_busy_cores"] > BUSY_CORES]
    if busy:
        cli.out.print(
            f"warning: {len(busy)} of {len(ran)} cells ran beside other work, on up to {max(busy):.1f} cores; "
            "their times are too long by an unknown amount, so run them again on an idle machine",
            soft_wrap=True,
        )
    stopped = [record.notes["throttled_fraction"] for record in records if record.values.get("throttled_fraction")]
    if stopped:
        why = ", ".join(sorted(set(stopped)))
        yield f"warning: {len(stopped)} of {len(ran)} cells were slowed down while they were timed ({why})"


def show_cells(resolved: Sweep, *, as_json: bool) -> None:
    """Print every cell with its analytic cost."""
    cells = resolved.cells()
    if as_json:
        print(
            json.dumps([{"cell_id": cell.id, "cell": asdict(cell), "cost": asdict(cell_cost(cell))} for cell in cells])
        )
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("cell", overflow="fold")
    for name in ("layers", "d_model", "dtype", "GFLOP", "least peak MiB"):
        table.add_column(name, justify="right")
    for cell in cells:
        cost = cell_cost(cell)
        table.add_row(
            cell.id, str(cell.n_layers), str(cell.d_model), cell.dtype, f"{cost.flops / 1e9:.4g}",
            f"{cost.peak_bytes / 2**20:.4g}",
        )  # fmt: skip
    cli.out.print(table)
    cli.out.print(f"{len(cells)} cells, {resolved.rounds} rounds, device {resolved.device}")


def command_line() -> list[str]:
    return ["bench.sweep", *map(printable, sys.argv[1:])]


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(sweep, argv, errors=(PlanError, RunError, environment.MachineError))


if __name__ == "__main__":
    sys.exit(main())
