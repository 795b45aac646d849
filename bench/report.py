"""One page from one or more results folders: who wins where, how cost grows, how well models rank.

    python -m bench.report results/NAME

Writes ``reports/NAME.html``, which needs no network and no other file.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from bench import cli
from bench.records.pytest_benchmark import load_results
from bench.records.store import RunError
from bench.render.assets import write_assets
from bench.render.findings import Findings
from bench.render.index import write_index
from bench.render.page import sections, write_report


@click.command("report", help=(__doc__ or "").splitlines()[0])
@click.argument("results", nargs=-1, required=True, type=cli.PathType())
@click.option("--out", type=cli.PathType(), show_default="reports/NAME.html", help="The page.")
@click.option(
    "--assets",
    is_flag=True,
    help="Also write pictures as SVG, PNG and PDF and tables as CSV and LaTeX beside the page.",
)
@click.option("--index", is_flag=True, help="Also list all pages of that folder in its index.html.")
def report(results: tuple[Path, ...], out: Path | None, assets: bool, index: bool) -> None:
    runs = [load_results(each) for each in results]
    path = out or cli.report_path("+".join(run.name for run in runs))
    if path.suffix != ".html":
        raise click.BadParameter(f"{path} does not end in .html", param_hint="--out")
    try:
        cli.out.print(f"report:  {write_report(runs, path)}", markup=False, soft_wrap=True)
        if assets:
            folder = path.with_suffix("")
            written = write_assets(sections(Findings.of(runs)), folder)
            cli.out.print(f"assets:  {folder} ({len(written)} files)", markup=False, soft_wrap=True)
        if index:
            cli.out.print(f"index:   {write_index(path.parent)}", markup=False, soft_wrap=True)
    except OSError as error:
        raise RunError(f"cannot write {error.filename or path}: {error.strerror}") from None


main = partial(cli.run, report, errors=(RunError,))

if __name__ == "__main__":
    sys.exit(main())
