"""Many mixers in few words: the cheapest at each length, and a line for each mixer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bench.analysis.cells import VARIANT, CellSummary, Variant, variant_of, without
from bench.analysis.cheapest import Standing
from bench.render import words
from bench.render.blocks import Column, Table, TableCell
from bench.render.entries import NOTHING, length, reading
from bench.render.findings import Findings

Rows = Sequence[Standing]  # of one setting and metric, by length


def cheapest(n: int, found: Rows, findings: Findings) -> TableCell:
    """Who costs least at one length, and by what factor before the next; all that are alike where nobody does."""
    each = next((each for each in found if each.n_tokens == n), None)
    if each is None:
        return NOTHING
    hint = "; ".join(
        [str(each.order[0]), *(f"{v} {words.factor(each.over[v])}" for v in each.order[1:] if v in each.over)]
    )
    alike = each.cheapest
    if len(alike) > 1:
        names = ", ".join(sorted(v.mixer for v in alike)) if len(alike) <= words.MOST_NAMED else f"{len(alike)} alike"
        return TableCell(f"\u2248 {names}", hint=hint)
    style, lead = findings.styles[each.order[0].mixer], each.over[each.order[1]]
    text = f"{style.sign} {each.order[0].mixer} {words.times(lead.value)}"
    return TableCell(text, lead.value, tint=style.name, hint=hint)


def by_length(findings: Findings, groups: Sequence[Rows], where: str) -> Table:
    """The cheapest of each task and metric; a row a length."""
    return Table(
        name="answer",
        caption=f"Which mixer costs least, and how many times as much the next one takes ({where}); \u2248: no clear "
        "difference",
        columns=[
            Column("L", length),
            *(Column(_what(found), partial(cheapest, found=found, findings=findings)) for found in groups),
        ],
        items=sorted({each.n_tokens for found in groups for each in found}),
    )


def by_mixer(findings: Findings, groups: Sequence[Rows], where: str) -> Table:
    """What each mixer takes at the longest length, and how many times the cheapest; the fastest first."""
    variants = dict.fromkeys(v for found in groups for each in reversed(found) for v in each.order)
    return Table(
        name="mixers",
        caption=f"Every mixer at the longest L, and as a multiple of the cheapest ({where}); exponent: of L, over the "
        "longer half",
        columns=[
            Column("mixer", partial(_name, findings=findings)),
            *(column for found in groups for column in _columns(findings, found)),
        ],
        items=list(variants),
    )


def _columns(findings: Findings, found: Rows) -> list[Column]:
    last = found[-1]

    def cost(variant: Variant) -> TableCell:
        cell = reading(_cell(findings, last, variant), last.metric)
        if variant not in last.over:
            return cell
        return TableCell(f"{cell.text}, {words.times(last.over[variant].value)}", cell.sort, hint=cell.hint)

    def exponent(variant: Variant) -> TableCell:
        curves = (
            each
            for each in findings.summary.scalings
            if (each.run, each.metric) == (last.run, last.metric)
            and variant_of(each.curve) == variant
            and without(each.curve, *VARIANT) == last.setting
        )
        told = next((words.growth(each) for each in curves), "")
        return TableCell(told.partition(" ")[0], hint=told) if told else NOTHING

    heading = f"{_what(found)} at {last.n_tokens:,}"
    growth = [Column("exponent", exponent, numeric=True, page_only=True)] if len(found) > 1 else []
    return [Column(heading, cost, numeric=True), *growth]


def _cell(findings: Findings, where: Standing, variant: Variant) -> CellSummary | None:
    cells = (
        cell
        for cell in findings.summary.cells
        if (cell.run, cell.n_tokens) == (where.run, where.n_tokens)
        and variant_of(cell.cell) == variant
        and without(cell.cell, "n_tokens", *VARIANT) == where.setting
    )
    return next(cells, None)


def _name(variant: Variant, findings: Findings) -> TableCell:
    style = findings.styles[variant.mixer]
    return TableCell(f"{style.sign} {findings.name(variant)}", tint=style.name)


def _what(found: Rows) -> str:
    return f"{words.METRIC_NAMES[found[0].metric]}, {words.task(found[0].setting.get('task'))}"
