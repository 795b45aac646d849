"""The answer first: who wins where, how cost grows, in a few sentences and one small table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from functools import partial

from bench.analysis.cells import MEMORY, TIME, VARIANT, CellSummary, Variant, variant_of, without
from bench.analysis.cheapest import groups_of, leading, standings
from bench.analysis.crossover import NO_LENGTH, Crossover, sign
from bench.analysis.forest import forests
from bench.analysis.gate import gates
from bench.analysis.limit import limit_of
from bench.analysis.load import load_of
from bench.analysis.peers import not_peers
from bench.analysis.quality import Quality
from bench.analysis.scaling import Scaling
from bench.records.store import Run
from bench.render import forest, many, words
from bench.render.blocks import Block, Bullets, Column, Prose, Section, Table, TableCell
from bench.render.entries import length
from bench.render.findings import NOT_VERIFIED, Findings, in_order, place

ORDER = 10
TERMINAL = True
MOST_LENGTHS = 8
NO_VERDICT = "No verdict in time: at no length were two mixers read without other work beside them."
MOST_SENTENCES = 3
WIDE = 2.0  # upper end over lower end of a typical interval


def build(findings: Findings) -> Section | None:
    """For each run, the setting with the most measured lengths speaks; the others have sections of their own."""
    blocks: list[Block] = []
    for run in findings.runs:
        if any(cell.run == run.name for cell in findings.summary.cells):
            blocks += disturbance(run)
        groups = [group for group in findings.settings.values() if group[0].run == run.name]
        if groups:
            blocks += _speak(findings, in_order(groups[0]), n_settings=len(groups))
        else:
            blocks += _growth_alone(findings, run.name)
    ranking = ranking_sentences(findings.quality)
    if ranking:
        blocks.append(Bullets(ranking, "text" if blocks or len(ranking) > MOST_SENTENCES else "lead"))
        blocks += forest.blocks(findings, found) if (found := [*forests(findings.quality)]) else []
    return Section("answer", "Answer", blocks) if blocks else None


def ranking_sentences(quality: Quality) -> list[str]:
    """A sentence a data set; of many data sets, one a model; of baselines alone, what each data set can show."""
    if not any(model.trained for model in quality.models):
        return [words.gate(gate) for gate in gates(quality)]
    told = quality_sentences(quality)
    return told if len(told) <= MOST_SENTENCES else forest.sentences([*forests(quality)])


def quality_sentences(quality: Quality) -> list[str]:
    """For each data set, one sentence on the best of the trained models, or on each trained model and the baselines.

    Of several trainings of one model the best counts; where two mixers of ours are among the models, they alone.
    """
    baselines = {model.label for model in quality.models if not model.trained}
    told: list[str] = []
    for dataset in dict.fromkeys(found.dataset for found in quality.comparisons):
        here = [found for found in quality.comparisons if found.dataset == dataset]
        trained = [found for found in here if not {found.first, found.second} & baselines]
        best: dict[str, str] = {}
        mixers = {model.name for model in quality.models if "mixer" in model.cell}
        for model in quality.models:  # in order of their headline metric
            if model.dataset == dataset and model.trained:
                best.setdefault(model.name, model.label)
        among = {*not_peers({name: label for name, label in best.items() if name in mixers} or best).values()}
        trained = [found for found in trained if {found.first, found.second} <= among]
        if len(trained) > 1:  # the best against each
            told.append(f"Ranking on {dataset}: {words.best([x for x in trained if x.first == trained[0].first])}.")
        else:
            told += [f"Ranking on {dataset}: {words.comparison(found)}." for found in trained or here]
    return told


def _speak(findings: Findings, crossovers: Sequence[Crossover], *, n_settings: int) -> Iterator[Block]:
    first = crossovers[0]
    where = words.setting(first.setting)
    if len({cell.run for cell in findings.summary.cells}) > 1:
        where += f", run {first.run}"
    yield Bullets(sentences(findings, crossovers) or [NO_VERDICT], "lead")
    groups = [found for group in groups_of(crossovers) if len(group) > 1 and (found := standings(group))]
    if groups:
        yield many.by_length(findings, groups, where)
        yield many.by_mixer(findings, groups, where)
        pairs = [found for found in leading(crossovers) if found.metric == TIME and len(found.lengths) > 1]
        lines = [_pair(findings, found) for found in pairs]
    else:
        yield from _table(findings, crossovers, where)
        lines = [line for found in crossovers if (line := _growth(findings, found))]
    yield Bullets([*lines, *sentences(findings, crossovers, MEMORY)])
    if all(cell.n_rounds < 2 for cell in findings.summary.cells if _within(cell, first)):
        yield Prose("One round only: the intervals cover variation inside it, not what another run would give.", "note")
    yield from _doubt(findings, first.run)
    if n_settings > 1:
        others = "one more setting follows" if n_settings == 2 else f"{n_settings - 1} more settings follow"
        yield Prose(f"This is for {where}; {others} below.", "note")


def _doubt(findings: Findings, run: str) -> Iterator[Prose]:
    """A warning where the readings are too unlike for any fine statement."""
    times = [c.estimates[TIME] for c in findings.summary.cells if c.run == run and TIME in c.estimates]
    widths = [each.high / each.low for each in times if each.low > 0]
    width = statistics.median(widths) if widths else 1.0
    if width > WIDE:
        yield Prose(
            f"The readings of this run vary widely: a typical interval ends at {words.times(width)} its beginning. "
            "More rounds or a quieter machine would sharpen all of the above.",
            "note",
        )


def disturbance(run: Run) -> Iterator[Prose]:
    """A warning where the machine had other work to do while cells ran."""
    load = load_of(run.records)
    if load and load.n_disturbed:
        yield Prose(
            f"Warning: {load.n_disturbed} of {load.n_cells} readings ran beside other work, on up to "
            f"{load.most_cores:.1f} cores; their times are too long by an unknown amount and give no verdict, unless "
            f"they were taken in turns (--paired-with). What rests on some of them is marked {words.MARK}. Run them "
            "again on an idle machine.",
            "note",
        )


def sentences(findings: Findings, crossovers: Sequence[Crossover], metric: str = TIME) -> list[str]:
    """One sentence a task: where two mixers cross, and would at the limit; of more mixers, who costs least where."""
    told = []
    for group in groups_of(found for found in crossovers if found.metric == metric):
        found = standings(group) if len(group) > 1 else []
        if found:
            mark = _doubtful(findings, found[0].order)
            told.append(f"{_what(group[0])}: {words.cheapest(found)}{mark}.")
        else:
            told += [_pair(findings, each) for each in group]
    return [sentence[:1].upper() + sentence[1:] for sentence in told]


def _pair(findings: Findings, found: Crossover) -> str:
    limit = limit_of(found, findings.summary.cells, findings.metas[found.run])
    beside = f"; {words.limit(limit)}" if limit else ""
    told = f"{words.crossover(found)}{_doubtful(findings, (found.cheaper, found.dearer))}{beside}."
    what = _what(found)
    return f"{what[:1].upper()}{what[1:]}: {told}"


def _doubtful(findings: Findings, variants: Sequence[Variant]) -> str:
    doubtful = [str(each) for each in variants if each in findings.not_verified]
    return f" ({NOT_VERIFIED}: {', '.join(doubtful)})" if doubtful else ""


def _what(found: Crossover) -> str:
    task = found.setting.get("task")
    return words.task(task) if found.metric == TIME else f"peak memory of {words.noun(task)}"


def _growth(findings: Findings, found: Crossover) -> str:
    return _growth_sentence(
        [
            each
            for each in findings.summary.scalings
            if (each.run, each.metric) == (found.run, found.metric) and each.exponent
            and variant_of(each.curve) in (found.cheaper, found.dearer)
            and without(each.curve, *VARIANT) == found.setting
        ]
    )  # fmt: skip


def _growth_sentence(scalings: Sequence[Scaling]) -> str:
    if not scalings:
        return ""
    growth = " and ".join(
        f"L^{words.growth(each)} with {variant_of(each.curve).mixer}" for each in scalings if each.exponent
    )
    what = f"{words.METRIC_NAMES[scalings[0].metric]} of {words.noun(scalings[0].curve.get('task'))}"
    return f"{what[:1].upper()}{what[1:]} grows as {growth}, from L = {scalings[0].fitted[0]:,} on."


def _growth_alone(findings: Findings, run: str) -> list[Block]:
    scalings = [each for each in findings.summary.scalings if each.run == run and each.exponent]
    return [Bullets([_growth_sentence([each]) for each in scalings[:MOST_LENGTHS]])] if scalings else []


def _table(findings: Findings, crossovers: Sequence[Crossover], where: str) -> Iterator[Table]:
    """A row a length; where there is one length alone, a row a cost."""
    lengths = sorted({cell.n_tokens for cell in findings.summary.cells if _within(cell, crossovers[0])})
    if len(lengths) < 2:
        yield Table(
            name="answer",
            caption=f"Which mixer costs less, and by what factor (L {lengths[0]:,}, {where})",
            columns=[
                Column("cost", lambda found: words.METRIC_NAMES[found.metric]),
                Column("task", lambda found: words.task(found.setting.get("task"))),
                Column("cheaper", partial(verdict, n=lengths[0], findings=findings)),
                Column("95 % interval", partial(_interval, n=lengths[0]), numeric=True),
            ],
            items=crossovers,
            head=2,
        )
        return
    if len(lengths) > MOST_LENGTHS:
        step = (len(lengths) - 1) / (MOST_LENGTHS - 1)
        lengths = [lengths[round(i * step)] for i in range(MOST_LENGTHS)]
    yield Table(
        name="answer",
        caption=f"Which mixer costs less, and by what factor ({where})",
        columns=[
            Column("L", length),
            *(
                Column(
                    f"{words.METRIC_NAMES[found.metric]}, {words.task(found.setting.get('task'))}",
                    partial(_verdict, found=found, findings=findings),
                )
                for found in crossovers
            ),
        ],
        items=lengths,
    )


def _interval(found: Crossover, n: int) -> str:
    """Of the factor of `verdict`."""
    ratio = found.ratios[found.lengths.index(n)] if n in found.lengths else NO_LENGTH
    over = ratio if ratio.value > 1 else ratio.map(1.0, -1.0)
    return words.NONE if math.isnan(over.low) else f"{words.times(over.low)} to {words.times(over.high)}"


def _within(cell: CellSummary, found: Crossover) -> bool:
    return cell.run == found.run and place(cell.run, cell.cell) == place(found.run, found.setting)


def _verdict(n: int, found: Crossover, findings: Findings) -> TableCell:
    return verdict(found, n, findings)


def verdict(found: Crossover, n: int, findings: Findings, *, brief: bool = False) -> TableCell:
    """Who costs less at one length, by what factor; nobody where the interval of the factor includes 1.

    Args:
        brief: name the mixer by its sign alone.
    """
    if n not in found.lengths:
        return _only(found, n, findings, brief=brief)
    ratio = found.ratios[found.lengths.index(n)]
    winner, loser = (found.cheaper, found.dearer) if ratio.value > 1 else (found.dearer, found.cheaper)
    factor = ratio if ratio.value > 1 else ratio.map(1.0, -1.0)
    span = "no interval" if math.isnan(factor.low) else f"95 %: {words.times(factor.low)} to {words.times(factor.high)}"
    told = f"{loser} costs {words.times(factor.value)} as much as {winner}"
    hint = span if brief else f"{told} ({span})"
    if not sign(factor):
        return TableCell("≈" if brief else "no clear difference", math.log(ratio.value), hint=hint)
    style = findings.styles[winner.mixer]
    text = f"{style.sign} {'' if brief else winner.mixer + ' '}{words.times(factor.value)}"
    tested = not math.isnan(factor.low)
    return TableCell(text, math.log(ratio.value), tint=style.name if tested else "", hint=hint)


def _only(found: Crossover, n: int, findings: Findings, *, brief: bool) -> TableCell:
    """The same where one of the two gave no number, or both."""
    task = found.setting.get("task")
    here = {
        variant_of(cell.cell): cell
        for cell in findings.summary.cells
        if cell.n_tokens == n and cell.cell.get("task") == task and _within(cell, found)
    }
    pair = [here.get(each) for each in (found.cheaper, found.dearer)]
    ran = [cell for cell in pair if cell and found.metric in cell.estimates]
    failed = [cell for cell in pair if cell and cell.status != "ok"]
    hint = "; ".join(f"{words.variant(cell.cell)}: {cell.status}, {cell.reason}" for cell in failed)
    if len(ran) == 1 and failed:
        mixer = variant_of(ran[0].cell).mixer
        style = findings.styles[mixer]
        text = "only" if brief else f"only {mixer} ran"
        return TableCell(f"{style.sign} {text}", tint=style.name, hint=hint)
    if any(cell.disturbed for cell in pair if cell):
        return TableCell("?" if brief else "disturbed", hint="others used the machine while these were timed")
    neither = "neither" if brief else "neither ran"
    return TableCell(neither if len(failed) == len(pair) else words.NONE, hint=hint)
