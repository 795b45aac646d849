"""What a comparison of two runs prints, and the same as plain data."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.analysis.compare import CellChange, RunChange
from bench.render import words

COLOURS = {"slower": "red", "lost": "red", "faster": "green", "gained": "green", "ambiguous": "yellow"}


def print_comparison(change: RunChange, before: str, after: str, console: Console, *, most: int = 40) -> None:
    """Print what differs between the machines, then the cells, then the count of each verdict.

    Args:
        before, after: names of the runs.
        most: rows of the table; cells that are the same come last and are the first to be left out.
    """
    for name, old, new in change.differences:
        line = f"differs: {name}: {words.short(old or words.NONE, 80)} -> {words.short(new or words.NONE, 80)}"
        console.print(escape(line), style="yellow", soft_wrap=True)
    if change.differences:
        console.print()
    console.print(_table(change, most))
    if len(change.cells) > most:
        console.print(f"... and {len(change.cells) - most} more; --json has all")
    console.print()
    for line in _notes(change, before, after):
        console.print(escape(words.printable(line)), soft_wrap=True)
    told = ", ".join(f"{count} {verdict}" for verdict, count in change.counts().items()) or "no cell in both runs"
    console.print(
        f"{words.METRIC_NAMES[change.metric]}, {after} against {before}: {told}", markup=False, soft_wrap=True
    )


def comparison_data(change: RunChange, before: str, after: str) -> dict[str, Any]:
    """Everything in a comparison, fit for JSON: what is not a number is null."""
    return {
        "before": before,
        "after": after,
        "metric": change.metric,
        "margin": change.margin,
        "single_round": change.single_round,
        "counts": change.counts(),
        "differences": [{"name": name, "before": old, "after": new} for name, old, new in change.differences],
        "only_before": list(change.only_before),
        "only_after": list(change.only_after),
        "cells": [_cell_data(each) for each in change.cells],
    }


def _cell_data(each: CellChange) -> dict[str, Any]:
    return {
        "cell_id": each.cell_id,
        "cell": dict(each.cell),
        "verdict": each.verdict,
        "before": each.before and each.before.value,
        "after": each.after and each.after.value,
        "ratio": _finite(each.ratio.value),
        "ratio_low": _finite(each.ratio.low),
        "ratio_high": _finite(each.ratio.high),
        "p": _finite(each.p),
        "reason": each.reason,
    }


def _table(change: RunChange, most: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), collapse_padding=True)
    table.add_column("cell", overflow="fold")
    table.add_column("verdict", no_wrap=True)
    for name in ("before", "after", "ratio", "95 % interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in change.cells[:most]:
        colour = COLOURS.get(each.verdict, "default")
        table.add_row(
            escape(words.printable(each.cell_id)),
            f"[{colour}]{each.verdict}[/]",
            words.quantity(each.before.value, change.metric) if each.before else words.NONE,
            words.quantity(each.after.value, change.metric) if each.after else words.NONE,
            f"{each.ratio.value:.3f}" if not math.isnan(each.ratio.value) else words.NONE,
            f"{each.ratio.low:.3f} to {each.ratio.high:.3f}" if not math.isnan(each.ratio.low) else words.NONE,
        )
    return table


def _notes(change: RunChange, before: str, after: str) -> list[str]:
    notes = [f"{each.cell_id} {each.verdict}: {each.reason}" for each in change.cells if each.reason]
    for name, only in ((before, change.only_before), (after, change.only_after)):
        if only:
            notes.append(f"only in {name}: {len(only)} cells, such as {only[0]}")
    if change.single_round:
        notes.append(
            "cells of one round: their intervals miss how processes differ, so a verdict on them needs all of the "
            f"interval beyond the margin of {change.margin:.0%}"
        )
    return notes


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
