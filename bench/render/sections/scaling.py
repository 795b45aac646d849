"""Time, peak memory and energy against sequence length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from numpy import geomspace

from bench.analysis.cells import METRICS, TIME, variant_of
from bench.analysis.limit import least_curve
from bench.analysis.scaling import Scaling
from bench.render import words
from bench.render.blocks import Block, Column, Figure, Figures, Folded, Prose, Section, Table, TableCell, fold_if_long
from bench.render.findings import Findings
from bench.render.plots import scaling_plot

ORDER = 40
TERMINAL = True

MOST_DRAWN = 24
MOST_LIMITS = 4  # in one picture
MOST_ROWS = 40  # on a terminal
CAPTIONS = {
    "wall_s": "Median time of one step and its 95 % interval. Lines are the fitted c0 + c1 L + c2 L^2. "
    "A cross at the bottom marks a length that gave no number. The limit is the least time that the "
    f"machine's measured rates allow, drawn for up to {MOST_LIMITS} mixers.",
    "peak_memory_bytes": "Peak memory of one step, above what was in use before it.",
    "energy_j": "Energy of one step, of the whole device.",
}


def build(findings: Findings) -> Section | None:
    curves = findings.curves()
    if not any(each.exponent for each in findings.summary.scalings):  # one length alone: the answer's table says it
        return None
    blocks: list[Block] = []
    drawn = left_out = 0
    for i, (place, scalings) in enumerate(curves.items()):
        if not scalings:
            continue
        if drawn >= MOST_DRAWN:
            left_out += 1
            continue
        figures = _figures(findings, place, scalings, i)
        drawn += sum(len(each.drawings) for each in figures)
        where = findings.where(scalings[0].run, scalings[0].curve)
        blocks += figures if i == 0 else [Folded(where or "more", figures)]
    if left_out:
        blocks.append(Prose(f"{left_out} more settings are in the table, not drawn.", "note"))
    return Section("scaling", "How cost grows with length", [*blocks, fold_if_long(_table(findings))])


def _figures(findings: Findings, place: str, scalings: list[Scaling], i: int) -> list[Figures]:
    where = findings.where(scalings[0].run, scalings[0].curve)
    result = []
    for metric in METRICS:
        tasks = dict.fromkeys(str(each.curve.get("task")) for each in scalings if each.metric == metric)
        figures: list[Callable[[], Figure]] = []
        for task in tasks:
            members = [each for each in scalings if each.metric == metric and str(each.curve.get("task")) == task]
            what = f"{words.METRIC_NAMES[metric]}, {words.task(task)}".capitalize()
            title = f"{what} ({where})" if where else what
            name = f"{metric}-{task}-{i}"
            figures.append(partial(_figure, findings, members, metric, name=name, title=title))
        if figures:
            result.append(Figures(CAPTIONS[metric], figures))
    return result


def _figure(findings: Findings, scalings: list[Scaling], metric: str, *, name: str, title: str) -> Figure:
    limits = _limits(findings, scalings) if metric == TIME else {}
    return scaling_plot(scalings, findings.styles, name=name, title=title, limits=limits)


def _limits(findings: Findings, scalings: list[Scaling]) -> dict[str, list[tuple[int, float]]]:
    """Least times of each mixer, where its cost is known; of its backends the first speaks."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for each in scalings:
        lengths = [round(n) for n in geomspace(each.lengths[0], each.lengths[-1], 40)]
        curve = least_curve(each.cells[0].cell, findings.metas[each.run], lengths)
        if curve:
            curves.setdefault(variant_of(each.curve).mixer, curve)
    return curves if len(curves) <= MOST_LIMITS else {}


def _table(findings: Findings) -> Table:
    terms = ("c0", "c1 per token", "c2 per token^2")
    return Table(
        name="exponents",
        caption="Growth: exponent over the longer half of L with its 95 % interval, and the fit c0 + c1 L + c2 L^2",
        columns=[
            Column("cost", lambda each: words.METRIC_NAMES[each.metric]),
            Column("task", lambda each: words.task(each.curve.get("task"))),
            Column("mixer", lambda each: findings.name(variant_of(each.curve))),
            *findings.setting_column(lambda each: (each.run, each.curve)),
            Column("exponent of L", lambda each: TableCell(words.growth(each), each.exponent.value), True),
            Column("fitted on L", lambda each: TableCell(_span(each.fitted), each.fitted[0]), numeric=True),
            *(
                Column(name, partial(_term, power=power), numeric=True, page_only=True)
                for power, name in enumerate(terms)
            ),
        ],
        items=[each for each in findings.summary.scalings if each.exponent],
        head=3 + findings.varies,
        most=MOST_ROWS,
    )


def _span(lengths: Sequence[int]) -> str:
    return f"{lengths[0]:,} to {lengths[-1]:,}"


def _term(scaling: Scaling, power: int) -> TableCell:
    """One term of the fit; 0 also where it is less than a thousandth of the cost at every L."""
    if scaling.terms is None:
        return TableCell(words.NONE)
    term = scaling.terms[power]
    share = max(term * n**power / each.value for n, each in zip(scaling.lengths, scaling.estimates, strict=True))
    return TableCell(words.quantity(term, scaling.metric) if share >= 1e-3 else "0", term)
