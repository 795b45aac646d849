"""Our Mamba beside other implementations: how many times as much they take."""

from __future__ import annotations

from bench.analysis.cells import CellSummary, Variant, variant_of
from bench.analysis.peers import AgainstPeers, find_peers, metrics_of, ratio
from bench.render import words
from bench.render.blocks import Prose, Section, Table, TableCell
from bench.render.findings import Findings


def build(findings: Findings) -> Section | None:
    """Only where a run measured another implementation of Mamba."""
    rows = find_peers(findings.summary.cells)
    if not rows:
        return None
    about = Prose(
        "How many times the time or the memory of our Mamba each implementation takes, measured in one run, with 95 % "
        "intervals; below 1 it takes less. A cell without a number says what it ended in.",
    )
    return Section(
        "peers", "Beside other implementations", [about, *(_table(findings, rows, m) for m in metrics_of(rows))]
    )


def _table(findings: Findings, rows: list[AgainstPeers], metric: str) -> Table:
    variants = list(dict.fromkeys(variant_of(other.cell) for row in rows for other in row.others))
    names = [str(each) for each in variants]
    return Table(
        name=f"peers-{metric}",
        caption=f"{words.METRIC_NAMES[metric].capitalize()} as a multiple of ours",
        columns=["task", "L", *(["setting"] if findings.varies else []), "ours", *names],
        rows=[
            [
                TableCell(words.task(row.ours.cell.get("task"))),
                TableCell(f"{row.ours.n_tokens:,}", row.ours.n_tokens),
                *([TableCell(findings.where(row.ours.run, row.ours.cell))] if findings.varies else []),
                _own(row.ours, metric),
                *(_multiple(row, each, metric) for each in variants),
            ]
            for row in rows
        ],
        numeric=frozenset(["L", "ours", *names]),
    )


def _own(cell: CellSummary, metric: str) -> TableCell:
    found = cell.estimates.get(metric)
    return TableCell(words.quantity(found.value, metric), found.value) if found else TableCell(words.NONE)


def _multiple(row: AgainstPeers, variant: Variant, metric: str) -> TableCell:
    other = next((each for each in row.others if variant_of(each.cell) == variant), None)
    if other is None:
        return TableCell(words.NONE)
    found = ratio(row.ours, other, metric)
    if found is None:
        return TableCell(other.status if other.status != "ok" else words.NONE, hint=other.reason)
    return TableCell(words.times(found.value), found.value, hint=words.plain(found))
