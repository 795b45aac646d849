"""Entries that tables of several sections have."""

from __future__ import annotations

from collections.abc import Callable

from bench.analysis.cells import CellSummary
from bench.render import words
from bench.render.blocks import TableCell

NOTHING = TableCell(words.NONE)


def length(n_tokens: int) -> TableCell:
    return TableCell(f"{n_tokens:,}", n_tokens)


def amount(value: float | None, text: Callable[[float], str]) -> TableCell:
    """A number that may be missing."""
    return NOTHING if value is None else TableCell(text(value), value)


def reading(cell: CellSummary | None, metric: str) -> TableCell:
    """One metric of a cell; where it has none, what the cell ended in."""
    if cell is None:
        return NOTHING
    found = cell.estimates.get(metric)
    if found is None:
        return TableCell(
            cell.status if cell.status != "ok" else words.NONE, hint=cell.reason or cell.notes.get(metric, "")
        )
    return TableCell(words.quantity(found.value, metric), found.value, hint=words.interval(found, metric))
