"""Cells over runs: the steps as sentences and pictures, all cells in a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

from bench.analysis.compare import effect
from bench.analysis.estimate import Estimate
from bench.analysis.past import Past, Reading
from bench.render import words
from bench.render.axes import new_axes, set_ticks
from bench.render.blocks import Block, Bullets, Column, Figure, Figures, Section, Table, TableCell
from bench.render.entries import NOTHING
from bench.render.numbers import SI_UNITS, unit_of
from bench.render.styles import INK, STYLES
from bench.render.svg import drawing

MOST_DRAWN = 12
MOST_TOLD = 20


def past_sections(pasts: Sequence[Past], metric: str) -> list[Section]:
    """The steps, their pictures, and every cell."""
    steps = [(past, reading) for past in pasts for reading in past.steps]
    steps.sort(key=lambda each: -effect(_ratio(each[1])))
    told = [_step(past, reading, metric) for past, reading in steps[:MOST_TOLD]]
    if len(steps) > MOST_TOLD:
        told.append(f"{len(steps) - MOST_TOLD} more steps stand in the table.")
    n = sum(len(past.readings) > 1 for past in pasts)
    blocks: list[Block] = [Bullets(told or [f"No step in {words.metric(metric)} of {words.count(n, 'cell')}."], "lead"
                                   if len(told) < 4 else "text")]  # fmt: skip
    drawn = [past for past in pasts if len(past.readings) > 1][:MOST_DRAWN]
    if drawn:
        caption = "Oldest first, with 95 % intervals; a diamond: a step from the run before."
        blocks.append(Figures(caption, [partial(past_plot, past, metric) for past in drawn]))
    return [
        Section("steps", "What changed", blocks),
        Section("cells", "Every cell", [_table(pasts, metric)]),
    ]


def past_plot(past: Past, metric: str) -> Figure:
    """One cell on one machine, a run a point."""
    values = [reading.estimate for reading in past.readings]
    places = range(len(values))
    scale, unit = unit_of(values[0].value, metric)
    hints: dict[str, list[str]] = {}
    with drawing():
        canvas, ax = new_axes((4.6, 2.4))
        colour = STYLES[0].light
        ax.plot(places, [each.value / scale for each in values], color=colour, linewidth=1)
        for i, (reading, each) in enumerate(zip(past.readings, values, strict=True)):
            if not math.isnan(each.low):
                ax.plot([i, i], [each.low / scale, each.high / scale], color=colour, linewidth=1.6)
            step = reading.is_step
            marker, size = ("D", 44) if step else ("o", 20)
            ax.scatter(
                [i], [each.value / scale], marker=marker, s=size, color=STYLES[step].light, zorder=3, gid=f"run-{i}"
            )
            hints[f"run-{i}"] = [_told(past, reading, metric)]
        ax.set_ylim(bottom=0)
        ax.set_xlim(-0.4, len(values) - 0.6)
        ax.set_ylabel(f"{words.metric(metric)}, {unit}".rstrip(", "), color=INK, fontsize=9)
        shown = sorted({round(i * (len(values) - 1) / 4) for i in range(5)})
        set_ticks(ax.xaxis, shown, lambda i: past.readings[round(i)].commit or past.readings[round(i)].run[:10])
    title = f"{_name(past)}, {past.machine}".rstrip(", ")
    alt = f"{words.metric(metric)} of {title} over runs. " + " ".join(text for each in hints.values() for text in each)
    return Figure(f"past-{past.cell_id}", title, alt, canvas, hints)


def _name(past: Past) -> str:
    return past.cell_id if "dataset" in past.cell else words.fields(past.cell) or past.cell_id


def _ratio(reading: Reading) -> float:
    assert reading.change is not None
    return reading.change.ratio.value


def _step(past: Past, reading: Reading, metric: str) -> str:
    assert reading.change is not None
    before = past.readings[past.readings.index(reading) - 1]
    return (
        f"{_name(past)}: {reading.change.verdict} at {reading.commit or reading.run}, "
        f"{words.factor(reading.change.ratio)} of {before.commit or before.run} (run {reading.run}, "
        f"{reading.when[:10]}; {past.machine or 'machine unknown'}), "
        f"now {words.quantity(reading.estimate.value, metric)}."
    )


def _told(past: Past, reading: Reading, metric: str) -> str:
    each = reading.estimate
    verdict = f", {reading.change.verdict}" if reading.change else ""
    span = f" ({words.interval(each, metric)})" if not math.isnan(each.low) else ""
    where = ", ".join(filter(None, (reading.run, reading.commit, reading.when[:10])))
    return f"{where}: {words.quantity(each.value, metric)}{span}{verdict}"


def _table(pasts: Sequence[Past], metric: str) -> Table:
    def value(estimate: Estimate) -> TableCell:
        return TableCell(words.quantity(estimate.value, metric), estimate.value, hint=words.interval(estimate, metric),
                         low=estimate.low, high=estimate.high, unit=SI_UNITS.get(metric, "1"))  # fmt: skip

    def steps(past: Past) -> str:
        found = [(each.change.verdict, _ratio(each), each) for each in past.steps if each.change]
        return ", ".join(f"{what} {words.times(x)} at {e.commit or e.run}" for what, x, e in found) or words.NONE

    def over(past: Past) -> TableCell:
        if len(past.readings) < 2 or not past.readings[0].estimate.value:
            return NOTHING
        ratio = past.readings[-1].estimate.value / past.readings[0].estimate.value
        return TableCell(words.times(ratio), ratio)

    machines = len({past.machine for past in pasts}) > 1
    return Table(
        name="past", caption=f"{words.metric(metric)} of every cell in its first and last run, and the steps between",
        columns=[
            Column("cell", _name),
            *([Column("machine", lambda past: past.machine or words.NONE)] if machines else []),
            Column("runs", lambda past: TableCell(str(len(past.readings)), len(past.readings)), numeric=True),
            Column("first", lambda past: value(past.readings[0].estimate), numeric=True),
            Column("last", lambda past: value(past.readings[-1].estimate), numeric=True),
            Column("last / first", over, numeric=True),
            Column("steps", steps),
        ],
        items=pasts, most=40,
    )  # fmt: skip
