"""The drawings of a sweep: cost against length, ratio of two costs, crossover lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from bench.analysis.cells import TIME, CellSummary, variant_of
from bench.analysis.crossover import Crossover
from bench.analysis.estimate import Estimate
from bench.analysis.scaling import Scaling
from bench.render import words
from bench.render.axes import SIZE, cost_axis, legend, length_axis, new_axes, ratio_axis, set_ticks
from bench.render.blocks import Figure
from bench.render.styles import DOTTED, FAINT, INK, LINES, RULE, Line, Styles
from bench.render.svg import drawing

Hints = dict[str, list[str]]
Curve = Sequence[tuple[int, float]]


def scaling_plot(
    scalings: Sequence[Scaling], styles: Styles, *, name: str, title: str, limits: Mapping[str, Curve]
) -> Figure:
    """Cost against L on logarithmic axes: medians, intervals, fitted curves; a cross where there is no number.

    Args:
        scalings: one a curve.
        styles: of the mixers.
        name, title: of the figure.
        limits: least cost at some L, by mixer, drawn dotted.
    """
    hints: Hints = {}
    metric = scalings[0].metric
    with drawing():
        canvas, ax = new_axes()
        for i, scaling in enumerate(scalings):
            _draw_curve(ax, scaling, i, LINES[_rank(scaling, scalings) % len(LINES)], styles, hints)
        length_axis(ax, [cell.n_tokens for scaling in scalings for cell in (*scaling.cells, *scaling.censored)])
        drawn = [each for scaling in scalings for each in scaling.estimates]
        for mixer, curve in limits.items():
            ax.plot(*zip(*curve, strict=True), color=styles[mixer].light, linestyle=DOTTED, linewidth=1.4)
            drawn += [Estimate(seconds, math.nan, math.nan, "nothing") for _, seconds in curve]
        if limits:
            ax.plot([], [], color=INK, linestyle=DOTTED, linewidth=1.4, label="limit, in the mixer's colour")
        cost_axis(ax, drawn, metric)
        legend(canvas, ax)
    alt = f"{words.METRIC_NAMES[metric]} against sequence length, both axes logarithmic. " + " ".join(
        f"{_curve_label(each)}: {words.quantity(each.estimates[0].value, metric)} at L = {each.lengths[0]:,}, "
        f"{words.quantity(each.estimates[-1].value, metric)} at L = {each.lengths[-1]:,}."
        for each in scalings
    )
    return Figure(name, title, alt, canvas, hints)


def ratio_plot(
    crossovers: Sequence[Crossover], labels: Sequence[str], styles: Styles, *, name: str, title: str
) -> Figure:
    """Cost of one mixer over that of another against L, one line a label; L* and its interval stand where it is 1."""
    first, second = sorted((crossovers[0].cheaper, crossovers[0].dearer))
    hints: Hints = {}
    drawn: list[Estimate] = []
    with drawing():
        canvas, ax = new_axes()
        ax.axhline(1, color=INK, linewidth=1)
        for i, (found, label) in enumerate(zip(crossovers, labels, strict=True)):
            ratios = [each if found.dearer == first else each.map(1.0, -1.0) for each in found.ratios]
            values, lows, highs = ([getattr(r, end) for r in ratios] for end in ("value", "low", "high"))
            drawn += ratios
            ax.fill_between(found.lengths, lows, highs, color=FAINT, alpha=0.25, linewidth=0)
            line = LINES[i % len(LINES)]
            ax.plot(found.lengths, values, color=INK, linestyle=line, linewidth=1.4, label=words.short(label))
            ax.scatter(found.lengths, values, color=INK, s=16, zorder=3, gid=f"ratios-{i}")
            hints[f"ratios-{i}"] = [
                f"{label}, L = {n:,}: {first.mixer} costs {words.plain(ratio)} times as much as {second.mixer}"
                for n, ratio in zip(found.lengths, ratios, strict=True)
            ]
            if found.outcome == "crosses":
                _draw_star(ax, found, 1.0, f"star-{i}", label, styles, hints)
        length_axis(ax, [n for found in crossovers for n in found.lengths])
        ratio_axis(ax, drawn)
        _tint_sides(ax, styles, above=second.mixer, below=first.mixer)
        ax.set_ylabel(words.short(f"{first.mixer} / {second.mixer}"), color=INK, fontsize=9)
        legend(canvas, ax)
    alt = f"Cost of {first.mixer} over that of {second.mixer} against sequence length. " + _alt(crossovers, labels)
    return Figure(name, title, alt, canvas, hints)


def star_plot(
    crossovers: Sequence[Crossover], labels: Sequence[str], styles: Styles, *, name: str, title: str
) -> Figure:
    """L* with its interval, one row a label; a row without a marker does not cross in the measured range."""
    hints: Hints = {}
    n = len(crossovers)
    with drawing():
        canvas, ax = new_axes((2 * SIZE[0], 0.7 + 0.28 * n), left=3.3)
        for row, (found, label) in enumerate(zip(crossovers, labels, strict=True)):
            ax.plot([found.lengths[0], found.lengths[-1]], [n - row] * 2, color=RULE, linewidth=2)
            if found.outcome == "crosses":
                _draw_star(ax, found, n - row, f"star-{row}", label, styles, hints)
        length_axis(ax, [length for found in crossovers for length in found.lengths])
        ax.set_ylim(0.4, n + 0.6)
        set_ticks(ax.yaxis, range(1, n + 1), lambda y: words.short(labels[n - round(y)], 44))
        ax.grid(False, axis="y")
    return Figure(name, title, _alt(crossovers, labels), canvas, hints)


def depth_plot(cells: Sequence[CellSummary], metric: str, styles: Styles, *, name: str, title: str) -> Figure:
    """Cost against the number of layers, one line a mixer and backend."""
    hints: Hints = {}
    variants = sorted({variant_of(cell.cell) for cell in cells})
    with drawing():
        canvas, ax = new_axes()
        for i, variant in enumerate(variants):
            own = sorted((c for c in cells if variant_of(c.cell) == variant), key=lambda c: c.cell["n_layers"])
            style = styles[variant.mixer]
            line = LINES[[each for each in variants if each.mixer == variant.mixer].index(variant) % len(LINES)]
            depths = [cell.cell["n_layers"] for cell in own]
            values = [cell.estimates[metric].value for cell in own]
            _draw_bars(ax, depths, [cell.estimates[metric] for cell in own], style.light)
            label = words.short(str(variant), 28)
            ax.plot(depths, values, color=style.light, linestyle=line, linewidth=1.2)
            ax.scatter(depths, values, marker=style.marker, color=style.light, s=34, zorder=3, gid=f"depth-{i}")
            ax.plot([], [], color=style.light, linestyle=line, marker=style.marker, label=label)
            hints[f"depth-{i}"] = [_hint(cell, metric) for cell in own]
        cost_axis(ax, [cell.estimates[metric] for cell in cells], metric)
        ax.set_xscale("log")
        set_ticks(ax.xaxis, sorted({cell.cell["n_layers"] for cell in cells}), lambda n: f"{n:,.0f}")
        ax.set_xlabel("layers", color=INK, fontsize=9)
        legend(canvas, ax)
    alt = f"{title} against layers. " + " ".join(_hint(cell, metric) for cell in cells)
    return Figure(name, title, alt, canvas, hints)


def _draw_bars(ax: Axes, at: Sequence[float], estimates: Sequence[Estimate], colour: str) -> None:
    bars = [(x, each.low, each.high) for x, each in zip(at, estimates, strict=True) if each.low > 0]
    if bars:
        ax.vlines(*zip(*bars, strict=True), color=colour, linewidth=1.6)


def _draw_curve(ax: Axes, scaling: Scaling, i: int, line: Line, styles: Styles, hints: Hints) -> None:
    style = styles[variant_of(scaling.curve).mixer]
    values = [each.value for each in scaling.estimates]
    if scaling.terms is None:
        ax.plot(scaling.lengths, values, color=style.light, linestyle=line, linewidth=1.2)
    else:
        n = np.geomspace(scaling.lengths[0], scaling.lengths[-1], 60)
        c0, c1, c2 = scaling.terms
        ax.plot(n, c0 + c1 * n + c2 * n**2, color=style.light, linestyle=line, linewidth=1.2)
    _draw_bars(ax, scaling.lengths, scaling.estimates, style.light)
    ax.scatter(scaling.lengths, values, marker=style.marker, color=style.light, s=34, zorder=3, gid=f"points-{i}")
    ax.plot([], [], color=style.light, linestyle=line, marker=style.marker, label=_curve_label(scaling))
    hints[f"points-{i}"] = [_hint(cell, scaling.metric) for cell in scaling.cells]
    if scaling.censored:
        lengths = [cell.n_tokens for cell in scaling.censored]
        floor = ax.get_xaxis_transform()
        heights = [0.03 + 0.06 * i] * len(lengths)
        ax.scatter(lengths, heights, marker="x", color=style.light, s=28, transform=floor, gid=f"gaps-{i}")
        hints[f"gaps-{i}"] = [f"{words.cell(cell)}: {cell.status}. {cell.reason}" for cell in scaling.censored]


def _draw_star(ax: Axes, found: Crossover, y: float, gid: str, label: str, styles: Styles, hints: Hints) -> None:
    star = found.n_tokens
    colour = styles[found.cheaper.mixer].light
    if not math.isnan(star.low):
        ends = [max(star.low, found.lengths[0]), min(star.high, found.lengths[-1])]
        ax.plot(ends, [y, y], color=colour, linewidth=6, solid_capstyle="butt", alpha=0.5)
    ax.scatter([star.value], [y], marker="D", color=colour, s=36, zorder=4, gid=gid)
    hints[gid] = [f"{label}: L* = {words.length(star.value)} (95 %: {words.star_interval(found)})"]


def _tint_sides(ax: Axes, styles: Styles, *, above: str, below: str) -> None:
    """Say on which side of 1 which mixer costs less."""
    bottom, top = ax.get_ylim()
    for mixer, low, high, x, y, offset in ((above, 1.0, top, 0, 1, (5, -4)), (below, bottom, 1.0, 1, 0, (-5, 4))):
        colour = styles[mixer].light
        ax.axhspan(low, high, color=colour, alpha=0.08, linewidth=0, zorder=0)
        ax.annotate(
            f"{words.short(mixer, 28)} costs less", xy=(x, y), xycoords="axes fraction", xytext=offset,
            textcoords="offset points", horizontalalignment="right" if x else "left",
            verticalalignment="top" if y else "bottom", color=INK, fontsize=9,
        )  # fmt: skip


def _rank(scaling: Scaling, scalings: Sequence[Scaling]) -> int:
    """Which of its mixer's curves this is: the backends of one mixer differ by line style."""
    mixer = variant_of(scaling.curve).mixer
    return [each for each in scalings if variant_of(each.curve).mixer == mixer].index(scaling)


def _curve_label(scaling: Scaling) -> str:
    name = words.short(words.variant(scaling.curve), 28)
    return f"{name} ~ L^{scaling.exponent.value:.2f}" if scaling.exponent else name


def _hint(cell: CellSummary, metric: str) -> str:
    each = cell.estimates[metric]
    counts = f"{cell.n_rounds} rounds" + (f", {cell.n_samples} samples" if metric == TIME else "")
    span = words.interval(each, metric)
    return f"{words.cell(cell)}: {words.quantity(each.value, metric)} (95 %: {span}), {counts}, {cell.status}"


def _alt(crossovers: Sequence[Crossover], labels: Sequence[str]) -> str:
    return " ".join(f"{label}: {words.crossover(found)}." for found, label in zip(crossovers, labels, strict=True))
