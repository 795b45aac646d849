"""What users of a live system wait for an answer: queue, update, refresh and the ten best items of a catalogue.

L counts the tokens that a refreshed vector has read at first: events and [CLS].
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.plan.cell import Cell
from bench.plan.policy import tower_of
from bench.plan.tasks import Task
from bench.plan.tower import TOWER_AXES
from bench.run.tasks import stream_step

if TYPE_CHECKING:
    from bench.plan.plan import Plan

NAME, POISSON = "stream_load", "poisson"


def cells(plan: Plan) -> Iterator[Cell]:
    """Every mixer with those of the policies that it can do, one at least."""
    from bench.data import adapter

    for name in plan.arrivals:
        if name != POISSON:
            adapter(name)
    return stream_step.cells(plan, NAME)


def check(cell: Cell) -> None:
    """Refuse a tower that cannot be, and a batch that waits for nobody."""
    if cell.n_tokens < 3:
        raise ValueError(
            f"a user has an event before the one that comes, and [CLS]: lengths from 3; got {cell.n_tokens}"
        )
    if cell.max_wait_ms and cell.max_batch == 1:
        raise ValueError(f"max_wait_ms {cell.max_wait_ms:g} waits for a batch; give a max_batch above 1")
    if cell.rate == 0:
        raise ValueError("rates takes auto or requests a second above 0; got 0")
    tower_of(cell)


def run(cell: Cell, request: dict[str, Any]) -> dict[str, Any]:
    """Serve."""
    from bench.data import adapter, cache
    from bench.run.stream_load import measure

    events = None
    if cell.arrivals != POISSON:
        events = cache.load(adapter(cell.arrivals), Path(request["data"]) if request["data"] else None).events
        if events is None:
            raise ValueError(f"{cell.arrivals} has no recorded events; data sets that have them end in :events")
    return measure(cell, request, events)


TASK = Task(
    words="live requests", noun="an answer to a live request",
    axes=(
        *(axis for axis in TOWER_AXES if axis not in ("execution", "cache", "paired_with", "batch_size")),
        "policy", "resident_users", "users", "arrivals", "rate", "bound_ms", "max_batch", "max_wait_ms", "catalogue",
    ),
    run=run, cells=cells, check=check,
)  # fmt: skip
