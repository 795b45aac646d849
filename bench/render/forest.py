"""Ranking on all data sets at once: who differs from whom, as a picture, a table and a sentence for each model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from bench.analysis.forest import Forest
from bench.analysis.quality import Comparison, ModelQuality, headline
from bench.render import words
from bench.render.axes import SIZE, legend, new_axes, set_ticks
from bench.render.blocks import Block, Column, Figure, Figures, Table, TableCell
from bench.render.entries import NOTHING
from bench.render.findings import Findings
from bench.render.quality_plots import style_of_model
from bench.render.styles import BASELINE, INK, Style, Styles
from bench.render.svg import drawing

WIDEST = 0.6  # of the reference's score; what lies beyond stands at the edge
NAMED = 3  # data sets in a sentence
BEST = "best baseline"


def blocks(findings: Findings, found: Sequence[Forest]) -> Iterator[Block]:
    """The picture and the table."""
    if any(forest.rows for forest in found):
        draw = partial(forest_plot, [each for each in found if each.rows], findings.styles, name="ranking-forest")
        yield Figures(
            "Paired by user, with 95 % intervals, in percent of the score of the model at 0: right of it ranks better. "
            "An arrow: goes on beyond the edge.",
            [draw],
        )
    yield table(findings, found)


def sentences(found: Sequence[Forest]) -> list[str]:
    """``mamba against attention in NDCG@10: worse on a (by 0.010); no difference found on 9 data sets, where ...``"""
    told: dict[str, dict[str, list[Comparison]]] = defaultdict(lambda: defaultdict(list))
    for forest in found:
        for model, each in forest.rows or forest.lines:
            metric = words.ranking_metric(each.metric)
            told[f"{model.name} against {forest.reference.name} in {metric}"][each.verdict].append(each)
    return [f"Ranking, {who}: {'; '.join(_verdicts(by_verdict))}." for who, by_verdict in told.items()]


def _verdicts(by_verdict: dict[str, list[Comparison]]) -> Iterator[str]:
    for verdict in ("better", "worse"):
        if each := by_verdict.get(verdict):
            named = ", ".join(f"{one.dataset} (by {abs(one.difference.value):.3f})" for one in each[:NAMED])
            yield f"{verdict} on {named}" + (f" and {len(each) - NAMED} more" if len(each) > NAMED else "")
    if each := by_verdict.get("no difference found"):
        where = each[0].dataset if len(each) == 1 else words.count(len(each), "data set")
        least = sorted(one.smallest / one.score for one in each if one.score > 0 and one.smallest == one.smallest)
        ends = " to ".join(dict.fromkeys(map(words.percent, (least[0], least[-1])))) if least else ""
        yield f"no difference found on {where}" + (f", where {ends} of the score would have shown" if ends else "")


def table(findings: Findings, found: Sequence[Forest]) -> Table:
    """A row a data set: the reference's score, and how far each other model is from it."""
    names = dict.fromkeys(model.name for forest in found for model, _ in forest.rows)
    named = [forest.reference.dataset for forest in found]
    metric = words.ranking_metric(str(headline(found[0].reference.metrics)))
    beside = [(forest.lines[0][0].name, 0) for forest in found if forest.lines][:1]
    beside += [(BEST, -1)] if any(len(forest.lines) > 1 for forest in found) else []

    def place(forest: Forest) -> str:
        dataset = forest.reference.dataset
        return f"{dataset}, run {forest.reference.run}" if named.count(dataset) > 1 else dataset

    def score(forest: Forest) -> TableCell:
        style, mean = style_of_model(forest.reference, findings.styles), forest.reference.metrics
        value = mean[headline(mean) or ""]
        text = f"{style.sign} {forest.reference.name} {words.mean(value)}"
        return TableCell(text, value.value, low=value.low, high=value.high, unit="1")

    def entry(forest: Forest, name: str) -> TableCell:
        return next((_difference(findings, forest, *row) for row in forest.rows if row[0].name == name), NOTHING)

    def line(forest: Forest, at: int) -> TableCell:
        return _difference(findings, forest, *forest.lines[at], named=at < 0) if forest.lines else NOTHING

    return Table(
        name="ranking",
        caption=f"{metric} on every data set, and how far the others are from it, paired by user, with 95 % intervals; "
        "\u2248: no difference found",
        columns=[
            Column("data set", place), Column("against", score, stacked=True),
            *(Column(name, partial(entry, name=name), stacked=True) for name in names),
            *(Column(name, partial(line, at=at), stacked=True) for name, at in beside),
        ],
        items=found,
    )  # fmt: skip


