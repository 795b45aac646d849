"""The crossover length L*: pictures, and one row for every pair, task, setting and metric."""

from __future__ import annotations

from collections import defaultdict

from bench.analysis.crossover import Crossover
from bench.render import words
from bench.render.blocks import Block, Column, Figure, Figures, Section, Table, TableCell, fold_if_long
from bench.render.findings import Findings, in_order
from bench.render.plots import ratio_plot, star_plot
from bench.render.styles import style_of

ORDER = 50
TERMINAL = True

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
    def crosses(found: Crossover) -> bool:
        return found.outcome == "crosses"

    def cheaper(found: Crossover) -> TableCell:
        sure = found.outcome in ("crosses", "always", "bounded")
        return TableCell(findings.name(found.cheaper), tint=style_of(found.cheaper.mixer).name if sure else "")

    return Table(
        name="crossovers",
        caption="Crossover length L* of every pair of backends",
        columns=[
            Column("cost", lambda found: words.METRIC_NAMES[found.metric]),
            Column("task", lambda found: words.task(found.setting.get("task"))),
            *findings.setting_column(lambda found: (found.run, found.setting)),
            Column("cheaper at long L", cheaper),
            Column("dearer at long L", lambda found: findings.name(found.dearer)),
            Column("L*", lambda found: TableCell(words.star(found), found.n_tokens.value), numeric=True),
            Column("95 % interval", lambda found: words.star_interval(found) if crosses(found) else words.NONE),
            Column("remark", lambda found: "" if crosses(found) else words.crossover(found), page_only=True),
        ],
        items=crossovers,
        head=4 + findings.varies,
    )
