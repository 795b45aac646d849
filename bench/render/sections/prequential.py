"""Ranking quality as time goes by: every visit ranked, then revealed, with the updates of weights marked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench.analysis.groups import grouped
from bench.analysis.prequential import METRIC, Course, Pair, courses_of, pairs_of
from bench.render import words
from bench.render.axes import legend, new_axes
from bench.render.blocks import Block, Bullets, Column, Figure, Figures, Prose, Section, Table, TableCell
from bench.render.entries import amount
from bench.render.findings import Findings
from bench.render.styles import BASELINE, INK, LINES, RULE
from bench.render.svg import drawing

ORDER = 47
TERMINAL = True
COSTS = {"learn_s": "updates of weights", "rebuild_s": "states made anew"}
ABOUT = (
    "Events go by in the order of time; all users who have events at one time are ranked for, then these are revealed. "
    "Means over users of the means over their visits; differences are tested over users, corrected for their number."
)


def build(findings: Findings) -> Section | None:
    courses, problems = courses_of(*findings.runs)
    blocks: list[Block] = []
    for i, own in enumerate(grouped(courses, lambda each: (each.run, each.dataset, each.update_days)).values()):
        blocks += [
            Prose(f"{own[0].dataset}: {said(own, pairs_of(own))}", "lead"), Prose(ABOUT, "note"),
            Figures(
                f"NDCG@10 by windows of {own[0].update_days} days after the cut; a rule marks each update of weights.",
                [partial(course_plot, findings, own, name=f"prequential-{i}")],
            ),
            _table(own),
        ]  # fmt: skip
    blocks += [Prose("Not usable:"), Bullets(problems)] if problems else []
    return Section("prequential", "Quality as time goes by", blocks) if blocks else None


def said(courses: Sequence[Course], pairs: Sequence[Pair]) -> str:
    """Who ranks best, and which of the others are clearly below."""
    best = courses[0]
    against = [pair for pair in pairs if pair.first == best.label]
    beaten = [f"{pair.second} (by {pair.difference.value:.4f})" for pair in against if pair.clear]
    alike = [pair.second for pair in against if not pair.clear]
    told = [f"{best.label} ranks highest, NDCG@10 {words.mean(best.mean)}"]
    told += [f"clearly above {', '.join(beaten)}"] if beaten else []
    told += [f"no difference found to {', '.join(alike)}"] if alike else []
    return f"{'; '.join(told)}."


def course_plot(findings: Findings, courses: Sequence[Course], *, name: str) -> Figure:
    """A curve a model and arm."""
    hints: dict[str, list[str]] = {}
    with drawing():
        canvas, ax = new_axes()
        updates = {window for each in courses if each.updated for window in [*each.curve][1:]}
        for window in updates:
            ax.axvline(window * courses[0].update_days, color=RULE, linewidth=1, zorder=0)
        for i, each in enumerate(courses):
            style = findings.styles[each.mixer] if each.mixer else BASELINE
            alike = [other for other in courses if other.mixer == each.mixer]
            days = [(window + 0.5) * each.update_days for window in each.curve]
            values = [*each.curve.values()]
            label = words.short(each.label, 28)
            ax.plot(days, values, color=style.light, linestyle=LINES[alike.index(each) % len(LINES)], label=label)
            ax.scatter(days, values, marker=style.marker, color=style.light, s=24, zorder=3, gid=f"course-{i}")
            begun = [window * each.update_days for window in each.curve]
            hints[f"course-{i}"] = [
                f"{each.label}, from day {day}: {value:.4f}" for day, value in zip(begun, values, strict=True)
            ]
        ax.set_ylim(bottom=0)
        ax.set_xlabel("days after the cut", color=INK, fontsize=9)
        legend(canvas, ax)
    title = "NDCG@10 as time goes by"
    alt = f"{title}. {' '.join(text for texts in hints.values() for text in texts)}"
    return Figure(name, title, alt, canvas, hints)


def _table(courses: Sequence[Course]) -> Table:
    def value(each: Course, metric: str) -> TableCell:
        return amount(each.values.get(metric), lambda found: words.quantity(found, metric))

    return Table(
        name="prequential", caption="Means over users, and seconds that updates took in all", items=courses,
        columns=[
            Column("model", lambda each: each.label),
            Column(words.ranking_metric(METRIC), lambda each: TableCell(words.mean(each.mean), each.mean.value), True),
            *(Column(text, partial(value, metric=metric), True) for metric, text in COSTS.items()),
            Column("visits", lambda each: amount(each.values.get("visits"), words.length), numeric=True),
        ],
    )  # fmt: skip
