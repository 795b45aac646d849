"""What another layer costs: time and memory against the number of layers, at the longest length that has several."""

from __future__ import annotations

from collections import defaultdict

from bench.analysis.cells import MEMORY, TIME, VARIANT, CellSummary, identity, number, without
from bench.render import words
from bench.render.blocks import Figure, Figures, Section
from bench.render.findings import Findings
from bench.render.plots import depth_plot

ORDER = 60

MOST_DRAWN = 8


def build(findings: Findings) -> Section | None:
    """Only where cells differ in nothing but their layers."""
    groups: dict[str, list[CellSummary]] = defaultdict(list)
    for cell in findings.summary.cells:
        if number(cell.cell.get("n_layers")) and TIME in cell.estimates:
            fields = without(cell.cell, "n_layers", *VARIANT)
            groups[identity({"run": cell.run, **fields})].append(cell)
    deep = [group for group in groups.values() if len({cell.cell["n_layers"] for cell in group}) > 1]
    if not deep:
        return None
    longest = max(group[0].n_tokens for group in deep)
    drawn = [group for group in deep if group[0].n_tokens == longest][:MOST_DRAWN]
    figures = [
        figure
        for i, group in enumerate(drawn)
        for metric in (TIME, MEMORY)
        if (figure := _figure(findings, group, metric, i))
    ]
    caption = f"Cost of one step against the number of layers at L = {longest:,}: median and 95 % interval."
    return Section("depth", "What depth costs", [Figures(caption, figures)])


def _figure(findings: Findings, group: list[CellSummary], metric: str, i: int) -> Figure | None:
    cells = [cell for cell in group if metric in cell.estimates]
    if len({cell.cell["n_layers"] for cell in cells}) < 2:
        return None
    where = findings.where(group[0].run, without(group[0].cell, "n_layers"))
    what = f"{words.METRIC_NAMES[metric].capitalize()}, {words.task(group[0].cell.get('task'))}"
    return depth_plot(cells, metric, name=f"depth-{metric}-{i}", title=f"{what} ({where})" if where else what)
