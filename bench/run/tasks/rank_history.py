"""How well a model that reads a user's history ranks the whole catalogue for what the user takes to next."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.baselines import EVENT_BASELINES
from bench.plan.cell import Cell
from bench.plan.setting import AUTO, PlanError, shown
from bench.plan.tasks import Task
from bench.plan.tower import encoder_spec
from bench.records.per_user import per_user_path
from bench.run.tasks.rank_quality import CHECKPOINTS

if TYPE_CHECKING:
    from bench.plan.plan import Plan

NAME = "rank_history"
BATCH_EVENTS, STEPS = 4096, 400  # that `auto` stands for


def cells(plan: Plan) -> Iterator[Cell]:
    """Baselines first: they are cheap, and say at once when a data set cannot be read or has no histories."""
    from bench.data import adapter

    if not plan.mixers and not plan.baselines:
        raise PlanError("nothing to rank with: give at least one mixer or baseline")
    if unknown := [name for name in plan.baselines if name not in EVENT_BASELINES]:
        raise PlanError(f"baseline {shown(unknown[0])} reads no histories; choose from {', '.join(EVENT_BASELINES)}")
    if plan.epochs and "steps" in plan.typed:
        raise PlanError("steps and epochs are two budgets; give one")
    for dataset in plan.datasets:
        adapter(dataset)
    fixed = {"device": plan.device, "threads": plan.threads}
    for dataset, length, cut, name in itertools.product(plan.datasets, plan.history_lengths, plan.cuts, plan.baselines):
        yield Cell(task=NAME, dataset=dataset, history_length=length, cut=cut, baseline=name, **fixed)
    trained = [exact(cell) for each in plan.variants() for cell in plan.product(NAME, **each, baseline=None)]
    order = (("dataset", plan.datasets), ("seed", plan.seeds), ("cut", plan.cuts))
    yield from sorted(trained, key=lambda cell: [values.index(cell[field]) for field, values in order])


def exact(cell: Cell) -> Cell:
    """A trained model's cell without ``auto``, and without the budget that says nothing."""
    auto = {"batch_size": BATCH_EVENTS, "steps": STEPS, "read_at": "all" if _causal(cell) else "last"}
    fields = {**cell, **{name: value for name, value in auto.items() if cell[name] == AUTO}}
    return Cell(**{name: value for name, value in fields.items() if name != "steps" or not cell.epochs})


def _causal(cell: Cell) -> bool:
    tower = encoder_spec(cell)
    return all(tower.mixer_of(layer).causal for layer in range(tower.n_layers))


def check(cell: Cell) -> None:
    """Refuse a tower that cannot be, and one that would see what it is to predict."""
    if "mixer" in cell and cell.read_at == "all" and not _causal(cell):
        raise ValueError(f"{cell.mixer} looks ahead: with read_at all it would see what it is to predict; take last")


def run(cell: Cell, request: dict[str, Any]) -> dict[str, Any]:
    """Train and rank, and write the sidecar with a row a user."""
    from bench.data import adapter, cache
    from bench.records.per_user import write_per_user
    from bench.run.measure import process_state
    from bench.run.rank_history import measure
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
    words="history quality",
    noun="ranking quality from histories",
    timed=False,
    axes=(
        "dataset", "history_length", "cut", "mixer", "baseline", "own", "backend", "targets", "read_at",
        "positions", "device", "dtype", "batch_size", "n_layers", "d_model", "d_out", "steps", "epochs",
        "learning_rates", "dropouts", "weight_decays", "trials", "threads", "seed",
    ),
    run=run,
    cells=cells,
    check=check,
)  # fmt: skip
