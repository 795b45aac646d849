"""Every cell with its numbers: time, memory, throughput, the rate of arithmetic, and how near the machine's limit."""

from __future__ import annotations

from functools import partial

from bench.analysis.cells import ENERGY, MEMORY, TIME, CellSummary
from bench.analysis.percentiles import PERCENTILES
from bench.analysis.roof import roof_share
from bench.render import words
from bench.render.blocks import Block, Column, Prose, Section, Table, TableCell, fold_if_long
from bench.render.entries import amount, length, reading
from bench.render.findings import NOT_VERIFIED, Findings

ORDER = 80
TERMINAL = True
ABOUT_ROOF = (
    "Of roof: the least time that this machine's own best rates allow for the step's arithmetic, exponentials and "
    "memory traffic, as a share of the measured time. The rates were measured at the start of the run: matrix product, "
    "exponential, copies of several sizes."
)


def build(findings: Findings) -> Section | None:
    cells = findings.summary.cells
    if not cells:
        return None
    shares = {id(cell): roof_share(cell, findings.metas[cell.run]) for cell in cells}
    fixed = {name: value for name, value in cells[0].cell.items() if name not in findings.axes}
    columns = [
        Column("task", lambda cell: words.task(cell.cell.get("task"))),
        Column("mixer", _name),
        *findings.setting_column(lambda cell: (cell.run, cell.cell)),
        Column("L", lambda cell: length(cell.n_tokens), numeric=True),
        Column("median", lambda cell: reading(cell, TIME), numeric=True),
        Column("95 % interval", _interval, numeric=True),
        *(
            Column(f"p{percent}", partial(_percentile, percent=percent), numeric=True, page_only=True)
            for percent in PERCENTILES
            if any(percent in cell.percentiles for cell in cells)
        ),
        Column("peak memory", lambda cell: reading(cell, MEMORY), numeric=True),
        Column(
            "rows/s", lambda cell: amount(cell.rows_per_s and cell.rows_per_s.value, words.significant), numeric=True
        ),
        Column("GFLOP/s", lambda cell: amount(_rate(cell), words.significant), numeric=True, page_only=True),
    ]
    if any(shares.values()):
        columns.append(Column("of roof", lambda cell: amount(shares[id(cell)], words.percent), True, page_only=True))
    if any(ENERGY in cell.estimates for cell in cells):
        columns.append(Column("energy", lambda cell: reading(cell, ENERGY), numeric=True, page_only=True))
    columns += [
        Column("rounds", lambda cell: length(cell.n_rounds), numeric=True, page_only=True),
        Column("samples", lambda cell: length(cell.n_samples), numeric=True, page_only=True),
    ]
    caption = f"All cells ({words.setting(fixed)}): time of one step, peak memory, throughput (table rows a second)"
    blocks: list[Block] = [Prose(ABOUT_ROOF, "note")] if any(shares.values()) else []
    blocks.append(fold_if_long(Table("cells", caption, columns, cells, head=3 + findings.varies)))
    return Section("cells", "Throughput and all readings", blocks)


def _name(cell: CellSummary) -> str:
    return words.variant(cell.cell) + ("" if cell.verified or cell.status != "ok" else f" ({NOT_VERIFIED})")


def _interval(cell: CellSummary) -> TableCell:
    time = cell.estimates.get(TIME)
    return TableCell(words.interval(time, TIME), time.low) if time else TableCell(words.NONE)


def _percentile(cell: CellSummary, percent: int) -> TableCell:
    found = cell.percentiles.get(percent)
    if not found:
        return TableCell(words.NONE, hint="so few readings hold no interval of it")
    return TableCell(words.quantity(found.value, TIME), found.value, hint=words.interval(found, TIME))


def _rate(cell: CellSummary) -> float | None:
    time, flops = cell.estimates.get(TIME), cell.values.get("flops")
    return flops / time.value / 1e9 if flops and time else None
