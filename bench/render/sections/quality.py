"""How well the models rank: pictures, every metric with its interval, verdicts, and what each model cost to train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from bench.analysis.gate import gates
from bench.analysis.means import Mean
from bench.analysis.quality import ModelQuality, headline
from bench.render import words
from bench.render.blocks import (
    Block,
    Bullets,
    Column,
    Figures,
    Folded,
    Prose,
    Section,
    Table,
    TableCell,
    fold_if_long,
)  # fmt: skip
from bench.render.entries import NOTHING, amount
from bench.render.findings import Findings
from bench.render.quality_plots import cost_plot, curves_plot, means_plot, style_of_model
from bench.render.sections.answer import disturbance

ORDER = 90
TERMINAL = True

DRAWN = ("ndcg@10", "recall@10", "mrr@10", "hit_rate@10")
COSTS = {
    "params": "parameters",
    "train_wall_s": "training time",
    "train_steps_per_s": "training steps/s",
    "inference_rows_per_s": "inference rows/s",
    "peak_memory_bytes": "peak memory",
    "learning_rate": "learning rate",
    "best_step": "best step",
    "coverage@10": "catalogue coverage@10",
    "popularity_percentile@10": "popularity percentile@10",
}


def build(findings: Findings) -> Section | None:
    quality = findings.quality
    if not quality.models:
        return None
    told = list(dict.fromkeys(words.gate(found) for found in gates(quality)))
    trained = any(model.trained for model in quality.models)  # else the answer has said it
    blocks: list[Block] = [Bullets(told)] if told and trained else []
    blocks += [_datasets(quality.models)]
    timed = {cell.run for cell in findings.summary.cells}
    blocks += [note for run in findings.runs if run.name not in timed for note in disturbance(run)]
    places = dict.fromkeys((model.run, model.dataset) for model in quality.models)
    for i, (run, dataset) in enumerate(places):
        models = [model for model in quality.models if (model.run, model.dataset) == (run, dataset)]
        title = f"{dataset}, run {run}" if [each for _, each in places].count(dataset) > 1 else dataset
        own = list(_dataset(findings, models, title))
        blocks += own if i == 0 else [Folded(title, own)]
    if quality.problems:
        blocks += [Prose("Not usable:"), Bullets(quality.problems)]
    return Section("quality", "How well they rank", blocks)


def _dataset(findings: Findings, models: Sequence[ModelQuality], title: str) -> Iterator[Block]:
    if models[0].odd:
        yield Prose(f"In the files of {title}: {models[0].odd}.")
    metric = headline(name for model in models for name in model.metrics)
    if metric:
        names = [name for name in (metric, *DRAWN) if any(name in model.metrics for model in models)]
        figures = [
            partial(means_plot, models, name, findings.styles, name=f"{title}-{name}") for name in dict.fromkeys(names)
        ]
        yield Figures("Mean over test users and seeds, with its 95 % interval.", figures)
    ks = sorted({name.partition("@")[2] for model in models for name in model.metrics}, key=lambda k: (k != "10", k))
    for k in ks:
        table = _metrics(findings, models, k, title)
        yield table if k == ks[0] else Folded(f"The same at {k}", [table], page_only=True)
    yield from _verdicts(findings, models, title)
    if metric:
        yield _costs(findings, models, metric, title)
    yield _cost_table(findings, models, title)


def _datasets(models: Sequence[ModelQuality]) -> Table:
    """A row a data set: what the test is."""
    places = [dataset for _, dataset in dict.fromkeys((model.run, model.dataset) for model in models)]
    rows = {(model.run, model.dataset): model for model in models}

    def count(model: ModelQuality, *names: str) -> TableCell:
        known = [model.values[name] for name in names if name in model.values]
        return TableCell(f"{sum(known):,.0f}", sum(known)) if known else NOTHING

    def cold(model: ModelQuality) -> TableCell:
        new, known = model.values.get("users_new"), model.values.get("users_evaluated")
        return NOTHING if new is None or not known else TableCell(words.percent(new / known), new / known)

    def ranked(model: ModelQuality) -> str:
        n = f"{model.values.get('catalogue_items', 0):,.0f}"
        return {"catalogue": f"all {n} items", "observed": f"of {n} items those that the user answered on"}.get(
            model.candidates, words.NONE
        )

    def met(model: ModelQuality) -> TableCell:
        drawn = model.cell.get("protocol") == "paper"
        return count(model, "users_evaluated", *([] if drawn else ["users_without_positives"]))

    return Table(
        name="data-sets",
        caption="What is asked. Test users without anything they liked cannot be evaluated; cold ones liked nothing "
        "before the test. The paper's protocol draws 100 users",
        columns=[
            Column("data set", lambda m: m.dataset + f", run {m.run}" * (places.count(m.dataset) > 1)),
            Column("split", lambda model: model.split or words.NONE), Column("ranked for each user", ranked),
            Column("test users", met, numeric=True),
            Column("evaluated", lambda model: count(model, "users_evaluated"), numeric=True),
            Column("cold", cold, numeric=True),
        ],
        items=[*rows.values()],
    )  # fmt: skip


def _metrics(findings: Findings, models: Sequence[ModelQuality], k: str, title: str) -> Table:
    names = dict.fromkeys(name for model in models for name in model.metrics if name.endswith(f"@{k}"))
    metric = headline(name for model in models for name in model.metrics)
    kinds = dict.fromkeys(kind for model in models for kind in model.segments if metric in names)
    first = [name for name in names if name.startswith("ndcg")]
    return Table(
        name=f"{title}-quality-at-{k}",
        caption=f"Ranking quality at {k} on {title}: mean over users and seeds with 95 % interval",
        columns=[
            Column("model", partial(_name, findings=findings)),
            *(_score_column(words.ranking_metric(name), partial(_mean, name=name)) for name in first),
            *(_score_column(f"{words.ranking_metric(str(metric))}, {e}", partial(_segment, kind=e)) for e in kinds),
            *(
                _score_column(words.ranking_metric(name), partial(_mean, name=name))
                for name in names
                if name not in first
            ),
            Column("seeds", lambda m: TableCell(str(m.n_seeds), m.n_seeds, hint="; ".join(m.failures)), numeric=True),
        ],
        items=models,
    )


def _score_column(name: str, entry: Callable[[Any], TableCell | str]) -> Column:
    return Column(name, entry, numeric=True, stacked=True)


def _mean(model: ModelQuality, name: str) -> TableCell:
    mean = model.metrics.get(name)
    return _score(mean) if mean else NOTHING


def _segment(model: ModelQuality, kind: str) -> TableCell:
    mean, n_users = model.segments.get(kind, (None, 0))
    return replace(_score(mean), hint=f"{n_users:,} users") if mean else NOTHING


def _score(mean: Mean) -> TableCell:
    return TableCell(words.mean(mean), mean.value, low=mean.low, high=mean.high, unit="1")


def _name(model: ModelQuality, findings: Findings) -> TableCell:
    style = style_of_model(model, findings.styles)
    return TableCell(f"{style.sign} {model.label}", tint=style.name if model.trained else "")


def _verdicts(findings: Findings, models: Sequence[ModelQuality], title: str) -> Iterator[Block]:
    run, dataset = models[0].run, models[0].dataset
    found = [each for each in findings.quality.comparisons if (each.run, each.dataset) == (run, dataset)]
    if found:
        yield fold_if_long(
            Table(
                name=f"{title}-quality-verdicts",
                caption=f"Is the difference real? Paired by user, on {title}; p corrected for all data sets (Holm)",
                columns=[
                    Column("model", lambda each: each.first),
                    Column("is", lambda each: each.verdict),
                    Column("than", lambda each: each.second),
                    Column("by", lambda each: words.ranking_metric(each.metric)),
                    Column("difference", lambda each: _score(each.difference), numeric=True),
                    Column("p", lambda each: TableCell(f"{each.p_value:.2g}", each.p_value), numeric=True),
                    Column(
                        "smallest visible", lambda each: TableCell(words.smallest(each), each.smallest), numeric=True
                    ),
                ],
                items=found,
                head=3,
            ),
            10,
        )


def _costs(findings: Findings, models: Sequence[ModelQuality], metric: str, title: str) -> Figures:
    cost = partial(cost_plot, models, metric, findings.styles)
    return Figures(
        "Left to right: less to more training or cost. Curves: one line a seed.",
        [
            partial(curves_plot, models, findings.styles, name=f"{title}-learning-curves"),
            partial(curves_plot, models, findings.styles, name=f"{title}-learning-seconds", rate="train_steps_per_s"),
            partial(cost, cost="train_wall_s", name=f"{title}-quality-time", title="Training time"),
            partial(cost, cost="peak_memory_bytes", name=f"{title}-quality-memory", title="Peak memory"),
        ],
    )


def _cost_table(findings: Findings, models: Sequence[ModelQuality], title: str) -> Table:
    def value(model: ModelQuality, name: str) -> TableCell:
        return amount(model.values.get(name), lambda value: words.quantity(value, name))

    names = [name for name in COSTS if any(name in model.values for model in models)]
    return Table(
        name=f"{title}-quality-costs",
        caption=f"What each model took, and what its lists are like, on {title} (median over seeds)",
        columns=[
            Column("model", partial(_name, findings=findings)),
            *(Column(COSTS[name], partial(value, name=name), numeric=True) for name in names),
        ],
        items=models,
    )
