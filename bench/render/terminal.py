"""What a sweep prints at its end: the cells, the exponents, the crossover lengths, ours beside its peers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.analysis.cells import MEMORY, METRICS, TIME, CellSummary, identity
from bench.analysis.peers import AgainstPeers, find_peers, metrics_of, ratio
from bench.analysis.scaling import Scaling, Summary
from bench.records.store import Run
from bench.render import words

# Fields with a column of their own; what else varies is named in one column, what is fixed above the table.
_COLUMNS = ("task", "mixer", "backend", "n_tokens")


def print_summary(summary: Summary, console: Console) -> None:
    """Print the table of cells, one line a curve's exponents, one line a crossover, and what peers take beside ours."""
    if not summary.cells:
        console.print("No records of a sweep.")
        return
    fields = [cell.cell for cell in summary.cells]
    axes = [name for name in words.varying(fields) if name not in _COLUMNS]
    fixed = {name: value for name, value in fields[0].items() if name not in axes}
    console.print(escape(words.printable(f"All at {words.setting(fixed)}")), highlight=False)
    console.print()
    console.print(_cell_table(summary.cells, axes))
    lines = [*_exponent_lines(summary.scalings, axes), "", *_crossover_lines(summary, axes)]
    for line in ["", *lines]:
        console.print(escape(words.printable(line)), highlight=False, soft_wrap=True)
    rows = find_peers(summary.cells)
    for metric in metrics_of(rows):
        console.print()
        console.print(f"{words.METRIC_NAMES[metric].capitalize()} of other implementations, as a multiple of ours")
        console.print(_peer_table(rows, metric))


def _peer_table(rows: Sequence[AgainstPeers], metric: str) -> Table:
    """One line a comparison: as columns, five implementations would not fit 80 characters."""
    axes = [name for name in words.varying(row.ours.cell for row in rows) if name not in ("task", "n_tokens")]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), collapse_padding=True)
    for name in ("task", *(["setting"] if axes else []), "L", "implementation", "multiple"):
        table.add_column(name, justify="right" if name == "L" else "left", no_wrap=name == "L", overflow="fold")
    for row in rows:
        head = [words.task(row.ours.cell.get("task"))]
        head += [words.setting(row.ours.cell, only=axes)] if axes else []
        for other in row.others:
            found = ratio(row.ours, other, metric)
            name = words.variant(other.cell)
            told = words.plain(found, 2) if found else f"[yellow]{escape(other.status)}[/]"
            table.add_row(*(escape(words.printable(each)) for each in head), f"{row.ours.n_tokens:,}", name, told)
    return table


def _cell_table(cells: Sequence[CellSummary], axes: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), collapse_padding=True)
    for name in ("task", "mixer", *(["setting"] if axes else [])):
        table.add_column(name, overflow="fold")
    for name in ("L", "median", "95 % interval", "peak mem", "rows/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for cell in cells:
        time, memory, rows = cell.estimates.get(TIME), cell.estimates.get(MEMORY), cell.rows_per_s
        head = [words.task(cell.cell.get("task")), words.variant(cell.cell)]
        head += [words.setting(cell.cell, only=axes)] if axes else []
        readings = [
            words.quantity(time.value, TIME) if time else words.NONE,
            words.interval(time, TIME) if time else words.NONE,
            words.quantity(memory.value, MEMORY) if memory else words.NONE,
            words.significant(rows.value) if rows else words.NONE,
        ]
        if cell.status != "ok":
            readings = [f"[yellow]{cell.status}[/]", "", "", ""]
        table.add_row(*(escape(words.printable(text)) for text in head), f"{cell.n_tokens:,}", *readings)
    return table


def _exponent_lines(scalings: Iterable[Scaling], axes: Sequence[str]) -> Iterable[str]:
    curves: dict[str, list[Scaling]] = defaultdict(list)
    for scaling in scalings:
        if scaling.exponent and scaling.metric in (TIME, MEMORY):
            curves[identity({"run": scaling.run, **scaling.curve})].append(scaling)
    for members in curves.values():
        curve = members[0].curve
        name = f"{words.task(curve.get('task'))}, {words.variant(curve)}"
        where = f" [{words.setting(curve, only=axes)}]" if axes else ""
        growth = ", ".join(
            f"{words.METRIC_NAMES[each.metric]} ~ L^{words.exponent(each.exponent)}"
            for each in members
            if each.exponent
        )
        yield f"{name}{where}: {growth} from L = {members[0].fitted[0]:,} on"


def _crossover_lines(summary: Summary, axes: Sequence[str]) -> Iterable[str]:
    for found in sorted(summary.crossovers, key=lambda found: METRICS.index(found.metric)):
        where = f" [{words.setting(found.setting, only=axes)}]" if axes else ""
        name = f"{words.METRIC_NAMES[found.metric]}, {words.task(found.setting.get('task'))}{where}"
        yield f"{name}: {words.crossover(found, with_backend=True)}"


def print_run(run: Run, console: Console) -> None:
    """Print what the records of a run say."""
    from bench.analysis.scaling import summarise

    print_summary(summarise(run.records), console)
