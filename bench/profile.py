"""Where the time and the memory of one cell go: by region of the step, by op, against the machine's roof.

    python -m bench.profile --mixer mamba --length 1000

Writes ``results/NAME/`` with a trace for Perfetto, prints one table a cell, and writes ``reports/NAME.html``. Steps run
eagerly: compiled ones have no regions left.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from bench import cli
from bench.plan import presets
from bench.plan.choices import DEVICES, DTYPES, MIXERS, TASKS
from bench.plan.sweep import PlanError, Sweep
from bench.records.store import Run, RunError, run_name
from bench.records.text import printable
from bench.records.writer import RunWriter
from bench.run import environment, provenance
from bench.run.profiler.worker import command
from bench.run.progress import Progress
from bench.run.runner import Runner, missing, plan
from bench.sweep import print_harness

DEFAULTS = {
    **presets.load("default"),
    "lengths": [1000], "tasks": ["train_step"], "execution": ["eager"], "rounds": 1, "budget_s": 2.0, "timeout_s": 600,
}  # fmt: skip
TRACES = "traces"


def setting(flags: Sequence[str], name: str, kind: Any, about: str) -> Callable[[Any], Any]:
    """An option that sets ``name`` of the plan."""
    default = DEFAULTS[name]
    shown = ",".join(map(str, default)) if isinstance(default, list) else str(default)
    return click.option(*flags, name, type=kind, default=None, show_default=shown, help=about)


@click.command("profile", help=(__doc__ or "").splitlines()[0])
@setting(("--lengths", "--length"), "lengths", cli.IntList(), "Numbers of tokens L, [CLS] included.")
@setting(("--mixers", "--mixer"), "mixers", cli.CommaList(), f"Of {', '.join(MIXERS)}.")
@setting(("--tasks", "--task"), "tasks", cli.CommaList(), f"Of {', '.join(TASKS)}.")
@setting(("--batch-sizes", "--batch-size"), "batch_sizes", cli.IntList(), "Rows a step.")
@setting(("--layers",), "layers", cli.IntList(), "Blocks a tower.")
@setting(("--d-model",), "d_model", cli.IntList(), "Width of a token.")
@setting(("--backends", "--backend"), "backends", cli.CommaList(), "Each mixer takes the names that are its own.")
@setting(("--dtype",), "dtype", cli.CommaList(), f"Of {', '.join(DTYPES)}.")
@setting(("--device",), "device", str, f"auto, {' or '.join(DEVICES)}.")
@setting(("--budget",), "budget_s", float, "Seconds of timed iterations a cell.")
@setting(("--timeout",), "timeout_s", float, "Seconds after which a cell's process is ended.")
@setting(("--threads",), "threads", int, "CPU threads of a cell; 0 leaves it to torch.")
@setting(("--seed",), "seed", int, "Of weights and inputs.")
@click.option("--content-length", type=click.IntRange(2, 10_000_000),
              help="Profile two towers: the user tower at --lengths, a content tower of this many tokens.")  # fmt: skip
@click.option("--out", type=cli.PathType(), show_default="results/local-profile-TIME",
              help="Results folder.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Run only what is missing in --out, with the settings found there.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Records as JSON on standard output.")
def profile(
    content_length: int | None, out: Path | None, resume: bool, quiet: bool, as_json: bool, **flags: Any
) -> int | None:
    given = {name: value for name, value in flags.items() if value is not None}
    if resume and out is None:
        raise click.UsageError("--resume needs --out, the folder to continue")
    if resume and out is not None:
        with RunWriter.resume(out) as writer:
            spec = writer.meta.get("spec")
            if writer.meta.get("kind") != "profile" or not isinstance(spec, dict):
                raise RunError(f"{out} does not hold a run of bench.profile")
            if not isinstance(spec.get("content_tokens", 0), int):
                raise RunError(f"content_tokens of {out} is no whole number")
            return execute(spec, environment.probe(), writer, quiet=quiet, as_json=as_json)
    wanted = Sweep.from_dict({**DEFAULTS, **given})
    machine = environment.probe()
    device = environment.resolve_device(wanted.device, machine)
    resolved = wanted.resolved(device, threads=wanted.threads or machine["threads"]["torch"])
    resolved.cells()
    folder = out or Path("results") / datetime.now(UTC).strftime("local-profile-%Y%m%d-%H%M%S")
    spec = {**resolved.to_dict(), "content_tokens": content_length or 0}
    meta = provenance.run_meta("profile", run_name(folder), ["bench.profile", *sys.argv[1:]], spec, machine)
    with RunWriter.create(folder, meta) as writer:
        return execute(spec, machine, writer, quiet=quiet, as_json=as_json)


def execute(
    spec: dict[str, Any], machine: dict[str, Any], writer: RunWriter, *, quiet: bool, as_json: bool
) -> int | None:
    """Run what is missing of ``spec`` into an open results folder, then print what it holds and write the report."""
    content_length = int(spec.get("content_tokens", 0))
    resolved = Sweep.from_dict({name: value for name, value in spec.items() if name != "content_tokens"})
    runner = Runner(resolved, machine, writer, worker=command(writer.folder / TRACES, content_length))
    n_cells, todo = len(plan(resolved)), len(missing(resolved, writer.records))
    try:
        with Progress(todo, n_cells - todo, quiet=quiet) as progress:
            runner.run(progress.advance)
    except KeyboardInterrupt:
        cli.complain(
            f"interrupted; all finished records are in {writer.folder}; "
            f"continue with: python -m bench.profile --resume --out {writer.folder}"
        )
        return cli.EXIT_INTERRUPTED
    writer.update_meta(ended_at=provenance.utc_now())
    return cli.conclude(writer.folder, show, as_json=as_json)


def show(run: Run) -> None:
    """Print what the records say."""
    from bench.analysis.profile import profiles_of
    from bench.render.profiles import print_profiles

    print_profiles(profiles_of([run]), cli.out)
    cli.out.print()
    print_harness(run.records)
    traces = f"traces:  {printable(str(run.folder))}/{TRACES} (open in ui.perfetto.dev)"
    cli.out.print(traces, markup=False, soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(profile, argv, errors=(PlanError, RunError, environment.MachineError))


if __name__ == "__main__":
    sys.exit(main())
