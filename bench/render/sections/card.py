"""The card of ``bench.decide``: which mixer, by what factor, what would change that, and how to be surer."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from bench.analysis.cells import MEMORY, TIME
from bench.analysis.cheapest import groups_of, standings
from bench.analysis.gate import gates
from bench.analysis.quality import ModelQuality
from bench.analysis.towers import Total, Towers, alike, totals
from bench.records.store import Run
from bench.render import words
from bench.render.blocks import Block, Bullets, Column, Prose, Section, Table, TableCell
from bench.render.entries import NOTHING
from bench.render.findings import Findings
from bench.render.numbers import SI_UNITS
from bench.render.sections.answer import disturbance, quality_sentences

ORDER = 5
MORE = 4  # times the budget, for half the width of an interval
LATE = 0.9  # share of the steps; a model that was best after it may have gone on to learn
COSTS = (("train_step", TIME), ("forward", TIME), ("train_step", MEMORY))
Row = dict[tuple[str, str], Total]


def build(findings: Findings) -> Section | None:
    """Of the first run that was made to decide."""
    made = ((run, towers) for run in findings.runs if (towers := Towers.of(run.meta)))
    run, towers = next(made, (None, None))
    if run is None or towers is None:
        return None
    cells = [cell for cell in findings.summary.cells if cell.run == run.name]
    found = {(task, metric): totals(cells, towers, task, metric) for task, metric in COSTS}
    ranking = quality_sentences(findings.quality)
    told = [decision(found, findings), *_without_number(findings, run, towers)]
    told += [_cost(*cost, each) for cost, each in found.items() if each]
    told += ranking or [_not_ranked(run)]
    d_model = (run.meta.get("spec") or {}).get("d_model", ["?"])[0]
    where = f"user tower L {towers.user:,}, content tower L {towers.content:,}, B {towers.batch_size:,}, "
    where += words.setting({"n_layers": towers.n_layers, "d_model": d_model})
    blocks: list[Block] = [Bullets(told, "lead"), *disturbance(run)]
    if all(cell.n_rounds < 2 for cell in cells if towers.holds(cell.cell)):
        blocks += [
            Prose("One round only: the intervals cover variation inside it, not what another would give.", "note")
        ]
    blocks += _table(findings, found, where)
    blocks += [Prose("What would change it:"), Bullets([*_changes(findings, run, towers)])]
    blocks += [Prose(f"For more certainty: {_command(run)}")]
    return Section("card", "Decision", blocks)


def decision(found: dict[tuple[str, str], list[Total]], findings: Findings) -> str:
    """The first sentence: a mixer, or why none."""
    fast = {task: [each.variant.mixer for each in alike(found[task, TIME])] for task in ("train_step", "forward")}
    if not fast["train_step"]:
        return "No decision: no mixer gave a training time of both towers within the budget."
    if len(found["train_step", TIME]) < 2:
        return f"No decision: {fast['train_step'][0]} alone gave a training time of both towers within the budget."
    better = _ranks_better(findings)
    models = {model.name for model in findings.quality.models if "mixer" in model.cell}
    told = "no difference in ranking was found" if len(models) > 1 else "how well they rank is not known"
    if better and better in fast["train_step"]:
        return f"Take {better}: it ranks better, and none trains clearly faster."
    if better:
        quick = " or ".join(fast["train_step"])
        return f"Take {better} where ranking counts, since it ranks better, and {quick} where time does."
    if len(fast["train_step"]) == len(found["train_step", TIME]):
        if len(fast["forward"]) == 1 < len(found["forward", TIME]):
            return f"Take {fast['forward'][0]}: it is the fastest forward, all train alike, and {told}."
        return f"Take any: none is clearly the fastest in training, and {told}."
    who = " or ".join(fast["train_step"])
    served = [name for name in fast["forward"] if name in fast["train_step"]]
    but = "" if served or not fast["forward"] else f", though forward {' or '.join(fast['forward'])} is faster"
    return f"Take {who}: it trains fastest{but}, and {told}."


def _ranks_better(findings: Findings) -> str:
    """The mixer whose best training ranks clearly better than every other mixer's; empty where there is none."""
    best: dict[str, ModelQuality] = {}
    for model in findings.quality.models:  # the best first
        if "mixer" in model.cell:
            best.setdefault(model.mixer, model)
    first, *others = [each.label for each in best.values()] or [""]
    beaten = {each.second for each in findings.quality.comparisons if each.first == first and each.verdict == "better"}
    return next(iter(best)) if others and beaten >= set(others) else ""


