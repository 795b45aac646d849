"""Entries that tables of several sections have."""

from __future__ import annotations

from collections.abc import Callable

from bench.analysis.cells import MEMORY, TIME, CellSummary, paired_ratio
from bench.analysis.peers import ratio
from bench.render import words
from bench.render.blocks import TableCell
from bench.render.numbers import SI_UNITS

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
    mark, beside = disturbance(cell, metric)
    text = words.quantity(found.value, metric) + mark
    hint = words.interval(found, metric) + beside
    return TableCell(text, found.value, hint=hint, low=found.low, high=found.high, unit=SI_UNITS.get(metric, "1"))


def multiple(ours: CellSummary, other: CellSummary, metric: str) -> TableCell:
    """How many times as much another cell takes; where that cannot be told, its own reading."""
    found = ratio(ours, other, metric)
    if found:
        paired = metric == TIME and paired_ratio(other, ours)
        marks = [disturbance(cell, metric) for cell in (ours, other) if not paired and cell.n_disturbed]
        mark, beside = marks[0] if marks else ("", "")
        return TableCell(
            words.times(found.value) + mark, found.value, hint=words.plain(found) + beside, low=found.low,
            high=found.high, unit="1",
        )  # fmt: skip
    return reading(other, metric)


def disturbance(cell: CellSummary, metric: str) -> tuple[str, str]:
    """The mark of a cell whose rounds ran beside other work, and how many; both empty where none did."""
    if metric == MEMORY or not cell.n_disturbed:
        return "", ""
    return f" {words.MARK}", f"; {cell.n_disturbed} of {cell.n_rounds} rounds ran beside other work"
