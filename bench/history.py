"""How long each cell took over runs, commits and machines, with the steps that bench.compare would tell.

    python -m bench.history results/MONDAY results/TUESDAY results/TODAY

Writes ``reports/history.html`` and prints the same. Runs are taken by the time at which they began; each machine has a
line of its own, since only readings of one machine compare.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from bench import cli
from bench.analysis.past import machine_of, pasts
from bench.compare import Percent, by_metric, compared
from bench.records.pytest_benchmark import load_results
from bench.records.store import RunError
from bench.render.page import document, write_atomically
from bench.render.past import past_sections
from bench.render.terminal import print_blocks


@click.command("history", help=(__doc__ or "").splitlines()[0])
@click.argument("results", nargs=-1, required=True, type=cli.PathType())
@click.option("--metric", show_default="wall_s, of rankings ndcg@10", help="A cost, or such as recall@5.")
@click.option("--margin", type=Percent(), default="3%", show_default=True, help="A difference that does not matter.")
@click.option("--out", type=cli.PathType(), show_default="reports/history.html", help="The page.")
def history(results: tuple[Path, ...], metric: str | None, margin: float, out: Path | None) -> None:
    path = out or cli.report_path("history")
    if path.suffix != ".html":
        raise click.BadParameter(f"{path} does not end in .html", param_hint="--out")
    runs = [load_results(each) for each in results]
    metric = by_metric(metric, *runs)
    found = pasts(runs, partial(compared, metric=metric, margin=margin))
    if not found:
        raise RunError(f"no cell of these results has a number of {metric}")
    parts = past_sections(found, metric)
    for part in parts:
        print_blocks(part.blocks, cli.out)
    machines = ", ".join(dict.fromkeys(filter(None, (machine_of(run.meta) for run in runs))))
    answer = f"{sum(len(past.steps) for past in found)} steps in {len(found)} cells"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, document("What changed over time?", f"{len(runs)} runs; {machines}", answer, parts))
    except OSError as error:
        raise RunError(f"cannot write {error.filename or path}: {error.strerror}") from None
    cli.out.print(f"report:  {path}", markup=False, soft_wrap=True)


main = partial(cli.run, history, errors=(RunError,))

if __name__ == "__main__":
    sys.exit(main())