def _cost(task: str, metric: str, found: Sequence[Total]) -> str:
    first, *others = found
    what = {"train_step": "a training step", "forward": "a forward pass"}[task]
    name = f"peak memory of {what}" if metric == MEMORY else what
    told = f"{name[:1].upper()}{name[1:]} of both towers: {words.quantity(first.cost.value, metric)} with "
    told += first.variant.mixer
    return told + "".join(f"; {e.variant.mixer} takes {words.factor(e.over)} as much" for e in others if e.over) + "."


def _not_ranked(run: Run) -> str:
    if run.meta.get("dataset"):
        return f"Ranking: no number within the budget{'; ' * bool(why := run.meta.get('not_ranked'))}{why or ''}."
    return "Ranking: not measured, which takes data: give --data instead of --columns."


def _table(findings: Findings, found: dict[tuple[str, str], list[Total]], where: str) -> Iterator[Table]:
    rows: dict[Any, Row] = {}
    for cost, each in found.items():
        for total in each:
            rows.setdefault(total.variant, {})[cost] = total

    def name(row: Row) -> TableCell:
        variant = next(iter(row.values())).variant
        style = findings.styles[variant.mixer]
        return TableCell(f"{style.sign} {findings.name(variant)}", tint=style.name)

    def entry(row: Row, cost: tuple[str, str]) -> TableCell:
        total = row.get(cost)
        if total is None:
            return NOTHING
        text = words.quantity(total.cost.value, cost[1])
        text += f", {words.times(total.over.value)}" if total.over else ""
        found, unit = total.cost, SI_UNITS[cost[1]]
        hint = words.interval(found, cost[1])
        return TableCell(text, found.value, hint=hint, low=found.low, high=found.high, unit=unit)

    if rows:
        names = [(cost, f"{words.METRIC_NAMES[cost[1]]}, {words.task(cost[0])}") for cost in found]
        yield Table(
            name="decision", caption=f"Both towers together, and as a multiple of the cheapest ({where})",
            columns=[Column("mixer", name), *(Column(what, partial(entry, cost=cost), True) for cost, what in names)],
            items=[*rows.values()],
        )  # fmt: skip


def _without_number(findings: Findings, run: Run, towers: Towers) -> list[str]:
    """Towers that were tried in vain, and why."""
    return [
        f"{words.cell(cell)}: {cell.status}, {cell.reason}."
        for cell in findings.summary.cells
        if cell.run == run.name and cell.status != "ok" and towers.holds(cell.cell)
    ]


def _changes(findings: Findings, run: Run, towers: Towers) -> Iterator[str]:
    """L*, another batch and another depth, in training; and what ranking may not have had the time to show."""
    groups = [group for group in findings.settings.values() if group[0].run == run.name]
    base = {"batch_size": towers.batch_size, "n_layers": towers.n_layers}
    for group in groups:
        setting = group[0].setting
        aside = {name: setting.get(name) for name in base if setting.get(name) != base[name]}
        where = f"With {words.setting(aside, only=aside)}" if aside else "L of one tower"
        chosen = [each for each in group if each.metric == TIME and each.setting.get("task") == "train_step"]
        for pairs in groups_of(chosen):
            found = standings(pairs) if len(pairs) > 1 else []
            told = [words.cheapest(found)] if found else [words.crossover(each) for each in pairs]
            yield from (f"{where}, training: {each}." for each in told)
    if len(groups) < 2:
        yield "Another batch or depth: not measured within the budget."
    yield from (f"Data: {words.gate(gate)}" for gate in gates(findings.quality))
    for model in findings.quality.models:
        steps = model.values.get("steps", 0)
        if "mixer" in model.cell and steps and model.values.get("best_step", 0) >= LATE * steps:
            yield f"{model.label} was still learning when its {steps:,.0f} training steps ended; more may change this."


def _command(run: Run) -> str:
    """The same with a larger budget."""
    argv, budget = [str(word) for word in run.meta.get("argv") or []], float(run.meta.get("budget_min") or 10)
    kept: list[str] = []
    skip = False
    for word in argv:
        own = word.partition("=")[0] in ("--budget", "--out")
        if not skip and not own:
            kept.append(word)
        skip = own and "=" not in word
    return shlex.join(["python", "-m", *kept, "--budget", f"{MORE * budget:g}"])
