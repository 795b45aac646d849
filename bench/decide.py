"""One card that decides: which mixer both towers should have, by what factor, and whether ranking suffers.

    python -m bench.decide --data csv:FOLDER --batch-size 256 --layers 3 --d-model 128

Takes L of both towers from the tables, times both with every mixer in turns, then trains and ranks, all within
``--budget`` minutes. Writes ``results/NAME-cost`` and ``results/NAME-quality``, prints the card, and writes
``reports/NAME.html``, which opens with it.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np

from bench import cli
from bench.analysis.cells import summarise_cells
from bench.analysis.towers import Towers, training_cost
from bench.command import ERRORS
from bench.data import adapter, cache
from bench.data.dataset import TEST, VALIDATION, DataSet
from bench.plan import presets
from bench.plan.axes import BY_NAME
from bench.plan.plan import Plan
from bench.plan.setting import BIGGEST, shown
from bench.records.store import Run, load_run
from bench.records.text import printable
from bench.records.writer import RunWriter
from bench.run import session

F = TypeVar("F", bound=Callable[..., Any])
COST_SHARE = 0.5  # of the budget, for timing
ASIDE = 16  # a batch of so many times fewer rows is timed too
FEWEST, MOST = 20, 800  # training steps: fewer train nothing, more are rarely needed with the softmax loss
LOOKS = 10  # at the validation split that a training takes
START_S = 10.0  # of a process that trains
LEAST_S = 120.0  # that a training may take, whatever is left


def _axis(name: str, **kwargs: Any) -> Callable[[F], F]:
    setting = BY_NAME[name]
    return click.option(*setting.options, name, type=cli.Value(setting), help=setting.help(), **kwargs)


@click.command("decide", help=(__doc__ or "").splitlines()[0])
@click.option("--data", "name", help="A data set, such as csv:FOLDER with tables of your own; see bench.datasets.")
@click.option("--columns", help="Instead of data the columns of both tables, N or USER,CONTENT; nothing is ranked.")
@click.option("--batch-size", type=click.IntRange(min=2), default=256, show_default=True, help="Rows a step.")
@click.option("--layers", type=click.IntRange(min=1), default=2, show_default=True, help="Blocks a tower.")
@click.option("--d-model", type=click.IntRange(min=1), default=64, show_default=True, help="Width of a token.")
@_axis("mixers", default="mamba,attention", show_default=True)
@_axis("device", default="auto", show_default=True)
@_axis("threads", default=0, show_default=True)
@click.option(
    "--budget",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Minutes; half of them for timing, which tries every mixer once whatever it takes.",
)
@click.option("--out", type=cli.PathType(), show_default="results/decide-TIME", help="Beginning of the folders' names.")
@click.option("--quiet", is_flag=True, help="No progress.")
def decide(
    name: str | None, columns: str | None, batch_size: int, layers: int, d_model: int, mixers: tuple[str, ...],
    device: str, threads: int, budget: float, out: Path | None, quiet: bool,
) -> int:  # fmt: skip
    if (name is None) == (columns is None):
        raise click.UsageError("give either --data NAME, such as csv:FOLDER, or --columns N")
    if len(mixers) < 2:
        raise click.UsageError("--mixers needs two at least, since one alone leaves nothing to decide")
    data = cache.load(adapter(name)) if name else None
    user, content = _tokens(data) if data else _columns(str(columns))
    towers = Towers(user, content, batch_size, layers)
    folder = out or Path("results") / datetime.now(UTC).strftime("decide-%Y%m%d-%H%M%S")
    tower = {"batch_sizes": [batch_size], "layers": [layers], "d_model": [d_model]}
    where = {"mixers": list(mixers), "device": device, "threads": threads, **tower}
    budget_s = 60 * budget
    about = {"towers": towers.to_dict(), "dataset": name, "budget_min": budget}
    conduct = session.Conduct(
        command="bench.sweep", argv=["bench.decide", *map(printable, sys.argv[1:])], quiet=quiet, about=about,
        seconds=budget_s * COST_SHARE, say=partial(cli.err.print, markup=False, soft_wrap=True), warn=cli.complain,
    )  # fmt: skip
    try:
        runs = _run(where, name, data, towers, folder, conduct, budget_s)
    except session.InterruptedRunError as stopped:
        cli.complain(str(stopped))
        return cli.EXIT_INTERRUPTED
    return _conclude(runs, folder)


def _run(
    where: dict[str, Any], name: str | None, data: DataSet | None, towers: Towers, folder: Path,
    conduct: session.Conduct, budget_s: float,
) -> list[Run]:  # fmt: skip
    """Time, then train and rank where there is data."""
    began = time.monotonic()
    n_towers = 2 * len(where["mixers"]) * len(set(towers.lengths))  # forward and training, timed whatever the budget
    cost = _session(cost_plan(where, towers), Path(f"{folder}-cost"), replace(conduct, at_least=n_towers))
    if data is None:
        return [cost]
    left = budget_s - (time.monotonic() - began)
    plan, too_long_s = quality_plan(where, str(name), data, cost, towers, left)
    if too_long_s:
        told = f"{FEWEST} training steps of each mixer need a --budget of {math.ceil((budget_s + too_long_s) / 60)}"
        with RunWriter.resume(Path(f"{folder}-cost")) as writer:
            writer.update_meta(not_ranked=told)
        return [load_run(Path(f"{folder}-cost"))]
    again = replace(conduct, command="bench.quality", seconds=0.0, about={})
    return [cost, _session(plan, Path(f"{folder}-quality"), again)]


def _tokens(data: DataSet) -> list[int]:
    """The tokens of both towers, as training will have them."""
    from bench.data.encode import fit

    sides = zip((data.users, data.items), data.training_rows(), strict=True)
    return [fit(table, rows, ids=True).features.n_tokens for table, rows in sides]


def _columns(columns: str) -> list[int]:
    """The tokens of both towers of tables with so many columns, with [CLS]."""
    numbers = [each.strip() for each in columns.split(",")]
    if len(numbers) > 2 or not all(each.isdecimal() and 0 < int(each) < BIGGEST for each in numbers):
        raise click.UsageError(f"--columns takes one or two whole numbers from 1 on, got {shown(columns)}")
    return [int(numbers[0]) + 1, int(numbers[-1]) + 1]


def cost_plan(where: dict[str, Any], towers: Towers) -> Plan:
    """Both towers, and around the longer one: other lengths, for L*, a smaller batch, one layer."""
    longest, batch_size = max(towers.lengths), max(1, where["batch_sizes"][0] // ASIDE)
    lengths = dict.fromkeys([*towers.lengths, *(max(8, longest // part) for part in (4, 16))])
    vary = [*(f"lengths={length}" for length in lengths), f"batch_sizes={batch_size}", "layers=1"]
    own = {"lengths": [longest], "vary": vary, "paired_with": where["mixers"][0]}
    return Plan({**presets.load("decide"), **where, **own})


def quality_plan(
    where: dict[str, Any], name: str, data: DataSet, cost: Run, towers: Towers, left_s: float
) -> tuple[Plan, float]:
    """As many steps, the same for every mixer, as the time that is left suffices for by the measured steps.

    Returns:
        The plan, and how many seconds are missing for the fewest steps; 0 where they suffice.
    """
    each_s = left_s / len(where["mixers"]) - START_S
    validated, tested = (len(np.unique(data.positives(split)[0])) for split in (VALIDATION, TEST))
    rows = LOOKS * validated + tested, (LOOKS + 1) * data.items.n_rows
    found = training_cost(summarise_cells(cost.records), towers, rows)
    step_s, look_s = found or (0.0, 0.0)
    fit_in = int((each_s - look_s) / step_s) if step_s else FEWEST
    missing_s = len(where["mixers"]) * (FEWEST * step_s + look_s - each_s) if fit_in < FEWEST else 0.0
    steps = min(max(fit_in, FEWEST), MOST)
    own = {"datasets": [name], "losses": ["softmax"], "steps": steps, "seeds": [0], "ks": [10],
           "baselines": ["popularity", "ease"], "timeout_s": max(LEAST_S, 2 * left_s)}  # fmt: skip
    return Plan({**presets.load("quality"), **where, **own}), missing_s


def _session(plan: Plan, folder: Path, conduct: session.Conduct) -> Run:
    """Run a plan until its time is up, which is not an error here."""
    try:
        session.begin(plan, folder, conduct)
    except session.TimeIsUpError as stopped:
        conduct.say(str(stopped))
    return load_run(folder)


def _conclude(runs: list[Run], folder: Path) -> int:
    from bench.render.findings import Findings
    from bench.render.sections import card
    from bench.render.terminal import print_blocks

    report = cli.publish(runs, folder)
    if found := card.build(Findings.of(runs)):
        print_blocks(found.blocks, cli.out)
    for label, paths in (("records:", [str(run.folder) for run in runs]), ("report: ", [str(report)])):
        cli.out.print(f"{label} {printable(', '.join(paths))}", markup=False, soft_wrap=True)
    return cli.exit_code([record for run in runs for record in run.records])


main = partial(cli.run, decide, errors=ERRORS)

if __name__ == "__main__":
    sys.exit(main())
