"""How long a history, which mixer, at what cost: quality against the events that are read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

from bench.analysis.history import METRIC, PARTS, SHARE, HistoryCurve, Point
from bench.render import words
from bench.render.axes import SIZE, amount_axis, legend, length_axis, new_axes
from bench.render.blocks import Block, Bullets, Column, Figure, Figures, Folded, Prose, Section, Table, TableCell
from bench.render.entries import NOTHING, amount, length
from bench.render.findings import Findings
from bench.render.quality_plots import front
from bench.render.styles import BASELINE, DOTTED, INK, LINES, Style
from bench.render.svg import drawing

ORDER = 88
TERMINAL = True

COSTS = {
    "embed_user_s": "one user's embedding",
    "train_step_s": "training step",
    "train_wall_s": "training time",
    "peak_memory_bytes": "peak memory",
    "inference_rows_per_s": "users/s",
}
ROW = tuple[HistoryCurve, int, Point]


def build(findings: Findings) -> Section | None:
    curves = findings.histories
    if not curves and not findings.history_problems:
        return None
    blocks: list[Block] = []
    for i, (run, dataset) in enumerate(dict.fromkeys((curve.run, curve.dataset) for curve in curves)):
        own = [curve for curve in curves if (curve.run, curve.dataset) == (run, dataset)]
        found = list(_dataset(findings, own, i))
        blocks += found if i == 0 else [Folded(dataset, found)]
    problems = [*findings.history_problems, *(each for curve in curves for each in curve.failures)]
    if problems:
        blocks += [Prose("Not usable:"), Bullets(problems)]
    return Section("history", "How long a history, which mixer, at what cost", blocks)


def _dataset(findings: Findings, curves: Sequence[HistoryCurve], i: int) -> Iterator[Block]:
    dataset = curves[0].dataset
    said = [text for curve in curves if curve.mixer and (text := answer(curve))]
    if said:
        yield Prose(f"{dataset}: the history from which on more of it adds less than {1 - SHARE:.0%} to NDCG@10.")
        yield Bullets(said)
    plot = partial(length_plot, findings, curves)
    cost = partial(front_plot, findings, curves)
    yield Figures(
        "Means over users, cuts and seeds with 95 % intervals. Right of it each length at its cost.",
        [
            *(partial(plot, metric=f"{part}{METRIC}", name=f"history-{part}{i}") for part in PARTS),
            partial(cost, cost="embed_user_s", name=f"history-latency-{i}"),
            partial(cost, cost="train_wall_s", name=f"history-training-{i}"),
        ],
    )
    rows = [(curve, n, point) for curve in curves for n, point in curve.points.items()]
    yield _table(findings, rows, dataset)
    kinds = dict.fromkeys(kind for _, _, point in rows for kind in point.segments)
    columns = [Column(f"{kind} events", partial(_segment, kind=kind), True, stacked=True) for kind in kinds]
    by_segment = Table(
        name="history-segments", caption=f"NDCG@10 on {dataset} by the events that users have", items=rows,
        columns=[*_who(findings), *columns], head=2,
    )  # fmt: skip
    yield Folded("By how many events users have", [by_segment], page_only=True)


def answer(curve: HistoryCurve) -> str:
    """``mamba: 200 events (100 to 500), NDCG@10 0.36; one user's embedding 1.2 ms, ...``"""
    found = curve.enough()
    if found is None:
        return ""
    point, longest = curve.points[found.length], max(curve.points)
    costs = [f"{COSTS[name]} {words.quantity(point.values[name], name)}" for name in COSTS if name in point.values]
    ends = f"{found.low:,} to {found.high:,}" if found.low < found.high else "in every resampling of the users"
    beyond = " or more: the longest that was tried" if found.length == longest else ""
    mean = words.mean(point.metrics[METRIC])
    return f"{curve.label}: {found.length:,} events{beyond} ({ends}), NDCG@10 {mean}; {', '.join(costs)}."


def _style(findings: Findings, curve: HistoryCurve) -> Style:
    return findings.styles[curve.mixer] if curve.mixer else BASELINE


def _line(curve: HistoryCurve, curves: Sequence[HistoryCurve]) -> object:
    return LINES[[each for each in curves if each.mixer == curve.mixer].index(curve) % len(LINES)]


