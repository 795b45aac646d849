"""How well towers rank: trains two-tower models on a data set and ranks its whole catalogue for every test user.

    python -m bench.quality --dataset movielens-100k --mixers mamba,attention --seeds 0,1,2

Writes ``results/NAME/run.json``, ``records.jsonl`` and ``per_user/``, prints what they say, and writes
``reports/NAME.html``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from bench import cli
from bench.data import DATASETS, adapter, cache
from bench.data.files import DataError
from bench.plan import studies
from bench.plan.choices import DEVICES
from bench.plan.match import MATCHES
from bench.plan.study import BASELINES, BATCH_SIZES, FEATURES, LOSSES, PROTOCOLS, STEPS, Study
from bench.plan.sweep import PlanError
from bench.records.store import Run, RunError, run_name
from bench.records.writer import RunWriter
from bench.run import environment, provenance
from bench.run.progress import Progress
from bench.run.study import StudyRunner, missing
from ftmamba.spec import MIXERS


class FloatList(cli.CommaList):
    """``0.1,0.2`` as a list of numbers."""

    name = "x,y,z"

    def convert_part(self, part: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return float(part)
        except ValueError:
            self.fail(f"{ascii(part)[:80]} is not a number", param, ctx)


def _shown(defaults: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in defaults.items())


def setting(flag: str, name: str, kind: Any, about: str) -> Callable[[Any], Any]:
    """An option that sets ``name`` of the study; without it the preset's value stands."""
    default = studies.DEFAULT[name]
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return click.option(flag, name, type=kind, default=None, show_default=shown, help=about)


@click.command("quality", help=f"{(__doc__ or '').splitlines()[0]}  Defaults are those of the preset `default`.")
@setting("--dataset", "datasets", cli.CommaList(), f"Of {', '.join(DATASETS)}.")
@setting("--mixers", "mixers", cli.CommaList(), f"Of {', '.join(MIXERS)}.")
@setting("--baselines", "baselines", cli.CommaList(), f"Of {', '.join(BASELINES)}.")
@setting("--seeds", "seeds", cli.IntList(), "Of weights, pairs and negatives.")
@setting("--protocol", "protocol", str, f"{' or '.join(PROTOCOLS)}: full takes every test user and keeps "
         "the weights that were best on validation; paper takes 100 users and trains for all steps.")  # fmt: skip
@setting("--features", "features", str, f"{' or '.join(FEATURES)}: whether the row's id is one more column.")
@setting("--loss", "losses", cli.CommaList(), f"Of {', '.join(LOSSES)}.")
@setting("--match", "match", str, f"{' or '.join(MATCHES)}: the same layers, or also the same number of parameters.")
@setting("--layers", "layers", int, "Blocks a tower.")
@setting("--d-model", "d_model", int, "Width of a token.")
@setting(
    "--batch-size",
    "batch_size",
    int,
    f"Pairs a step (softmax: positives); 0 takes the loss's own, {_shown(BATCH_SIZES)}.",
)
@setting("--steps", "steps", int, f"Training steps, at most; 0 takes the loss's own, {_shown(STEPS)}.")
@setting("--learning-rates", "learning_rates", FloatList(), "Each is tried in full; validation chooses.")
@setting("--negatives", "negatives", int, "Sampled for each positive (mse and bce).")
@setting("--id-dropout", "id_dropout", float, "Share of ids hidden in training, for those who come new.")
@setting("--at", "ks", cli.IntList(), "Cut-offs k of the metrics.")
@setting("--device", "device", str, f"auto, {' or '.join(DEVICES)}.")
@setting("--threads", "threads", int, "CPU threads of a cell; 0 leaves it to torch.")
@setting("--timeout", "timeout_s", float, "Seconds after which a cell's process is ended.")
@click.option("--data", type=cli.PathType(), help="Folder of the data set, where it is not in the cache.")
@click.option("--preset", default="default", show_default=True, help=f"{', '.join(studies.PRESETS)}.")
@click.option("--out", type=cli.PathType(), show_default="results/quality-TIME", help="Results folder.")
@click.option("--resume", is_flag=True, help="Run only what is missing in --out, with the settings found there.")
@click.option("--list", "listing", is_flag=True, help="Show the cells and run nothing.")
@click.option("--quiet", is_flag=True, help="No progress.")
@click.option("--json", "as_json", is_flag=True, help="Cells (with --list) or records as JSON on standard output.")
def quality(
    data: Path | None, preset: str, out: Path | None, resume: bool, listing: bool, quiet: bool, as_json: bool,
    **flags: Any,
) -> int | None:  # fmt: skip
    given = {name: value for name, value in flags.items() if value is not None}
    if resume and out is None:
        raise click.UsageError("--resume needs --out, the folder to continue")
    if resume and out is not None and not listing:
        return continue_study(out, given, data, quiet=quiet, as_json=as_json)
    wanted = Study.from_dict({**studies.load(preset), **given})
    if listing:
        show_cells(wanted if wanted.device != "auto" else replace(wanted, device="cpu"), as_json=as_json)
        return None
    check_data(wanted, data)
    machine = environment.probe()
    device = environment.resolve_device(wanted.device, machine)
    study = replace(wanted, device=device, threads=wanted.threads or machine["threads"]["torch"])
    study.cells()
    folder = out or Path("results") / datetime.now(UTC).strftime("quality-%Y%m%d-%H%M%S")
    meta = provenance.run_meta("quality", run_name(folder), command_line(), study.to_dict(), machine)
    with RunWriter.create(folder, meta) as writer:
        return execute(study, machine, writer, data, quiet=quiet, as_json=as_json)


