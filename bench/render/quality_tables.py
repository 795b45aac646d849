"""What a study prints at its end: metrics of every model side by side, what they cost, who is better."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.analysis.quality import Comparison, Mean, ModelQuality, Quality

COSTS = {
    "params": "parameters",
    "train_wall_s": "training s",
    "train_steps_per_s": "training steps/s",
    "inference_rows_per_s": "inference rows/s",
    "peak_memory_bytes": "peak memory MiB",
    "learning_rate": "learning rate",
    "best_step": "best step",
    "coverage@10": "catalogue coverage@10",
    "popularity_percentile@10": "popularity percentile@10",
}
MIB = 2**20


def print_quality(quality: Quality, console: Console) -> None:
    """Print one table a run and data set, then one line a comparison."""
    if not quality.models:
        console.print("No records of ranking quality.")
        return
    for run, dataset in dict.fromkeys((model.run, model.dataset) for model in quality.models):
        models = [model for model in quality.models if (model.run, model.dataset) == (run, dataset)]
        users = _counts(models[0])
        console.print(f"[bold]{escape(dataset)}[/]: {users}; mean and 95 % interval over users and seeds\n")
        console.print(_table(models))
        console.print(f"in its files: {escape(models[0].odd)}\n" if models[0].odd else "", soft_wrap=True)
        for model in models:
            for failure in model.failures:
                console.print(f"[yellow]{escape(model.label)}, {escape(failure)}[/]", soft_wrap=True)
        for comparison in quality.comparisons:
            if (comparison.run, comparison.dataset) == (run, dataset):
                console.print(escape(sentence(comparison)), soft_wrap=True)
        console.print()
    for problem in quality.problems:
        console.print(f"[yellow]{escape(problem)}[/]", soft_wrap=True)


def sentence(comparison: Comparison) -> str:
    """One comparison in words."""
    verb = {"better": "is better than", "worse": "is worse than"}.get(comparison.verdict, "and")
    end = ": no difference found" if comparison.verdict == "no difference found" else ""
    return (
        f"{comparison.first} {verb} {comparison.second}{end} "
        f"({comparison.metric} {interval(comparison.difference, signed=True)}, p {comparison.p_value:.2g}; "
        f"smallest difference this could show: {comparison.smallest:.3f})"
    )


def interval(mean: Mean, *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    if math.isnan(mean.low):
        return f"{mean.value:{sign}.4f}"
    return f"{mean.value:{sign}.4f} [{mean.low:{sign}.3f}, {mean.high:{sign}.3f}]"


def _counts(model: ModelQuality) -> str:
    values = model.values
    parts = [
        (f"{values[name]:,.0f} {words}")
        for name, words in (
            ("users_evaluated", "users ranked for"),
            ("users_new", "of them new"),
            ("users_without_positives", "without positives left out"),
            ("catalogue_items", "items in the catalogue"),
        )
        if name in values
    ]
    return ", ".join(parts)


def _table(models: Sequence[ModelQuality]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0), collapse_padding=True)
    table.add_column("")
    for model in models:
        table.add_column(f"{model.label}, {model.n_seeds} seed{'s' if model.n_seeds != 1 else ''}", justify="right")
    for name in dict.fromkeys(name for model in models for name in model.metrics):
        table.add_row(name, *(interval(model.metrics[name]) if name in model.metrics else "-" for model in models))
    for name, label in COSTS.items():
        if any(name in model.values for model in models):
            table.add_row(label, *(_cost(name, model.values.get(name)) for model in models))
    return table


def _cost(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.endswith("_bytes"):
        return f"{value / MIB:,.1f}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
