"""What a comparison of two runs says, and the same as plain data."""

from __future__ import annotations

import math
from typing import Any

from bench.analysis.compare import CellChange, RunChange
from bench.analysis.estimate import Estimate
from bench.render import words
from bench.render.blocks import Block, Bullets, Column, Table, TableCell
from bench.render.entries import amount


def comparison_blocks(change: RunChange, before: str, after: str) -> list[Block]:
    """What differs between the machines, then the cells, then the count of each verdict.

    Args:
        before, after: names of the runs.
    """
    told = ", ".join(f"{count} {verdict}" for verdict, count in change.counts().items()) or "no cell in both runs"
    differs = [
        f"differs: {name}: {words.short(old or words.NONE, 80)} -> {words.short(new or words.NONE, 80)}"
        for name, old, new in change.differences
    ]
    metric = words.metric(change.metric)
    return [
        *([Bullets(differs)] if differs else []),
        _table(change),
        Bullets([*_notes(change, before, after), f"{metric}, {after} against {before}: {told}"]),
    ]


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


def _table(change: RunChange) -> Table:
    """Cells that are the same come last, and are the first to be left out on a terminal."""

    def value(found: Estimate | None) -> TableCell:
        return amount(found.value if found else None, lambda value: words.quantity(value, change.metric))

    return Table(
        name="comparison",
        caption=f"{_capital(words.metric(change.metric))} of every cell; ratio: after over before",
        columns=[
            Column("cell", lambda each: each.cell_id),
            Column("verdict", lambda each: each.verdict),
            Column("before", lambda each: value(each.before), numeric=True),
            Column("after", lambda each: value(each.after), numeric=True),
            Column("ratio", lambda each: _ratio(f"{each.ratio.value:.3f}"), numeric=True),
            Column(
                "95 % interval", lambda each: _ratio(f"{each.ratio.low:.3f} to {each.ratio.high:.3f}"), numeric=True
            ),
        ],
        items=change.cells,
        most=40,
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _ratio(text: str) -> str:
    return words.NONE if "nan" in text else text


def _notes(change: RunChange, before: str, after: str) -> list[str]:
    notes = [f"{each.cell_id} {each.verdict}: {each.reason}" for each in change.cells if each.reason]
    for name, only in ((before, change.only_before), (after, change.only_after)):
        if only:
            notes.append(f"only in {name}: {len(only)} cells, such as {only[0]}")
    if any(each.ratio.covers == "samples" for each in change.cells) and "@" in change.metric:
        notes.append("models of one seed: their intervals cover users, and not how trainings differ")
    if change.single_round:
        notes.append(
            "cells of one round: their intervals miss how processes differ, so a verdict on them needs all of the "
            f"interval beyond the margin of {change.margin:.0%}"
        )
    return notes


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