def check_data(study: Study, data: Path | None) -> None:
    """Read every data set once, so that what is wrong with it is told before anything runs."""
    if data is not None and len(study.datasets) > 1:
        raise click.UsageError("--data is the folder of one data set; give one --dataset, or set FTMAMBA_DATA")
    for name in study.datasets:
        cache.load(adapter(name), data)


def continue_study(folder: Path, given: dict[str, Any], data: Path | None, *, quiet: bool, as_json: bool) -> int | None:
    """Run what is missing in ``folder``, with the same settings."""
    with RunWriter.resume(folder) as writer:
        if writer.meta.get("kind") != "quality" or not isinstance(writer.meta.get("spec"), dict):
            raise RunError(f"{folder} does not hold a run of bench.quality")
        study = Study.from_dict(writer.meta["spec"])
        for name, value in Study.from_dict({**study.to_dict(), **given}).to_dict().items():
            if value != study.to_dict()[name]:
                raise RunError(
                    f"{folder} was begun with {name} {study.to_dict()[name]}, not {value}; "
                    "leave it out or choose another --out"
                )
        check_data(study, data)
        for problem in writer.problems:
            cli.complain(problem)
        return execute(study, environment.probe(), writer, data, quiet=quiet, as_json=as_json)


def execute(
    study: Study, machine: dict[str, Any], writer: RunWriter, data: Path | None, *, quiet: bool, as_json: bool
) -> int | None:
    """Run the study into an open results folder, then print what it holds and write the report."""
    session: dict[str, Any] = {
        "argv": command_line(), "git": provenance.git_state(), "started_at": provenance.utc_now(), "ended_at": None,
    }  # fmt: skip
    earlier = writer.meta.get("sessions") or []
    writer.update_meta(sessions=[*earlier, session])
    todo = len(missing(study, writer.records))
    if not quiet:
        cli.err.print(f"records go to {writer.folder}", markup=False, soft_wrap=True)
    try:
        with Progress(todo, len(study.cells()) - todo, quiet=quiet) as progress:
            StudyRunner(study, machine, writer, data=data).run(progress.advance)
    except KeyboardInterrupt:
        session["ended_at"] = provenance.utc_now()
        writer.update_meta(sessions=[*earlier, session])
        cli.complain(
            f"interrupted; all finished records are in {writer.folder}; "
            f"continue with: python -m bench.quality --resume --out {writer.folder}"
        )
        return cli.EXIT_INTERRUPTED
    session["ended_at"] = provenance.utc_now()
    writer.update_meta(sessions=[*earlier, session], ended_at=session["ended_at"])
    return cli.conclude(writer.folder, show, as_json=as_json)


def show(run: Run) -> None:
    """Print what the records say."""
    from bench.analysis.quality import quality_of
    from bench.render.quality_tables import print_quality

    print_quality(quality_of(run), cli.out)


def show_cells(study: Study, *, as_json: bool) -> None:
    """Print every cell."""
    cells = study.cells()
    if as_json:
        print(json.dumps([{"cell_id": cell.id, "cell": asdict(cell)} for cell in cells]))
        return
    for cell in cells:
        cli.out.print(cell.id, soft_wrap=True)
    cli.out.print(f"{len(cells)} cells, device {study.device}")


def command_line() -> list[str]:
    return ["bench.quality", *sys.argv[1:]]


def main(argv: Sequence[str] | None = None) -> int:
    errors = (PlanError, RunError, DataError, environment.MachineError)
    return cli.run(quality, argv, errors=errors)


if __name__ == "__main__":
    sys.exit(main())
