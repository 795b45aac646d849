"""Operators on their own: our kernels beside their peers at the same size, and how far they are off what is true."""

from __future__ import annotations

from collections import defaultdict

from bench.analysis.cells import OP, OP_CHECK, TIME, CellSummary, number, summarise_cells, variant_of
from bench.analysis.peers import beside_ours, ratio
from bench.analysis.roof import roof_share
from bench.records.record import Record
from bench.render import words
from bench.render.blocks import Block, Column, Section, Table, TableCell, fold_if_long
from bench.render.entries import NOTHING, amount, length, reading
from bench.render.findings import Findings

ORDER = 95
TERMINAL = True
Pair = tuple[CellSummary, CellSummary | None]  # ours, another at the same size


def build(findings: Findings) -> Section | None:
    records = [record for run in findings.runs for record in run.records]
    timed = summarise_cells(record for record in records if record.cell.get("task") == OP)
    pairs: list[Pair] = [(row.ours, other) for row in beside_ours(timed) for other in row.others or (None,)]
    checked = [record for record in records if record.cell.get("task") == OP_CHECK and record.values]
    blocks: list[Block] = [fold_if_long(_times(findings, pairs))] if pairs else []
    blocks += [_errors(checked)] if checked else []
    return Section("ops", "Operators on their own", blocks) if blocks else None


def _times(findings: Findings, pairs: list[Pair]) -> Table:
    varying = words.varying(ours.cell for ours, _ in pairs)

    def multiple(pair: Pair) -> TableCell:
        found = ratio(pair[0], pair[1], TIME) if pair[1] else None
        return TableCell(words.times(found.value), found.value, hint=words.plain(found)) if found else NOTHING

    return Table(
        name="ops",
        caption="Median time of our kernels and of others at the same size; ratio: the other's over ours",
        columns=[
            Column("ours", lambda pair: words.variant(pair[0].cell)),
            Column("setting", lambda pair: words.setting(pair[0].cell, only=varying)),
            Column("L", lambda pair: length(pair[0].n_tokens), numeric=True),
            Column("time", lambda pair: reading(pair[0], TIME), numeric=True),
            Column(
                "of limit", lambda pair: amount(roof_share(pair[0], findings.metas[pair[0].run]), words.percent), True
            ),
            Column("expected", lambda pair: amount(pair[0].values.get("expected_s"), _seconds), True, page_only=True),
            Column("other", lambda pair: pair[1].cell["backend"] if pair[1] else words.NONE),
            Column("its time", lambda pair: reading(pair[1], TIME), numeric=True),
            Column("ratio", multiple, numeric=True),
        ],
        items=pairs,
        head=3,
    )


def _errors(records: list[Record]) -> Table:
    groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[str(variant_of(record.cell)), str(record.cell.get("dtype"))].append(record)
    return Table(
        name="op-errors",
        caption="Largest error of any output or gradient against the float64 reference, as a share of what is allowed",
        columns=[
            Column("op", lambda key: key[0]),
            Column("dtype", lambda key: key[1]),
            Column("cells", lambda key: length(len(groups[key])), numeric=True),
            Column("right", lambda key: length(sum(each.status == "ok" for each in groups[key])), numeric=True),
            Column("largest error", lambda key: amount(_largest(groups[key]), words.significant), numeric=True),
        ],
        items=list(groups),
        head=2,
    )


def _largest(records: list[Record]) -> float | None:
    """Over what is allowed; a tensor that is not finite has no error to show, and its cell is not right."""
    named = ((record.values, name) for record in records for name in record.values if name.startswith("error:"))
    pairs = [(number(values[name]), number(values.get(name.replace("error:", "allowed:")))) for values, name in named]
    return max((error / allowed for error, allowed in pairs if error is not None and allowed), default=None)


def _seconds(seconds: float) -> str:
    return words.quantity(seconds, TIME)
