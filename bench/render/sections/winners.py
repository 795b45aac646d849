"""A map of who wins: setting down, sequence length across, for each task and metric."""

from __future__ import annotations

from functools import partial

from bench.analysis.cells import TIME
from bench.analysis.cheapest import Standing, groups_of, standings
from bench.analysis.crossover import Crossover
from bench.analysis.groups import grouped
from bench.render import many, words
from bench.render.blocks import Block, Column, Prose, Section, Table, TableCell, fold_if_long
from bench.render.findings import Findings, in_order
from bench.render.sections.answer import verdict

ORDER = 30

MOST_ROWS = 12  # of a map that is not about time; a longer one opens on demand


def build(findings: Findings) -> Section | None:
    """Only where more than one setting was measured; else the first table says all."""
    if len(findings.settings) < 2:
        return None
    maps = grouped(
        (group for group in groups_of(in_order(findings.best)) if any(found.lengths for found in group)),
        lambda group: (group[0].metric, str(group[0].setting.get("task"))),
    )
    if not maps:
        return None
    mixers = dict.fromkeys(v.mixer for found in findings.best if found.lengths for v in (found.cheaper, found.dearer))
    signs = ", ".join(f"{findings.styles[mixer].sign} {mixer}" for mixer in mixers)
    note = (
        f"Sign and colour say who costs least ({signs}), the number how many times as much the next one takes; "
        "\u2248 is no clear difference, only means that the other gave no number. Hover or focus for the interval."
    )
    blocks: list[Block] = [Prose(note, "note")]
    for (metric, task), groups in maps.items():
        table = _table(findings, f"{words.METRIC_NAMES[metric]}, {words.task(task)}", groups)
        blocks.append(table if metric == TIME else fold_if_long(table, MOST_ROWS))
    return Section("winners", "Who wins where", blocks)


def _table(findings: Findings, what: str, groups: list[list[Crossover]]) -> Table:
    def winner(row: tuple[Crossover, list[Standing]], n: int) -> TableCell:
        pair, found = row
        return many.cheapest(n, found, findings) if found else verdict(pair, n, findings, brief=True)

    lengths = sorted({n for group in groups for found in group for n in found.lengths})
    return Table(
        name=f"winners-{what}",
        caption=f"{what[:1].upper()}{what[1:]}",
        columns=[
            Column("setting", lambda row: findings.where(row[0].run, row[0].setting)),
            *(Column(f"L {n:,}", partial(winner, n=n)) for n in lengths),
        ],
        items=[(group[0], standings(group) if len(group) > 1 else []) for group in groups],
    )
