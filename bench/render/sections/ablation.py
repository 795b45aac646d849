"""Which settings of the towers matter: levels around a centre, what they rank like and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from bench.analysis.ablation import Factor, OrderSpread, factors_of, order_spreads
from bench.analysis.groups import grouped
from bench.analysis.quality import headline
from bench.render import words
from bench.render.blocks import Bullets, Column, Figures, Prose, Section, Table, TableCell, fold_if_long
from bench.render.entries import NOTHING
from bench.render.findings import Findings
from bench.render.quality_plots import levels_plot

ORDER = 92
TERMINAL = True


def build(findings: Findings) -> Section | None:
    """Only where models of a run stand around a centre from which each differs in one setting."""
    factors = factors_of(findings.quality)
    if not factors:
        return None
    metric = headline(factors[0].levels[factors[0].usual].metrics) or ""
    groups = grouped(factors, lambda factor: f"{factor.run}, {factor.dataset}, {factor.name}")
    drawn = [
        partial(levels_plot, group, measure, findings.styles, name=f"level-{i}-{j}")
        for i, group in enumerate(groups.values())
        for j, measure in enumerate((metric, "cost"))
    ]
    told = [*(_told(factor) for factor in factors), *map(_spread, order_spreads(factors))]
    caption = "Quality of each level with its 95 % interval, and the time of a training step over that of the centre."
    note = "Differences are paired by user; p is corrected for all levels of all factors (Holm)."
    return Section(
        "ablation", "What in the towers matters",
        [Bullets(told), Figures(caption, drawn), fold_if_long(_table(factors, metric)), Prose(note, "note")],
    )  # fmt: skip


def _place(found: Factor | OrderSpread) -> str:
    return f"{found.mixer} on {words.short(found.dataset, 60)}"


def _told(factor: Factor) -> str:
    """One sentence that a person can act on, what each level costs, and what could not have been seen."""
    seen = {level: each for level, each in factor.against.items() if each.verdict != "no difference found"}
    parts = [
        f"{level} ranks {each.verdict} by {abs(each.difference.value):.4f}{_cost(factor, level)}"
        for level, each in seen.items()
    ]
    others = [level for level in factor.against if level not in seen]
    if others:
        largest = max((factor.against[level] for level in others), key=lambda each: each.smallest)
        costs = ", ".join(level + _cost(factor, level) for level in others)
        parts.append(f"no difference found at {costs}, where {words.smallest(largest)} would have shown")
    return f"{_place(factor)}: {factor.name}, against {factor.usual}: {'; '.join(parts)}."


def _cost(factor: Factor, level: str) -> str:
    cost = factor.cost(level)
    return f" ({words.times(cost)} the time)" if cost else ""


def _spread(found: OrderSpread) -> str:
    verdict = "more than" if found.is_seen else "no more than"
    return (
        f"{_place(found)}: over {found.n_orders} random orders of the columns quality deviates by "
        f"{found.deviation:.4f}, {verdict} seeds explain, which alone would give {found.by_seeds:.4f} "
        f"(p = {found.p_value:.2g})."
    )


def _table(factors: Sequence[Factor], metric: str) -> Table:
    rows = [(factor, level) for factor in factors for level in factor.levels]
    several = len({(factor.run, factor.dataset) for factor in factors}) > 1

    def quality(row: tuple[Factor, str]) -> TableCell:
        mean = row[0].levels[row[1]].metrics.get(metric)
        return TableCell(words.mean(mean), mean.value) if mean else NOTHING

    def against(row: tuple[Factor, str]) -> Iterator[TableCell]:
        found = row[0].against.get(row[1])
        if found is None:
            yield from (TableCell("centre"), NOTHING, NOTHING)
        else:
            yield TableCell(words.mean(found.difference), found.difference.value, hint=found.verdict)
            yield TableCell(f"{found.p_value:.2g}", found.p_value)
            yield TableCell(words.smallest(found), found.smallest)

    def entry(row: tuple[Factor, str], i: int) -> TableCell:
        return [*against(row)][i]

    def cost(row: tuple[Factor, str]) -> TableCell:
        found = row[0].cost(row[1])
        return TableCell(words.times(found), found) if found else NOTHING

    where = [Column("data set", lambda row: f"{row[0].dataset}, run {row[0].run}")] if several else []
    return Table(
        name="ablation",
        caption="One factor at a time",
        columns=[
            *where,
            Column("mixer", lambda row: row[0].mixer),
            Column("factor", lambda row: row[0].name),
            Column("level", lambda row: row[1]),
            Column(words.ranking_metric(metric), quality, True),
            Column("difference", partial(entry, i=0), True),
            Column("p", partial(entry, i=1), True),
            Column("smallest visible", partial(entry, i=2), True),
            Column("time of a step", cost, True),
        ],
        items=rows,
    )
