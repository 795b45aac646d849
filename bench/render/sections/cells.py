"""Every cell with its numbers: time, memory, throughput, the rate of arithmetic, and how near the machine's limit."""

from __future__ import annotations

from bench.analysis.cells import ENERGY, MEMORY, TIME, CellSummary
from bench.analysis.roof import roof_share
from bench.render import words
from bench.render.blocks import Block, Prose, Section, Table, TableCell, fold_if_long
from bench.render.findings import Findings

ABOUT_ROOF = (
    "Of roof: the least time that this machine's own best rates allow for the step's arithmetic, exponentials and "
    "memory traffic, as a share of the measured time. The rates were measured at the start of the run: matrix product, "
    "exponential, copies of several sizes."
)


def build(findings: Findings) -> Section | None:
    cells = findings.summary.cells
    if not cells:
        return None
    varies = findings.varies
    metas = {run.name: run.meta for run in findings.runs}
    energy = any(ENERGY in cell.estimates for cell in cells)
    shares = {id(cell): roof_share(cell, metas.get(cell.run, {})) for cell in cells}
    roofed = any(shares.values())
    numeric = ["L", "median", "95 % interval", "peak memory", "rows/s", "GFLOP/s"]
    numeric += [*(["of roof"] if roofed else []), *(["energy"] if energy else [])]
    blocks: list[Block] = [Prose(ABOUT_ROOF, "note")] if roofed else []
    table = Table(
        name="cells",
        caption="All cells: time of one step, peak memory, throughput (table rows a second)",
        columns=["task", "mixer", *(["setting"] if varies else []), *numeric, "rounds", "samples"],
        rows=[_row(findings, cell, shares[id(cell)], varies, roofed, energy) for cell in cells],
        numeric=frozenset([*numeric, "rounds", "samples"]),
    )
    return Section("cells", "Throughput and all readings", [*blocks, fold_if_long(table)])


def _row(
    findings: Findings, cell: CellSummary, share: float | None, varies: bool, roofed: bool, energy: bool
) -> list[TableCell]:
    time, rows, flops = cell.estimates.get(TIME), cell.rows_per_s, cell.values.get("flops")
    rate = flops / time.value / 1e9 if flops and time else None
    missing = TableCell(words.NONE if cell.status == "ok" else cell.status)
    return [
        TableCell(words.task(cell.cell.get("task"))),
        TableCell(words.variant(cell.cell)),
        *([TableCell(findings.where(cell.run, cell.cell))] if varies else []),
        TableCell(f"{cell.n_tokens:,}", cell.n_tokens),
        TableCell(words.quantity(time.value, TIME), time.value) if time else missing,
        TableCell(words.interval(time, TIME), time.low) if time else TableCell(words.NONE),
        _quantity(cell, MEMORY),
        TableCell(words.significant(rows.value), rows.value) if rows else TableCell(words.NONE),
        TableCell(words.significant(rate), rate) if rate else TableCell(words.NONE),
        *([TableCell(words.percent(share), share) if share else TableCell(words.NONE)] if roofed else []),
        *([_quantity(cell, ENERGY)] if energy else []),
        TableCell(str(cell.n_rounds), cell.n_rounds),
        TableCell(str(cell.n_samples), cell.n_samples),
    ]


def _quantity(cell: CellSummary, metric: str) -> TableCell:
    each = cell.estimates.get(metric)
    if each is None:
        return TableCell(words.NONE, hint=cell.notes.get(metric, ""))
    return TableCell(words.quantity(each.value, metric), each.value, hint=words.interval(each, metric))
