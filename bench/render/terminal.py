"""The sections of a page on a terminal: their sentences and tables, with rich."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.records.store import Run
from bench.records.text import printable
from bench.render.blocks import Block, Bullets, Folded, Prose, Table, TableCell
from bench.render.findings import Findings
from bench.render.page import sections

SHORT = 10  # characters; a longer heading may take two lines
LONG = 40  # a column of longer texts is folded where room is short
GAP = 2
COLOURS = {
    **dict.fromkeys(("slower", "lost", "worse"), "red"),
    **dict.fromkeys(("faster", "gained", "better"), "green"),
    **dict.fromkeys(("ambiguous", "oom", "timeout", "skipped", "error"), "yellow"),
}


def print_run(run: Run, console: Console) -> None:
    """Print what the records of a run say."""
    found = sections(Findings.of([run]), terminal=True)
    for section in found:
        console.print(Text(section.title, style="bold"))
        print_blocks(section.blocks, console)
    if not found:
        console.print("No records.")


def print_blocks(blocks: Sequence[Block], console: Console) -> None:
    """Print sentences and tables; pictures, and what is of the page alone, are left out."""
    for block in blocks:
        if isinstance(block, Prose):
            _print(block.text, console)
        elif isinstance(block, Bullets):
            for item in block.items:
                _print(item, console)
        elif isinstance(block, Table):
            _print_table(block, console)
        elif isinstance(block, Folded) and not block.page_only:
            print_blocks(block.blocks, console)
            continue
        else:
            continue
        console.print()


def _print(text: str, console: Console, style: str = "") -> None:
    console.print(Text(printable(text), style=style), soft_wrap=True)


def _print_table(block: Table, console: Console) -> None:
    """Columns that do not fit side by side go into further tables, each with the columns that name the rows."""
    _print(block.caption, console, "italic")
    columns = [i for i, column in enumerate(block.columns) if i >= block.by and not column.page_only]
    head, others = columns[: block.head], columns[block.head :]
    width = {i: _width(block, i) for i in columns}
    room = console.width - sum(width[i] + GAP for i in head)
    parts: list[list[int]] = [[]]
    for i in others:
        if parts[-1] and sum(width[each] + GAP for each in (*parts[-1], i)) - GAP > room:
            parts.append([])
        parts[-1].append(i)
    for group, rows in itertools.groupby(block.rows[: block.most], lambda row: [cell.text for cell in row[: block.by]]):
        if group:
            told = zip((column.name for column in block.columns), group, strict=False)
            _print(", ".join(f"{name} {text}" for name, text in told if text), console, "bold")
        found = list(rows)
        for part in parts:
            console.print(_rich_table(block, {i: width[i] for i in (*head, *part)}, found))
    if block.most is not None and len(block.rows) > block.most:
        _print(f"... and {len(block.rows) - block.most} more", console)


def _width(block: Table, i: int) -> int:
    """Room for every text of a column, and for its heading on two lines."""
    name = block.columns[i].name
    heading = [len(name) // 2 + 3, *map(len, name.split())] if len(name) > SHORT else [len(name)]
    return min(LONG, max([*heading, *(len(row[i].text) for row in block.rows)]))


def _rich_table(block: Table, widths: dict[int, int], rows: Sequence[Sequence[TableCell]]) -> RichTable:
    table = RichTable(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0), collapse_padding=True)
    for i, width in widths.items():
        column = block.columns[i]
        justify: Literal["left", "right"] = "right" if column.numeric else "left"
        table.add_column(
            Text(printable(column.name)), justify=justify, width=width if width < LONG else None, overflow="fold"
        )
    for row in rows:
        table.add_row(*(Text(printable(row[i].text), style=COLOURS.get(row[i].text, "")) for i in widths))
    return table
