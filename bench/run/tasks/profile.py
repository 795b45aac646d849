"""Where the time and the memory of a step go: by region, by op, against the machine's roof. Steps run eagerly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.plan.tasks import Task
from bench.plan.tower import TOWER_AXES, check_tower, tower_cost

if TYPE_CHECKING:
    from bench.plan.cell import Cell
    from ftmamba.cost import Cost

TRACES = "traces"  # folder beside the records
AXES = (
    *(axis for axis in TOWER_AXES if axis not in ("execution", "heap", "cache", "paired_with")),
    "profiled",
    "content_tokens",
)


def run(cell: Cell, request: dict[str, Any]) -> dict[str, Any]:
    """Profile the cell's step, and write its trace."""
    from bench.run.profiler.measure import profile_cell

    trace = Path(request["folder"]) / TRACES / f"{cell.id}.json.gz"
    return profile_cell(step_of(cell), request, trace, cell.content_tokens)


def step_of(cell: Cell) -> Cell:
    """The cell whose step is profiled."""
    return cell.as_task(cell.profiled)


def check(cell: Cell) -> None:
    """Refuse a tower or a table that cannot be."""
    check_tower(cell)
    if cell.content_tokens == 1:
        raise ValueError("content_length takes 0 for one tower, or at least 2 tokens, one column and [CLS]; got 1")


def cost(cell: Cell) -> Cost | None:
    """Analytic cost of the user tower's step."""
    return tower_cost(step_of(cell))


TASK = Task(words="profile", noun="a profiled step", axes=AXES, run=run, check=check, cost=cost)
