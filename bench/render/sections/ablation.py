"""Which settings of the towers matter: levels around a centre, what they rank like and what they cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from bench.analysis.ablation import Factor, OrderSpread, factors_of, order_spreads
from bench.analysis.groups import grouped
from bench.analysis.quality import Comparison, headline
from bench.render import words
from bench.render.blocks import (
    Block,
    Bullets,
    Column,
    Figure,
    Figures,
    Folded,
    Prose,
    Section,
    Table,
    TableCell,
    fold_if_long,
)
from bench.render.entries import NOTHING
from bench.render.findings import Findings
from bench.render.quality_plots import importance_plot, levels_plot

ORDER = 92
TERMINAL = True


def build(findings: Findings) -> Section | None:
    """Only where models of a run stand around a centre from which each differs in one setting."""
    factors = factors_of(findings.quality)
    if not factors:
        return None
    places = grouped(factors, lambda factor: f"{factor.dataset}, run {factor.run}")
    told = [text for own in places.values() for text in (*_important(own), *_unimportant(own))]
    blocks: list[Block] = [Bullets([*told, *map(_spread, order_spreads(factors))])]
    for i, (place, own) in enumerate(places.items()):
        shown: list[Block] = [Prose(f"{place}:"), _figures(findings, own, i), fold_if_long(_table(own, place))]
        blocks += shown if i == 0 else [Folded(place, shown[1:])]
    note = "Differences are paired by user; p is corrected for all levels of all factors (Holm)."
    return Section("ablation", "What in the towers matters", [*blocks, Prose(note, "note")])


def _figures(findings: Findings, factors: Sequence[Factor], place: int) -> Figures:
    """What matters most, then each factor: quality at its levels, and cost where that differs."""
    metric = _metric(factors)
    drawn: list[Callable[[], Figure | None]] = [
        partial(importance_plot, factors, findings.styles, name=f"importance-{place}")
    ]
    for name, group in grouped(factors, lambda factor: factor.name).items():
        costs = any(_cost(factor, level) for factor in group for level in factor.levels)
        drawn += [
            partial(levels_plot, group, measure, findings.styles, name=f"level-{place}-{name}-{measure}")
            for measure in (metric, *["cost"] * costs)
        ]
    return Figures("Means with 95 % intervals, and the time of a training step over that of the centre.", drawn)


def _metric(factors: Sequence[Factor]) -> str:
    return headline(factors[0].levels[factors[0].usual].metrics) or ""


def _place(found: Factor | OrderSpread) -> str:
    return f"{found.mixer} on {words.short(found.dataset, 60)}"


def _important(factors: Sequence[Factor]) -> Iterator[str]:
    """One sentence for each factor that a person can act on: which levels differ, and what they cost."""
    for factor in factors:
        seen = {level: each for level, each in factor.against.items() if each.verdict != "no difference found"}
        told = [
            f"{level} ranks {each.verdict} by {abs(each.difference.value):.4f}{_cost(factor, level)}"
            for level, each in seen.items()
        ]
        if told:
            yield f"{_place(factor)}: {factor.name}, against {factor.usual}: {'; '.join(told)}."


def _unimportant(factors: Sequence[Factor]) -> Iterator[str]:
    """One sentence for each mixer on what made no difference, at what cost, and what could not have been seen."""
    for own in grouped(factors, lambda factor: factor.mixer).values():
        told: list[str] = []
        unseen: list[Comparison] = []
        for factor in own:
            none = {level: each for level, each in factor.against.items() if each.verdict == "no difference found"}
            unseen += none.values()
            if none:
                told.append(f"{factor.name} {', '.join(level + _cost(factor, level) for level in none)}")
        if told:
            largest = max(unseen, key=lambda each: each.smallest)
            yield (
                f"{_place(own[0])}: no difference found at {'; '.join(told)}, where {words.smallest(largest)} "
                f"would have shown."
            )


def _cost(factor: Factor, level: str) -> str:
    """What a level costs, where that is another time by a twentieth at least."""
    cost = factor.cost(level)
    return f" ({words.times(cost)} the time)" if cost and abs(cost - 1) >= 0.05 else ""


def _spread(found: OrderSpread) -> str:
    verdict = "more than" if found.is_seen else "no more than"
    return (
        f"{_place(found)}: over {found.n_orders} random orders of the columns quality deviates by "
        f"{found.deviation:.4f}, {verdict} seeds explain, which alone would give {found.by_seeds:.4f} "
        f"(p = {found.p_value:.2g})."
    )


def _table(factors: Sequence[Factor], place: str) -> Table:
    rows, metric = [(factor, level) for factor in factors for level in factor.levels], _metric(factors)

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

    return Table(
        name=f"{place}-ablation",
        caption=f"One factor at a time, {place}",
        columns=[
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
