"""Axes of the drawings: logarithmic, with ticks at round values whose labels carry units."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.analysis.cells import MEMORY, TIME
from bench.analysis.estimate import Estimate
from bench.render import words
from bench.render.styles import FAINT, INK, RULE

SIZE = (4.6, 3.4)  # inches; one column of the page
ROW, ROWS = 0.165, 4  # inches of a line of the legend, and how many fit
WIDEST = 4.0  # how far an interval may stretch an axis beyond the values
_BYTES = [base * 1024.0**power for power in range(5) for base in (1, 10, 100)]
_DECADES = [10.0**power for power in range(-12, 13)]


def new_axes(size: tuple[float, float] = SIZE, *, left: float = 0.8) -> tuple[Canvas, Axes]:
    """An empty drawing; ``left`` is the room for labels up the side. All sizes are inches.

    Margins are fixed rather than fitted to the text: fitting makes matplotlib lay out every drawing twice.
    """
    width, height = size
    canvas = Canvas(figsize=size, facecolor="none")
    canvas.subplots_adjust(left=left / width, right=1 - 0.15 / width, bottom=0.5 / height, top=1 - 0.1 / height)
    ax = canvas.add_subplot(facecolor="none")
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(RULE)
    ax.tick_params(colors=FAINT, labelcolor=INK, labelsize=9, length=3)
    ax.grid(True, color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    return canvas, ax


def legend(canvas: Canvas, ax: Axes) -> None:
    """What each line stands for, above the axes, where it covers nothing; beyond a few lines the drawing grows."""
    labels = ax.get_legend_handles_labels()[1]
    columns = 2 if max(map(len, labels)) <= 26 else 1
    width, height = canvas.get_size_inches()
    rows = math.ceil(len(labels) / columns)
    grown = height + ROW * max(0, rows - ROWS)
    canvas.set_size_inches(width, grown)
    canvas.subplots_adjust(bottom=canvas.subplotpars.bottom * height / grown, top=1 - (0.18 + ROW * rows) / grown)
    width, height = canvas.get_size_inches()
    canvas.legend(
        loc="upper left", bbox_to_anchor=(0.3 / width, 1), ncols=columns, frameon=False, fontsize=9, labelcolor=INK,
        handlelength=2.4, handletextpad=0.4, columnspacing=1.2, labelspacing=0.25, borderaxespad=0, borderpad=0.1,
    )  # fmt: skip


def length_axis(ax: Axes, lengths: Iterable[int]) -> None:
    """L along the bottom, labelled at the measured lengths."""
    ax.set_xscale("log")
    lengths = sorted(set(lengths))
    low, high = lengths[0], lengths[-1]
    pad = (high / low) ** 0.06 if high > low else 2
    ax.set_xlim(low / pad, high * pad)
    set_ticks(ax.xaxis, _apart(lengths, 0.13 * math.log(high * pad * pad / low)), lambda n: f"{n:,.0f}")
    ax.set_xlabel("sequence length L (tokens)", color=INK, fontsize=9)


def cost_axis(ax: Axes, estimates: Sequence[Estimate], metric: str) -> None:
    """A cost up the side."""
    ax.set_yscale("log")
    low, high = _span(estimates)
    pad = max((high / low) ** 0.08, 1.15)
    bottom, top = low / pad, high * pad
    ax.set_ylim(bottom, top)
    steps = (1, 2, 5) if top / bottom < 60 else (1,)
    candidates = sorted(base * step for base in (_BYTES if metric == MEMORY else _DECADES) for step in steps)
    ticks = _apart([tick for tick in candidates if bottom <= tick <= top], 0.07 * math.log(top / bottom))
    set_ticks(ax.yaxis, ticks, lambda value: words.tick(value, metric))
    ax.set_ylabel({TIME: "time a step", MEMORY: "peak memory"}.get(metric, metric), color=INK, fontsize=9)


def ratio_axis(ax: Axes, ratios: Sequence[Estimate]) -> None:
    """A ratio up the side, with 1 well inside."""
    ax.set_yscale("log")
    low, high = _span(ratios)
    bottom, top = min(low / 1.3, 0.4), max(high * 1.3, 2.5)
    ax.set_ylim(bottom, top)
    steps = (1, 2, 5) if top / bottom < 300 else (1,)
    candidates = [step * base for base in _DECADES for step in steps]
    set_ticks(ax.yaxis, [tick for tick in candidates if bottom <= tick <= top], lambda value: f"{value:,.10g}x")


def amount_axis(ax: Axes, values: Sequence[float], quantity: str) -> None:
    """A positive quantity along the bottom, such as ``peak_memory_bytes``, with some room around it."""
    ax.set_xscale("log")
    low, high = min(values) / 1.6, max(values) * 1.6
    ax.set_xlim(low, high)
    bases = _BYTES if quantity == MEMORY else _DECADES
    candidates = sorted({step * base for base in bases for step in (1, 1.5, 2, 3, 5, 7)})
    ticks = _apart([tick for tick in candidates if low <= tick <= high / 1.15], 0.15 * math.log(high / low))
    set_ticks(ax.xaxis, ticks, lambda value: words.tick(value, quantity))


def set_ticks(axis: Axis, ticks: Sequence[float], text: Callable[[float], str]) -> None:
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))
    axis.set_minor_locator(NullLocator())


def _span(estimates: Sequence[Estimate]) -> tuple[float, float]:
    """From the lowest to the highest end of an interval, but a wide one must not squeeze the values together."""
    values = [each.value for each in estimates]
    low, high = min(values), max(values)
    lows = [each.low for each in estimates if each.low > 0]
    highs = [each.high for each in estimates if math.isfinite(each.high)]
    return max(min([low, *lows]), low / WIDEST), min(max([high, *highs]), high * WIDEST)


def _apart(values: Sequence[float], least: float) -> list[float]:
    """The values, from the highest down, whose logarithms differ by ``least``, so that their labels do not touch."""
    kept: list[float] = []
    for value in reversed(values):
        if not kept or math.log(kept[-1] / value) >= least:
            kept.append(value)
    return kept[::-1]
