"""Whether an operator is right: outputs and gradients against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bench.plan.cell import Cell
from bench.plan.plan import Plan
from bench.plan.tasks import Task
from bench.run.tasks import op


def cells(plan: Plan) -> Iterator[Cell]:
    """Every operator with the backends and the axes that are its own."""
    return op.cells(plan, "op_check")


def run(cell: Cell, request: dict[str, Any]) -> dict[str, Any]:
    """Compare; an error where any tensor is off by more than is allowed."""
    from bench.run.ops import check

    return check(cell)


TASK = Task(
    words="op check", noun="an operator's errors", axes=op.AXES, timed=False, run=run, cells=cells, check=op.check
)
