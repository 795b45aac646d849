"""What changed between two runs, cell by cell: same, faster, slower, or not to be told from these readings.

    python -m bench.compare results/BEFORE results/AFTER --fail-over 5%

Takes results folders, and JSON files of pytest-benchmark.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from bench import cli
from bench.analysis.cells import METRICS, TIME
from bench.analysis.compare import compare as compare_runs
from bench.records.pytest_benchmark import load_results
from bench.records.store import RunError
from bench.records.text import printable
from bench.render.comparison import comparison_blocks, comparison_data
from bench.render.terminal import print_blocks


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


@click.command("compare", help=(__doc__ or "").splitlines()[0])
@click.argument("before", type=cli.PathType())
@click.argument("after", type=cli.PathType())
@click.option("--metric", type=click.Choice(METRICS), default=TIME, show_default=True)
@click.option("--margin", type=Percent(), default="3%", show_default=True, help="A difference that does not matter.")
@click.option("--fail-over", type=Percent(), help="Exit with code 1 if a cell is slower by more or lost.")
@click.option("--json", "as_json", is_flag=True, help="As JSON on standard output.")
def compare(
    before: Path, after: Path, metric: str, margin: float, fail_over: float | None, as_json: bool
) -> int | None:
    runs = [load_results(path) for path in (before, after)]
    change = compare_runs(*runs, metric=metric, margin=margin)
    if as_json:
        print(json.dumps(comparison_data(change, str(before), str(after)), indent=1, allow_nan=False, default=str))
    else:
        print_blocks(comparison_blocks(change, runs[0].name, runs[1].name), cli.out)
    if fail_over is None:
        return None
    if not change.cells:
        raise RunError("no cell has a number in both runs, so that --fail-over has nothing to go by")
    failures = change.failures(fail_over)
    for each in failures:
        print(f"regression: {printable(each)}", file=sys.stderr)
    return cli.EXIT_FAILED if failures else 0


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(compare, argv, errors=(RunError,))


if __name__ == "__main__":
    sys.exit(main())
