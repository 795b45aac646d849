"""How well users are ranked for as time goes by: every visit after a cut is ranked, then revealed (prequential)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.plan.cell import Cell
from bench.plan.policy import Policy
from bench.plan.setting import AUTO, PlanError, shown
from bench.plan.tasks import Task
from bench.plan.tower import encoder_spec
from bench.records.per_user import per_user_path
from bench.run.tasks.rank_history import BATCH_EVENTS, STEPS

if TYPE_CHECKING:
    from bench.plan.plan import Plan

NAME = "rank_stream"
COUNTED = ("popularity", "recent-popularity", "frequency")  # of which a count is kept


def cells(plan: Plan) -> Iterator[Cell]:
    """Baselines, then every mixer with every arm; states are stale or rebuilt where weights are updated."""
    from bench.data import adapter

    if unknown := [name for name in plan.baselines if name not in COUNTED]:
        raise PlanError(f"baseline {shown(unknown[0])} keeps no counts; choose from {', '.join(COUNTED)}")
    for dataset in plan.datasets:
        adapter(dataset)
    common = {"mixer": None, "backend": None, "arm": None, "states": None, "seed": 0}
    for name in plan.baselines:
        for cell in plan.product(NAME, baseline=name, **common):
            own = ("task", "dataset", "cut", "baseline", "device", "threads", "update_days")
            yield Cell(**{field: value for field, value in cell.items() if field in own})
    for variant in plan.variants():
        for cell in plan.product(NAME, **variant, baseline=None):
            if cell.arm in ("retrained", "online") or cell.states == plan.states[0]:
                auto = {"batch_size": BATCH_EVENTS, "steps": STEPS}
                fields = {**cell, **{name: value for name, value in auto.items() if cell[name] == AUTO}}
                yield Cell(**(fields if cell.arm in ("retrained", "online") else {**fields, "states": "stale"}))


def check(cell: Cell) -> None:
    """Refuse a tower that cannot be or keeps no state, and a choice that nothing could make."""
    if "mixer" not in cell:
        return
    encoder_spec(cell)
    refusals = [Policy(kind, None).refusal(cell) for kind in ("state", "kv")]
    if all(refusals):
        raise ValueError(refusals[0])
    if len(cell.learning_rates) * len(cell.dropouts) * len(cell.weight_decays) > 1:
        raise ValueError("learning_rates, dropouts and weight_decays: one each; nothing is chosen on validation here")


def run(cell: Cell, request: dict[str, Any]) -> dict[str, Any]:
    """Go through the events, and write the sidecar with a row a user."""
    from bench.data import adapter, cache
    from bench.records.per_user import write_per_user
    from bench.run.measure import process_state
    from bench.run.rank_stream import measure
    from ftmamba.threads import set_threads

    set_threads(request["threads"])
    data = cache.load(adapter(cell.dataset), Path(request["data"]) if request["data"] else None)
    per_user, samples, values = measure(cell, data, request["settings"]["ks"])
    write_per_user(per_user_path(Path(request["folder"]), cell.id), per_user)
    notes = {"data": "; ".join(data.notes)} if data.notes else {}
    return {"samples": samples, "values": values, "notes": notes, "env": process_state()}


TASK = Task(
    words="prequential quality", noun="ranking quality as time goes by",
    axes=(
        "dataset", "cut", "mixer", "baseline", "backend", "arm", "states", "update_days", "device", "dtype",
        "history_length", "batch_size", "n_layers", "d_model", "d_out", "steps", "learning_rates", "dropouts",
        "weight_decays", "threads", "seed",
    ),
    run=run, cells=cells, check=check,
)  # fmt: skip