def _difference(
    findings: Findings, forest: Forest, model: ModelQuality, found: Comparison, *, named: bool = False
) -> TableCell:
    d = found.difference
    interval = words.mean(d).partition(" ")[2]
    name = f"{model.name} " if named else ""
    hint = f"{found.first} and {found.second}; {words.smallest(found)} would probably have shown"
    if found.verdict == "no difference found":
        text, tint = f"\u2248 {name}{words.mean(d).partition(' ')[0]}", ""
    else:
        winner = model if found.verdict == "better" else forest.reference
        text, tint = f"{name}{found.verdict} by {abs(d.value):.4f}", style_of_model(winner, findings.styles).name
    return TableCell(f"{text} {interval}".strip(), d.value, tint=tint, hint=hint, low=d.low, high=d.high, unit="1")


def forest_plot(found: Sequence[Forest], styles: Styles, *, name: str) -> Figure:
    """A row for each data set and model: the paired difference to the reference, as a share of its score."""
    hints: dict[str, list[str]] = {}
    labels: dict[int, str] = {}
    n = sum(len(forest.rows) + 1 for forest in found)
    every = [abs(end) / forest.score for forest in found for _, each in forest.rows if forest.score > 0
             for end in (each.difference.low, each.difference.high, each.difference.value) if end == end]  # fmt: skip
    edge = min(WIDEST, max([0.01, *every]))
    with drawing():
        canvas, ax = new_axes((SIZE[0], 0.9 + 0.2 * n), left=1.35)
        ax.axvline(0, color=INK, linewidth=1)
        y = n
        for i, forest in enumerate(found):
            ax.annotate(words.short(forest.reference.dataset, 44), xy=(0, y), xycoords=("figure fraction", "data"),
                        xytext=(4, 0), textcoords="offset points", verticalalignment="center", color=INK, fontsize=9,
                        fontweight="bold")  # fmt: skip
            scale = forest.score if forest.score > 0 else 1.0
            for line, (_, each) in zip(("--", ":"), forest.lines, strict=False):
                share = each.difference.value / scale
                if abs(share) <= edge:
                    ends = [y - len(forest.rows) - 0.45, y - 0.55]
                    ax.plot([share, share], ends, color=BASELINE.light, linestyle=line, linewidth=1.4)
            for model, each in forest.rows:
                y -= 1
                labels[y] = words.short(model.name, 18)
                _draw_row(ax, y, each, scale, edge, style_of_model(model, styles), f"forest-{i}-{y}")
                hints[f"forest-{i}-{y}"] = [_told(each)]
            y -= 1
        popular = [forest.lines[0][0].name for forest in found if forest.lines]
        apart = any(len(forest.lines) > 1 for forest in found)
        for line, label in (("--", popular[0]), (":", BEST))[: 1 + apart] if popular else ():
            ax.plot([], [], color=BASELINE.light, linestyle=line, linewidth=1.4, label=label)
        ax.plot([], [], color=INK, linewidth=1, label=f"0: {' or '.join(sorted({f.reference.name for f in found}))}")
        ax.set_ylim(0.4, n + 0.6)
        ax.set_xlim(-1.06 * edge, 1.06 * edge)
        set_ticks(ax.yaxis, sorted(labels), lambda at: labels[round(at)])
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(
            lambda share, _: f"{100 * share:+.3g} %".replace("-", words.MINUS) if abs(share) > 1e-9 else "0"
        )
        ax.grid(False, axis="y")
        legend(canvas, ax)
    alt = "Paired differences in ranking quality. " + " ".join(text for texts in hints.values() for text in texts)
    return Figure(name, f"{words.ranking_metric(found[0].rows[0][1].metric)}: differences", alt, canvas, hints)


def _draw_row(ax: Axes, y: int, found: Comparison, scale: float, edge: float, style: Style, gid: str) -> None:
    """A difference with its interval; what lies beyond the edge is an arrow there."""
    shares = (found.difference.low / scale, found.difference.value / scale, found.difference.high / scale)
    low, value, high = (max(-edge, min(edge, share)) for share in shares)
    ax.plot([low, high], [y, y], color=style.light, linewidth=2)
    for inside, end, arrow in ((low, -edge, "<"), (high, edge, ">")):
        if inside == end and value != end:
            ax.scatter([inside], [y], marker=arrow, color=style.light, s=14)
    marker = style.marker if value == shares[1] else "<" if value < 0 else ">"
    ax.scatter([value], [y], marker=marker, color=style.light, s=34, zorder=3, gid=gid)


def _told(found: Comparison) -> str:
    return (
        f"{found.dataset}: {found.first} minus {found.second} {words.mean(found.difference)} in "
        f"{words.ranking_metric(found.metric)}, {found.verdict}"
    )
