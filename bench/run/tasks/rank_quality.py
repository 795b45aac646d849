"""How well a model ranks a data set's whole catalogue for every test user, trained first where it can be."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.baselines import BASELINES
from bench.plan.axes import BATCH_SIZES, STEPS
from bench.plan.cell import Cell
from bench.plan.setting import AUTO, PlanError, shown
from bench.plan.tasks import Task
from bench.plan.tower import BY_IMPORTANCE, ROW_AXES, encoder_spec, order_of
from bench.records.per_user import per_user_path
from bench.run.ranks import check_processes

if TYPE_CHECKING:
    from bench.plan.plan import Plan

NAME = "rank_quality"
CHECKPOINTS = "checkpoints"  # of trainings that were cut off, beside the records; a finished one leaves none


def cells(plan: Plan) -> Iterator[Cell]:
    """Untrained baselines first: they are cheap, and say at once when a data set cannot be read."""
    from bench.data import adapter

    if not plan.mixers and not plan.baselines:
        raise PlanError("nothing to rank with: give at least one mixer or baseline")
    if unknown := [name for name in plan.baselines if name not in BASELINES]:
        raise PlanError(f"baseline {shown(unknown[0])} reads histories; it belongs to rank_history")
    adapters = {dataset: adapter(dataset) for dataset in plan.datasets}
    if plan.epochs and "steps" in plan.typed:
        raise PlanError("steps and epochs are two budgets; give one")
    fixed = {"protocol": plan.protocol, "device": plan.device, "threads": plan.threads}
    axes = (plan.datasets, plan.baselines, plan.refit, plan.leave_out)
    for dataset, baseline, refit, leave_out in itertools.product(*axes):
        known = BASELINES[baseline]
        if not known.trained and (not known.simulated or adapters[dataset].simulated):
            own = {"dataset": dataset, "baseline": baseline, "refit": refit, "leave_out": leave_out}
            for seed in plan.seeds if known.by_chance else plan.seeds[:1]:
                yield Cell(task=NAME, seed=seed, **own, **fixed)
    models: list[dict[str, Any]] = [{**variant, "baseline": None} for variant in plan.variants()]
    models += [{"baseline": each, "mixer": None, "backend": None} for each in plan.baselines if BASELINES[each].trained]
    trained = [exact(cell) for model in models for cell in plan.product(NAME, **model)]
    order = (("dataset", plan.datasets), ("seed", plan.seeds), ("loss", plan.losses))
    yield from sorted(trained, key=lambda cell: [values.index(cell[field]) for field, values in order])


def exact(cell: Cell) -> Cell:
    """A trained model's cell with what its loss decides: sizes that are ``auto``, and no field that says nothing."""
    sizes = {"batch_size": BATCH_SIZES[cell.loss], "steps": STEPS[cell.loss]}
    fields = {**cell, **{name: size for name, size in sizes.items() if cell[name] == AUTO}}
    silent = ["negatives"] if cell.loss == "softmax" else []
    silent += ["id_dropout"] if cell.features != "ids" else []
    silent += ["steps"] if cell.epochs else []
    silent += ROW_AXES if "mixer" not in cell else ()
    return Cell(**{name: value for name, value in fields.items() if name not in silent})


def check(cell: Cell) -> None:
    """Refuse a tower that cannot be, a step of a single pair, and a last fit where nothing was chosen."""
    if cell.protocol == "paper" and cell.refit:
        raise ValueError("the paper's protocol chooses nothing on validation, so that refit true says nothing to it")
    if "mixer" in cell:
        encoder_spec(cell)
    if cell.column_order != BY_IMPORTANCE:
        order_of(cell.column_order, 1)
    if cell.get("batch_size") == 1:
        raise ValueError("a training step takes 2 pairs at least; got batch_sizes 1")
    if "batch_size" in cell:
        check_processes(cell)
        if cell.as_long_as and cell.processes > 1:
            raise ValueError("how long another mixer takes is measured in one process; give as_long_as or processes")


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
    saved = saved_of(cell, request)
    data = cache.load(adapter(cell.dataset), Path(request["data"]) if request["data"] else None)
    ranking, samples, reading = measure(cell, data, request["settings"]["ks"], saved)
    write_per_user(per_user_path(folder, cell.id), ranking.per_user)
    checkpoint.forget(saved)
    notes = {**reading.notes, "split": data.split_rule, "candidates": data.candidates}
    notes |= {"data": "; ".join(data.notes)} if data.notes else {}
    values = {**ranking.values, **reading.values}
    return {"samples": samples, "values": values, "notes": notes, "env": process_state()}


def follow(cell: Cell, request: dict[str, Any]) -> None:
    """A rank beside the first: the same training, of which nothing is told."""
    from bench.data import adapter, cache
    from bench.run.rank_quality import measure
    from ftmamba.threads import set_threads

    set_threads(request["threads"])
    data = cache.load(adapter(cell.dataset), Path(request["data"]) if request["data"] else None)
    measure(cell, data, request["settings"]["ks"], saved_of(cell, request))


def saved_of(cell: Cell, request: dict[str, Any]) -> Path:
    """The state of an unfinished training."""
    return Path(request["folder"]) / CHECKPOINTS / f"{cell.id}.safetensors"


TASK = Task(
    words="ranking quality",
    noun="ranking quality",
    timed=False,
    axes=(
        "dataset", "protocol", "refit", "leave_out", "mixer", "baseline", "backend", "loss", "features", "device",
        "dtype", "batch_size",
        "n_layers", "d_model", *ROW_AXES, "steps",
        "epochs", "learning_rates", "dropouts", "weight_decays", "trials", "negatives",
        "id_dropout", "as_long_as", "threads", "processes", "seed",
    ),
    run=run,
    cells=cells,
    check=check,
)  # fmt: skip
