"""A map of who wins: setting down, sequence length across, for each task and metric."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

from bench.analysis.cells import TIME
from bench.analysis.crossover import Crossover
from bench.render import words
from bench.render.blocks import Block, Column, Prose, Section, Table, fold_if_long
from bench.render.findings import Findings, in_order
from bench.render.sections.answer import verdict
from bench.render.styles import style_of

ORDER = 30

MOST_ROWS = 12  # of a map that is not about time; a longer one opens on demand


def build(findings: Findings) -> Section | None:
    """Only where more than one setting was measured; else the first table says all."""
    if len(findings.settings) < 2:
        return None
    groups: dict[tuple[str, str, tuple[str, str]], list[Crossover]] = defaultdict(list)
    for found in in_order(findings.best):
        if found.lengths:
            low, high = sorted((found.cheaper.mixer, found.dearer.mixer))
            groups[found.metric, str(found.setting.get("task")), (low, high)].append(found)
    if not groups:
        return None
    mixers = dict.fromkeys(mixer for _, _, pair in groups for mixer in pair)
    signs = ", ".join(f"{style_of(mixer).sign} {mixer}" for mixer in mixers)
    note = (
        f"Sign and colour say who costs less ({signs}), the number by what factor; ≈ is no clear difference, only "
        "means that the other gave no number. Hover or focus for the interval."
    )
    blocks: list[Block] = [Prose(note, "note")]
    for (metric, task, pair), group in groups.items():
        table = _table(findings, metric, task, pair, group)
        blocks.append(table if metric == TIME else fold_if_long(table, MOST_ROWS))
    return Section("winners", "Who wins where", blocks)


def _table(findings: Findings, metric: str, task: str, pair: tuple[str, str], group: list[Crossover]) -> Table:
    cells = findings.summary.cells
    lengths = sorted({n for found in group for n in found.lengths})
    what = f"{words.METRIC_NAMES[metric]}, {words.task(task)}"
    return Table(
        name=f"winners-{metric}-{task}",
        caption=f"{what[:1].upper()}{what[1:]}: {pair[0]} or {pair[1]}",
        columns=[
            Column("setting", lambda found: findings.where(found.run, found.setting)),
            *(Column(f"L {n:,}", partial(verdict, n=n, cells=cells, brief=True)) for n in lengths),
        ],
        items=group,
    )