def length_plot(findings: Findings, curves: Sequence[HistoryCurve], *, metric: str, name: str) -> Figure | None:
    """A metric against the events that are read, a line a model; None where nobody has it at two lengths."""
    drawn = [curve for curve in curves if sum(metric in point.metrics for point in curve.points.values()) > 1]
    if not drawn:
        return None
    hints: dict[str, list[str]] = {}
    alt = []
    with drawing():
        canvas, ax = new_axes()
        for i, curve in enumerate(drawn):
            style, line = _style(findings, curve), _line(curve, drawn)
            means = {n: point.metrics[metric] for n, point in curve.points.items() if metric in point.metrics}
            values = [mean.value for mean in means.values()]
            for n, mean in means.items():
                if not math.isnan(mean.low):
                    ax.plot([n, n], [mean.low, mean.high], color=style.light, linewidth=1.2, alpha=0.6)
            ax.plot([*means], values, color=style.light, linestyle=line, label=words.short(curve.label, 26))
            ax.scatter([*means], values, marker=style.marker, color=style.light, s=30, zorder=3, gid=f"length-{i}")
            hints[f"length-{i}"] = [f"{curve.label}, {n:,} events: {words.mean(mean)}" for n, mean in means.items()]
            alt.append(f"{curve.label}: {', '.join(f'{mean.value:.4f} at {n:,}' for n, mean in means.items())}.")
        length_axis(ax, {n for curve in drawn for n in curve.points})
        ax.set_xlabel("last events that are read", color=INK, fontsize=9)
        ax.set_ylim(bottom=0)
        legend(canvas, ax)
    title = f"{words.ranking_metric(metric)} against the history that is read"
    return Figure(name, title, f"{title}. {' '.join(alt)}", canvas, hints)


def front_plot(findings: Findings, curves: Sequence[HistoryCurve], *, cost: str, name: str) -> Figure | None:
    """NDCG@10 against a cost, a line a trained model over its lengths; None where there is no such cost."""
    drawn = [curve for curve in curves if curve.mixer and any(cost in each.values for each in curve.points.values())]
    if not drawn:
        return None
    hints: dict[str, list[str]] = {}
    every: list[tuple[float, float]] = []
    with drawing():
        canvas, ax = new_axes(SIZE)
        for i, curve in enumerate(drawn):
            style, line = _style(findings, curve), _line(curve, drawn)
            here = {n: point for n, point in curve.points.items() if point.values.get(cost, 0) > 0}
            points = [(point.values[cost], point.metrics[METRIC].value) for point in here.values()]
            every += points
            x, y = zip(*points, strict=True)
            ax.plot(x, y, color=style.light, linestyle=line, label=words.short(curve.label, 26))
            ax.scatter(x, y, marker=style.marker, color=style.light, s=30, zorder=3, gid=f"front-{i}")
            hints[f"front-{i}"] = [
                f"{curve.label}, {n:,} events: {words.mean(point.metrics[METRIC])} at "
                f"{words.quantity(point.values[cost], cost)}" for n, point in here.items()
            ]  # fmt: skip
        best = front(every)
        ax.plot(
            *zip(*best, strict=True), color=INK, linewidth=0.8, linestyle=DOTTED, drawstyle="steps-post", zorder=1,
            label="best for its cost",
        )  # fmt: skip
        amount_axis(ax, [x for x, _ in every], cost)
        ax.set_ylim(bottom=0)
        ax.set_xlabel(COSTS[cost], color=INK, fontsize=9)
        legend(canvas, ax)
    title = f"NDCG@10 against {COSTS[cost]}"
    return Figure(
        name, title, f"{title}. {' '.join(text for texts in hints.values() for text in texts)}", canvas, hints
    )


def _who(findings: Findings) -> list[Column]:
    def model(row: ROW) -> TableCell:
        style = _style(findings, row[0])
        return TableCell(f"{style.sign} {row[0].label}", tint=style.name if row[0].mixer else "")

    return [Column("model", model), Column("events read", lambda row: length(row[1]), numeric=True)]


def _table(findings: Findings, rows: Sequence[ROW], dataset: str) -> Table:
    names = [f"{part}{kind}@10" for kind in ("ndcg", "recall") for part in PARTS]
    names = [name for name in names if any(name in point.metrics for _, _, point in rows)]
    costs = [name for name in COSTS if any(name in point.values for _, _, point in rows)]
    metrics = [
        Column(words.ranking_metric(each), partial(_mean, name=each), True, "recall" in each, stacked=True)
        for each in names
    ]
    return Table(
        name="history",
        caption=f"Quality on {dataset} (mean with 95 % interval) and cost (median over cuts and seeds)",
        columns=[*_who(findings), *metrics, *(Column(COSTS[each], partial(_cost, name=each), True) for each in costs)],
        items=rows, head=2,
    )  # fmt: skip


def _mean(row: ROW, name: str) -> TableCell:
    mean = row[2].metrics.get(name)
    return TableCell(words.mean(mean), mean.value) if mean else NOTHING


def _segment(row: ROW, kind: str) -> TableCell:
    mean, n_users = row[2].segments.get(kind, (None, 0))
    return TableCell(words.mean(mean), mean.value, hint=f"{n_users:,} users") if mean else NOTHING


def _cost(row: ROW, name: str) -> TableCell:
    return amount(row[2].values.get(name), lambda value: words.quantity(value, name))
