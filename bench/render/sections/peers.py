"""Our kernels beside other implementations: how many times as much they take."""

from __future__ import annotations

from functools import partial

from bench.analysis.cells import Variant, variant_of
from bench.analysis.peers import AgainstPeers, find_peers, metrics_of
from bench.render import words
from bench.render.blocks import Column, Prose, Section, Table, TableCell
from bench.render.entries import NOTHING, length, multiple, reading
from bench.render.findings import Findings

ORDER = 20
TERMINAL = True


def build(findings: Findings) -> Section | None:
    """Only where a run measured another implementation of a mixer of ours."""
    rows = find_peers(findings.summary.cells)
    if not rows:
        return None
    about = Prose(
        "How many times the time or the memory of our own each implementation takes, measured in one run, with 95 % "
        "intervals; below 1 it takes less. A cell without a number says what it ended in; one that ran beside other "
        "work has its own time.",
    )
    return Section(
        "peers", "Beside other implementations", [about, *(_table(findings, rows, m) for m in metrics_of(rows))]
    )


def _table(findings: Findings, rows: list[AgainstPeers], metric: str) -> Table:
    ours = ", ".join(sorted({words.variant(row.ours.cell) for row in rows}))
    variants = dict.fromkeys(variant_of(other.cell) for row in rows for other in row.others)
    return Table(
        name=f"peers-{metric}",
        caption=f"{words.METRIC_NAMES[metric].capitalize()} as a multiple of ours ({ours})",
        columns=[
            Column("task", lambda row: words.task(row.ours.cell.get("task"))),
            *findings.setting_column(lambda row: (row.ours.run, row.ours.cell)),
            Column("L", lambda row: length(row.ours.n_tokens), numeric=True),
            Column("ours", lambda row: reading(row.ours, metric), numeric=True),
            *(
                Column(findings.name(each), partial(_multiple, variant=each, metric=metric), numeric=True)
                for each in variants
            ),
        ],
        items=rows,
        head=2 + findings.varies,
    )


def _multiple(row: AgainstPeers, variant: Variant, metric: str) -> TableCell:
    other = next((each for each in row.others if variant_of(each.cell) == variant), None)
    return multiple(row.ours, other, metric) if other else NOTHING
