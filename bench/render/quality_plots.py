"""The drawings of ranking quality: means side by side, learning curves, quality against cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bench.analysis.ablation import Factor
from bench.analysis.cells import number
from bench.analysis.quality import ModelQuality
from bench.render import words
from bench.render.axes import SIZE, amount_axis, legend, new_axes, set_ticks
from bench.render.blocks import Figure
from bench.render.styles import BASELINE, DOTTED, INK, LINES, Style, Styles
from bench.render.svg import drawing

CURVE = "validation_ndcg@10"


def style_of_model(model: ModelQuality, styles: Styles) -> Style:
    return styles[model.mixer] if model.trained else BASELINE


def means_plot(models: Sequence[ModelQuality], metric: str, styles: Styles, *, name: str) -> Figure:
    """One metric of every model with its interval, one row a model."""
    models = [model for model in models if metric in model.metrics]
    hints: dict[str, list[str]] = {}
    with drawing():
        canvas, ax = new_axes((SIZE[0], 0.7 + 0.32 * len(models)), left=1.6)
        for row, model in enumerate(models):
            y, style, mean = len(models) - row, style_of_model(model, styles), model.metrics[metric]
            if not math.isnan(mean.low):
                ax.plot([mean.low, mean.high], [y, y], color=style.light, linewidth=2)
            ax.scatter([mean.value], [y], marker=style.marker, color=style.light, s=40, zorder=3, gid=f"mean-{row}")
            hints[f"mean-{row}"] = [_hint(model, metric)]
        ax.set_ylim(0.4, len(models) + 0.6)
        ax.set_xlim(left=0)
        set_ticks(ax.yaxis, range(1, len(models) + 1), lambda y: words.short(models[len(models) - round(y)].label, 22))
        ax.grid(False, axis="y")
    alt = f"{words.ranking_metric(metric)}. " + " ".join(
        f"{model.label}: {words.mean(model.metrics[metric])}." for model in models
    )
    return Figure(name, words.ranking_metric(metric), alt, canvas, hints)


def curves_plot(models: Sequence[ModelQuality], styles: Styles, *, name: str, rate: str = "") -> Figure | None:
    """Validation quality over training, one line a seed; None where no curve was recorded.

    Args:
        rate: value of a model that its steps are divided by, such as ``train_steps_per_s``; steps where empty.
    """
    drawn = [model for model in models if any(_curve(curve) for curve in model.curves)]
    drawn = [model for model in drawn if not rate or model.values.get(rate, 0) > 0]
    if not drawn:
        return None
    ends = []
    with drawing():
        canvas, ax = new_axes()
        for i, model in enumerate(drawn):
            style, line = style_of_model(model, styles), LINES[_rank(model, drawn) % len(LINES)]
            curves = [points for curve in model.curves if (points := _curve(curve))]
            for j, points in enumerate(curves):
                steps, scores = zip(*points, strict=True)
                label = words.short(model.label, 26) if j == 0 else None
                at = [step / (model.values[rate] if rate else 1) for step in steps]
                ax.plot(at, scores, color=style.light, linestyle=line, linewidth=1.2, alpha=0.8, label=label, zorder=i)
            ends.append(f"{model.label}: best {max(score for points in curves for _, score in points):.4f}.")
        ax.set_ylim(bottom=0)
        unit = "seconds of training" if rate else "training steps"
        ax.set_xlabel(unit, color=INK, fontsize=9)
        ax.set_ylabel("NDCG@10, validation", color=INK, fontsize=9)
        legend(canvas, ax)
    title = f"Learning curves, {unit}"
    return Figure(name, title, f"{title}: NDCG@10 on validation. {' '.join(ends)}", canvas)


def cost_plot(
    models: Sequence[ModelQuality], metric: str, styles: Styles, *, cost: str, name: str, title: str
) -> Figure | None:
    """Quality against one cost, with the line of the best for their cost; None below two trained models."""
    shown = [model for model in models if model.trained and metric in model.metrics and model.values.get(cost, 0) > 0]
    if len(shown) < 2:
        return None
    hints: dict[str, list[str]] = {}
    with drawing():
        canvas, ax = new_axes()
        best = front([(model.values[cost], model.metrics[metric].value) for model in shown])
        ax.plot(
            *zip(*best, strict=True), color=INK, linewidth=0.8, linestyle=DOTTED, drawstyle="steps-post", zorder=1,
            label="best for its cost",
        )  # fmt: skip
        for i, model in enumerate(shown):
            style, x, mean = style_of_model(model, styles), model.values[cost], model.metrics[metric]
            if not math.isnan(mean.low):
                ax.plot([x, x], [mean.low, mean.high], color=style.light, linewidth=1.6)
            ax.scatter([x], [mean.value], marker=style.marker, color=style.light, s=40, zorder=3, gid=f"cost-{i}")
            ax.plot([], [], marker=style.marker, color=style.light, linestyle="", label=words.short(model.label, 26))
            hints[f"cost-{i}"] = [f"{_hint(model, metric)}; {title.lower()}: {words.quantity(x, cost)}"]
        amount_axis(ax, [model.values[cost] for model in shown], cost)
        ax.set_ylim(bottom=0)
        ax.set_xlabel(title, color=INK, fontsize=9)
        ax.set_ylabel(words.ranking_metric(metric), color=INK, fontsize=9)
        legend(canvas, ax)
    alt = " ".join(
        f"{m.label}: {words.mean(m.metrics[metric])} at {words.quantity(m.values[cost], cost)}." for m in shown
    )
    return Figure(name, f"{words.ranking_metric(metric)} against {title.lower()}", alt, canvas, hints)


def importance_plot(factors: Sequence[Factor], styles: Styles, *, name: str) -> Figure:
    """How far each level of one data set is from its centre, with its interval, the farthest first; one row a level."""
    rows = [(factor, level, found) for factor in factors for level, found in factor.against.items()]
    rows.sort(key=lambda row: -abs(row[2].difference.value))
    labels = [f"{factor.name} {level}" for factor, level, _ in rows]
    mixers: set[str] = set()
    with drawing():
        canvas, ax = new_axes((SIZE[0], 0.9 + 0.24 * len(rows)), left=1.9)
        ax.axvline(0, color=INK, linewidth=0.8)
        for row, (factor, _, found) in enumerate(rows):
            y, style = len(rows) - row, style_of_model(factor.levels[factor.usual], styles)
            seen, mean = found.verdict != "no difference found", found.difference
            ax.plot([mean.low, mean.high], [y, y], color=style.light, linewidth=1.6)
            ax.scatter([mean.value], [y], marker=style.marker, s=36, zorder=3, edgecolors=style.light,
                       facecolors=style.light if seen else "white",
                       label=None if factor.mixer in mixers else factor.mixer)  # fmt: skip
            mixers.add(factor.mixer)
        ax.set_ylim(0.4, len(rows) + 0.6)
        set_ticks(ax.yaxis, range(1, len(rows) + 1), lambda y: words.short(labels[len(rows) - round(y)], 25))
        ax.set_xlabel("from the centre; filled: a difference is found", color=INK, fontsize=9)
        ax.grid(False, axis="y")
        legend(canvas, ax)
    each = [
        f"{factor.mixer}, {label}: {words.mean(found.difference)}, {found.verdict}."
        for label, (factor, _, found) in zip(labels, rows, strict=True)
    ]
    return Figure(name, f"{words.ranking_metric(rows[0][2].metric)}: what matters", " ".join(each), canvas)


def levels_plot(factors: Sequence[Factor], measure: str, styles: Styles, *, name: str) -> Figure | None:
    """A metric with its interval, or the ``cost`` of a training step, at each level of a factor, one line a mixer."""
    levels = [*dict.fromkeys(level for factor in factors for level in factor.levels)]
    title = "time of a step, over the centre's" if measure == "cost" else words.ranking_metric(measure)
    told, drawn = [], 0
    with drawing():
        canvas, ax = new_axes()
        for i, factor in enumerate(factors):
            style = style_of_model(factor.levels[factor.usual], styles)
            points = []
            for level, model in factor.levels.items():
                mean, x = model.metrics.get(measure), levels.index(level) + 0.12 * i
                value = mean.value if mean else factor.cost(level) if measure == "cost" else None
                if value is None:
                    continue
                if mean and not math.isnan(mean.low):
                    ax.plot([x, x], [mean.low, mean.high], color=style.light, linewidth=1.6)
                points.append((x, value))
                told.append(f"{factor.mixer}, {level}: {words.mean(mean) if mean else words.times(value)}.")
            if points:
                ax.plot(*zip(*points, strict=True), color=style.light, marker=style.marker, linewidth=0.8,
                        label=factor.mixer)  # fmt: skip
            drawn += len(points) > 1
        ax.set_ylim(bottom=0)
        set_ticks(ax.xaxis, range(len(levels)), lambda x: words.short(levels[round(x)], 11))
        ax.set_xlabel(f"{factors[0].name} (centre: {factors[0].usual})", color=INK, fontsize=9)
        ax.set_ylabel(title, color=INK, fontsize=9)
        if drawn:
            legend(canvas, ax)
    return Figure(name, f"{factors[0].name}: {title}", " ".join(told), canvas) if drawn else None


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (cost, quality) that no cheaper point is as good as, by rising cost."""
    best: list[tuple[float, float]] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or quality > best[-1][1]:
            best.append((cost, quality))
    return best


def _curve(curve: object) -> list[tuple[float, float]]:
    if not isinstance(curve, dict):
        return []
    pairs = zip(curve.get("step", ()), curve.get(CURVE, ()), strict=False)
    known = ((number(step), number(score)) for step, score in pairs)
    return [(step, score) for step, score in known if step is not None and score is not None]


def _rank(model: ModelQuality, models: Sequence[ModelQuality]) -> int:
    return [each for each in models if each.mixer == model.mixer].index(model)


def _hint(model: ModelQuality, metric: str) -> str:
    users = f", {len(model.users):,} users" if model.users else ""
    mean = words.mean(model.metrics[metric])
    return f"{model.label}: {words.ranking_metric(metric)} {mean}, {model.n_seeds} seeds{users}"
