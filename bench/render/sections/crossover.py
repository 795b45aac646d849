"""The crossover length L*: pictures, and one row for every pair, task, setting and metric."""

from __future__ import annotations

from collections import defaultdict

from bench.analysis.crossover import Crossover
from bench.render import words
from bench.render.blocks import Block, Figure, Figures, Section, Table, TableCell, fold_if_long
from bench.render.findings import Findings, in_order
from bench.render.plots import ratio_plot, star_plot
from bench.render.styles import style_of

MOST_ROWS = 40


def build(findings: Findings) -> Section | None:
    crossovers = in_order(findings.summary.crossovers)
    if all(len(found.lengths) == 1 for found in crossovers):
        return None
    blocks: list[Block] = []
    ratios = _ratio_figures(findings)
    if ratios:
        caption = (
            "Cost of one mixer over the cost of the other. Where the line crosses 1 the cheaper mixer changes; "
            "the diamond is L*, the bar its 95 % interval, the grey band that of the ratio."
        )
        blocks.append(Figures(caption, ratios))
    stars = _star_figures(findings)
    if stars:
        caption = (
            "L* by setting, with its 95 % interval, in the colour of the mixer that costs less beyond it. "
            "A row without a diamond does not cross in the measured range (grey)."
        )
        blocks.append(Figures(caption, stars))
    return Section("crossover", "Where one overtakes the other", [*blocks, fold_if_long(_table(findings, crossovers))])


def _ratio_figures(findings: Findings) -> list[Figure]:
    """One picture a metric and pair of mixers, for the setting that speaks for the page."""
    first = next(iter(findings.settings.values()), [])
    groups: dict[tuple[str, ...], list[Crossover]] = defaultdict(list)
    for found in in_order(first):
        if len(found.lengths) > 1:
            pair = sorted((found.cheaper.mixer, found.dearer.mixer))
            groups[(found.metric, *pair)].append(found)
    return [
        ratio_plot(
            group,
            [words.task(found.setting.get("task")) for found in group],
            name=f"ratio-{i}-{metric}",
            title=f"{words.METRIC_NAMES[metric].capitalize()}: {a} over {b}",
        )
        for i, ((metric, a, b), group) in enumerate(groups.items())
    ]


def _star_figures(findings: Findings) -> list[Figure]:
    """One picture a metric, where more than one setting was measured."""
    if len(findings.settings) < 2:
        return []
    groups: dict[str, list[Crossover]] = defaultdict(list)
    for found in in_order(findings.best):
        if found.lengths:
            groups[found.metric].append(found)
    return [
        star_plot(
            group[:MOST_ROWS],
            [_name(findings, found) for found in group[:MOST_ROWS]],
            name=f"crossovers-{metric}",
            title=f"L* in {words.METRIC_NAMES[metric]}",
        )
        for metric, group in groups.items()
    ]


def _name(findings: Findings, found: Crossover) -> str:
    parts = (words.task(found.setting.get("task")), findings.where(found.run, found.setting))
    return ", ".join(part for part in parts if part)


def _table(findings: Findings, crossovers: list[Crossover]) -> Table:
    varies = findings.varies
    rows = []
    for found in crossovers:
        sure = found.outcome in ("crosses", "always", "bounded")
        rows.append(
            [
                TableCell(words.METRIC_NAMES[found.metric]),
                TableCell(words.task(found.setting.get("task"))),
                *([TableCell(findings.where(found.run, found.setting))] if varies else []),
                TableCell(str(found.cheaper), tint=style_of(found.cheaper.mixer).name if sure else ""),
                TableCell(str(found.dearer)),
                TableCell(words.star(found), found.n_tokens.value),
                TableCell(words.star_interval(found) if found.outcome == "crosses" else words.NONE),
                TableCell("" if found.outcome == "crosses" else words.crossover(found)),
            ]
        )
    return Table(
        name="crossovers",
        caption="Crossover length L* of every pair of backends",
        columns=[
            "cost", "task", *(["setting"] if varies else []), "cheaper at long L", "dearer at long L", "L*",
            "95 % interval", "remark",
        ],
        rows=rows,
        numeric=frozenset({"L*"}),
    )  # fmt: skip
