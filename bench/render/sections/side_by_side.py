"""The same cells in several runs, side by side: machines, versions, settings of the machine."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

from bench.analysis.cells import MEMORY, OF_A_RUN, TIME, CellSummary, identity, without
from bench.render import words
from bench.render.blocks import Block, Column, Section, Table, TableCell, fold_if_long
from bench.render.entries import NOTHING, reading
from bench.render.findings import Findings

ORDER = 70
Group = dict[str, CellSummary]  # one cell by run


def build(findings: Findings) -> Section | None:
    """Only where two runs or more measured a cell in common."""
    cells: dict[str, Group] = defaultdict(dict)
    for cell in findings.summary.cells:
        cells[identity(without(cell.cell, *OF_A_RUN))][cell.run] = cell
    shared = [group for group in cells.values() if len(group) > 1]
    blocks: list[Block] = []
    for metric in (TIME, MEMORY):
        rows = [group for group in shared if sum(metric in cell.estimates for cell in group.values()) > 1]
        if rows:
            blocks.append(fold_if_long(_table(rows, metric)))
    return Section("runs", "The runs side by side", blocks) if blocks else None


def _table(groups: list[Group], metric: str) -> Table:
    first, *others = dict.fromkeys(run for group in groups for run in group)
    varying = [
        name for name in words.varying(next(iter(group.values())).cell for group in groups) if name not in OF_A_RUN
    ]

    def median(run: str, group: Group) -> TableCell:
        return reading(group.get(run), metric)

    def ratio(run: str, group: Group) -> TableCell:
        pair = [group[name].estimates.get(metric) for name in (run, first) if name in group]
        if len(pair) < 2 or not (pair[0] and pair[1]):
            return NOTHING
        found = pair[0].over(pair[1])
        return TableCell(words.plain(found), found.value)

    return Table(
        name=f"runs-{metric}",
        caption=f"{words.METRIC_NAMES[metric].capitalize()} of the same cells; ratios with 95 % interval",
        columns=[
            Column("cell", lambda group: _name(next(iter(group.values())), varying)),
            *(Column(run, partial(median, run), numeric=True) for run in (first, *others)),
            *(Column(f"{run} / {first}", partial(ratio, run), numeric=True) for run in others),
        ],
        items=groups,
    )


def _name(cell: CellSummary, varying: list[str]) -> str:
    parts = [words.task(cell.cell.get("task")), words.variant(cell.cell), f"L {cell.n_tokens:,}"]
    return ", ".join(part for part in (*parts, words.setting(cell.cell, only=varying)) if part)
