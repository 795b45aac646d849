"""How well a model ranks a data set's whole catalogue for every test user, trained first where it can be."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.plan.axes import AUTO, BATCH_SIZES, MLP, STEPS
from bench.plan.cell import Cell
from bench.plan.match import matched
from bench.plan.tasks import Task
from bench.plan.tower import encoder_spec
from bench.records.per_user import per_user_path

if TYPE_CHECKING:
    from bench.plan.plan import Plan

NAME = "rank_quality"
CHECKPOINTS = "checkpoints"  # of trainings that were cut off, beside the records; a finished one leaves none


def cells(plan: Plan) -> Iterator[Cell]:
    """Untrained baselines first: they are cheap, and say at once when a data set cannot be read."""
    from bench.data import adapter

    fixed = {"protocol": plan.protocol, "device": plan.device, "threads": plan.threads}
    for dataset, baseline in itertools.product(plan.datasets, plan.baselines):
        if baseline != MLP and (baseline != "oracle" or adapter(dataset).simulated):
            for seed in plan.seeds if baseline == "random" else plan.seeds[:1]:  # the others have no chance in them
                yield Cell(task=NAME, dataset=dataset, baseline=baseline, seed=seed, **fixed)
    models: list[dict[str, Any]] = [*plan.variants()] + [{"baseline": MLP} for each in plan.baselines if each == MLP]
    axes = (plan.datasets, plan.seeds, plan.losses, plan.layers, plan.d_model, plan.batch_sizes, plan.dtype, models)
    for dataset, seed, loss, n_layers, d_model, batch_size, dtype, model in itertools.product(*axes):
        cell = Cell(
            task=NAME, dataset=dataset, seed=seed, loss=loss, n_layers=n_layers, d_model=d_model, dtype=dtype,
            batch_size=BATCH_SIZES[loss] if batch_size == AUTO else batch_size,
            steps=STEPS[loss] if plan.steps == AUTO else plan.steps,
            learning_rates=plan.learning_rates, features=plan.features,
            **({} if loss == "softmax" else {"negatives": plan.negatives}),
            **({"id_dropout": plan.id_dropout} if plan.features == "ids" else {}),
            **fixed, **model,
        )  # fmt: skip
        yield matched(cell) if plan.match == "params" and "mixer" in cell else cell


def check(cell: Cell) -> None:
    """Refuse a tower that cannot be, and a step of a single pair."""
    if "mixer" in cell:
        encoder_spec(cell)
    if cell.get("batch_size") == 1:
        raise ValueError("a training step takes 2 pairs at least; got batch_sizes 1")


def run(cell: Cell, request: dict[str, Any]) -> dict[str, Any]:
    """Train and rank, and write the sidecar with a row a user."""
    from bench.data import adapter, cache
    from bench.records.per_user import write_per_user
    from bench.run.measure import process_state
    from bench.run.rank_quality import measure
    from bench.training import checkpoint
    from ftmamba.threads import set_threads

    set_threads(request["threads"])
    folder = Path(request["folder"])
    saved = folder / CHECKPOINTS / f"{cell.id}.safetensors"
    data = cache.load(adapter(cell.dataset), Path(request["data"]) if request["data"] else None)
    ranking, samples, reading = measure(cell, data, request["settings"]["ks"], saved)
    write_per_user(per_user_path(folder, cell.id), ranking.per_user)
    checkpoint.forget(saved)
    notes = {**reading.notes, **({"data": "; ".join(data.notes)} if data.notes else {})}
    values = {**ranking.values, **reading.values}
    return {"samples": samples, "values": values, "notes": notes, "env": process_state()}


TASK = Task(
    words="ranking quality",
    noun="ranking quality",
    axes=(
        "dataset", "protocol", "mixer", "baseline", "backend", "loss", "features", "device", "dtype", "batch_size",
        "n_layers", "d_model", "steps", "learning_rates", "negatives", "id_dropout", "threads", "seed",
    ),
    run=run,
    cells=cells,
    check=check,
)  # fmt: skip
