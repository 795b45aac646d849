"""Everything that is to be measured on a GPU machine, part by part, each within its time.

    python -m bench.campaign --out results/h100

Needs no network. A part is one of the other commands, in a folder of its own below --out; what its time did not suffice
for is done by the same command again. Without a GPU, --rehearse runs all parts in small on the CPU, to show that they
work; its times mean nothing.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.table import Table

from bench import cli
from bench.data import adapter, cache
from bench.plan import studies
from bench.records.store import RunError, load_meta, load_run
from bench.records.writer import holds_run
from bench.run import environment

END_S = 60.0  # for a part to keep what it has, once its time is up
COMPLETE, TIME_IS_UP = "complete", "time is up; run the same command again to go on"


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part.

    Attributes:
        name: also its folder's.
        about: one line for people.
        command: what follows ``python -m``, without the folder.
        rehearsal: the same in small, on the CPU.
    """

    name: str
    about: str
    command: tuple[str, ...]
    rehearsal: tuple[str, ...]


def _checks(name: str, about: str) -> Part:
    command = ("bench.gpu_check", "--parts", name)
    return Part(name=name, about=about, command=command, rehearsal=(*command, "--rehearse"))


_SMALL = ("--device", "cpu", "--mixers", "attention")
PARTS = (
    _checks("correctness", "every kernel against the float64 reference, all dtypes"),
    _checks("kernels", "our kernels beside their peers and the machine's roof"),
    _checks("blocks", "whole Mamba layers beside mamba-ssm's"),
    Part(
        name="sweep",
        about="both mixers and mamba-ssm, L up to 100,000",
        command=("bench.sweep", "--preset", "h100-short"),
        rehearsal=("bench.sweep", "--preset", "smoke", "--lengths", "32,64", "--tasks", "forward", *_SMALL),
    ),
    Part(
        name="quality",
        about="the paper's protocol on every data set that is here, each step one CUDA graph",
        command=("bench.quality", "--preset", "paper", "--device", "cuda"),
        rehearsal=("bench.quality", "--preset", "paper", "--seeds", "0", "--steps", "4", "--layers", "1", *_SMALL),
    ),
    Part(
        name="profiles",
        about="where the time of four cells goes",
        command=(
            "bench.profile", "--device", "cuda", "--dtype", "bfloat16", "--batch-sizes", "32",
            "--mixers", "mamba,attention", "--lengths", "100,10000",
        ),
        rehearsal=("bench.profile", "--lengths", "20", "--budget", "0.1", *_SMALL),
    ),
    Part(
        name="grid",
        about="the full grid until memory ends, in as many turns as it takes",
        command=("bench.sweep", "--preset", "h100"),
        rehearsal=("bench.sweep", "--preset", "smoke", "--lengths", "32,64", "--tasks", "train_step", *_SMALL),
    ),
)  # fmt: skip
REPORTED = ("sweep", "quality", "profiles", "grid")


@click.command("campaign", help=(__doc__ or "").splitlines()[0])
@click.option(
    "--parts", type=cli.CommaList(), default=",".join(part.name for part in PARTS), show_default=True,
    help="Which to run.",
)  # fmt: skip
@click.option("--seconds", type=float, default=540.0, show_default=True, help="End each part after this long.")
@click.option("--out", type=cli.PathType(), required=True, help="Folder that holds a folder for each part.")
@click.option("--rehearse", is_flag=True, help="All parts in small on the CPU.")
def campaign(parts: list[str], seconds: float, out: Path, rehearse: bool) -> int:
    known = {part.name: part for part in PARTS}
    for name in parts:
        if name not in known:
            raise click.UsageError(f"there is no part {ascii(name)[:80]}; choose from {', '.join(known)}")
    if not seconds > 0:
        raise click.UsageError(f"--seconds must be positive, got {seconds:g}")
    if not rehearse:
        environment.resolve_device("cuda", environment.probe())
    states = {}
    for name in parts:
        cli.err.print(f"{name}: {known[name].about}", markup=False, soft_wrap=True)
        states[name] = run_part(known[name], out / name, seconds, rehearse=rehearse)
    failed = show(states, out)
    runs = [load_run(out / name) for name in REPORTED if holds_run(out / name)]
    if runs:
        cli.out.print(f"report:  {cli.publish(runs, out)}", markup=False, soft_wrap=True)
    return cli.EXIT_FAILED if failed or any(state not in (COMPLETE, TIME_IS_UP) for state in states.values()) else 0


def run_part(part: Part, folder: Path, seconds: float, *, rehearse: bool) -> str:
    """Run what is missing of a part, in words how that ended."""
    if is_complete(folder):
        return COMPLETE
    command = [*(part.rehearsal if rehearse else part.command), "--out", str(folder), "--quiet"]
    if holds_run(folder):
        command.append("--resume")
    elif part.name == "quality":
        command += ["--dataset", "synthetic:users=60:items=30" if rehearse else ",".join(data_sets())]
    process = subprocess.Popen([sys.executable, "-m", *command], stdout=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # like Ctrl-C: every finished record is kept
        with contextlib.suppress(subprocess.TimeoutExpired):  # then it is killed; its records are on the disk
            process.wait(END_S)
        return TIME_IS_UP
    finally:
        process.kill()
    if process.returncode not in (0, cli.EXIT_FAILED):
        return f"failed with exit code {process.returncode}"
    return COMPLETE if is_complete(folder) else TIME_IS_UP


def is_complete(folder: Path) -> bool:
    """Whether a run was brought to its end there."""
    return holds_run(folder) and bool(load_meta(folder).get("ended_at"))


def data_sets() -> list[str]:
    """Those of the committed study that are on this machine."""
    return [name for name in studies.load("study-cpu")["datasets"] if cache.is_cached(adapter(name))]


def show(states: dict[str, str], out: Path) -> bool:
    """Print how each part ended, what its cells gave, and return whether one failed."""
    table = Table("part", "cells with a number", "without", "errors", "state")
    failed = False
    for name, state in states.items():
        records = load_run(out / name).records if holds_run(out / name) else []
        statuses = [record.status for record in records]
        right, wrong = statuses.count("ok"), statuses.count("error")
        table.add_row(name, str(right), str(len(statuses) - right - wrong), str(wrong), state)
        failed |= cli.exit_code(records) != 0
    cli.out.print(table)
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(campaign, argv, errors=(RunError, environment.MachineError))


if __name__ == "__main__":
    sys.exit(main())
