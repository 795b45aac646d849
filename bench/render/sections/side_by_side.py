"""The same cells in several runs, side by side: machines, versions, settings of the machine."""

from __future__ import annotations

from collections import defaultdict

from bench.analysis.cells import MEMORY, OF_A_RUN, TIME, CellSummary, identity, without
from bench.render import words
from bench.render.blocks import Block, Section, Table, TableCell, fold_if_long
from bench.render.findings import Findings


def build(findings: Findings) -> Section | None:
    """Only where two runs or more measured a cell in common."""
    cells: dict[str, dict[str, CellSummary]] = defaultdict(dict)
    for cell in findings.summary.cells:
        cells[identity(without(cell.cell, *OF_A_RUN))][cell.run] = cell
    shared = [group for group in cells.values() if len(group) > 1]
    blocks: list[Block] = []
    for metric in (TIME, MEMORY):
        rows = [group for group in shared if sum(metric in cell.estimates for cell in group.values()) > 1]
        if rows:
            blocks.append(fold_if_long(_table(rows, metric)))
    return Section("runs", "The runs side by side", blocks) if blocks else None


def _table(groups: list[dict[str, CellSummary]], metric: str) -> Table:
    runs = list(dict.fromkeys(run for group in groups for run in group))
    varying = words.varying(next(iter(group.values())).cell for group in groups)
    others = [f"{run} / {runs[0]}" for run in runs[1:]]
    return Table(
        name=f"runs-{metric}",
        caption=f"{words.METRIC_NAMES[metric].capitalize()} of the same cells; ratios with 95 % interval",
        columns=["cell", *runs, *others],
        rows=[
            [
                TableCell(_name(next(iter(group.values())), varying)),
                *(_median(group.get(run), metric) for run in runs),
                *(_ratio(group.get(runs[0]), group.get(run), metric) for run in runs[1:]),
            ]
            for group in groups
        ],
        numeric=frozenset([*runs, *others]),
    )


def _name(cell: CellSummary, varying: list[str]) -> str:
    parts = [words.task(cell.cell.get("task")), words.variant(cell.cell), f"L {cell.n_tokens:,}"]
    return ", ".join(part for part in (*parts, words.setting(cell.cell, only=varying)) if part)


def _median(cell: CellSummary | None, metric: str) -> TableCell:
    if cell is None:
        return TableCell(words.NONE)
    if metric not in cell.estimates:
        return TableCell(cell.status if cell.status != "ok" else words.NONE, hint=cell.reason)
    each = cell.estimates[metric]
    return TableCell(words.quantity(each.value, metric), each.value, hint=words.interval(each, metric))


def _ratio(first: CellSummary | None, other: CellSummary | None, metric: str) -> TableCell:
    if first is None or other is None or metric not in first.estimates or metric not in other.estimates:
        return TableCell(words.NONE)
    ratio = other.estimates[metric].over(first.estimates[metric])
    return TableCell(words.plain(ratio), ratio.value)
