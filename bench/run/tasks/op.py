"""Time of one operator on its own, beside what the machine's rates allow at best."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from bench.plan.cell import Cell
from bench.plan.plan import Plan
from bench.plan.setting import AUTO, PlanError
from bench.plan.tasks import Task

COMMON = (
    "op",
    "backend",
    "device",
    "dtype",
    "execution",
    "direction",
    "n_tokens",
    "batch_size",
    "width",
    "seed",
    "threads",
    "cache",
)
OWN = {
    "selective_scan": ("readout", "d_state", "initial_state"),
    "causal_conv": ("d_conv",),
    "attention": ("n_heads",),
}
AXES = (*COMMON, *(axis for axes in OWN.values() for axis in axes))


def cells(plan: Plan, task: str = "op") -> Iterator[Cell]:
    """Every operator with the backends and the axes that are its own."""
    from ftmamba.ops import backends_of

    strict = "backends" in plan.typed and os.environ.get("TRITON_INTERPRET") != "1"  # which runs Triton anywhere
    for op in plan.ops:
        backends = backends_of(op)
        names = [name for name in plan.backends if name in backends or name == AUTO]
        if strict and not names:
            raise PlanError(
                f"{op} has no backend {', '.join(plan.backends)}; choose from {AUTO}, {', '.join(backends)}"
            )
        foreign = [axis for axis in AXES if axis not in (*COMMON, *OWN[op])]
        for backend in plan.exact_backends(backends, names, strict=strict):
            for cell in plan.product(task, op=op, backend=backend):
                yield Cell(**{name: value for name, value in cell.items() if name not in foreign})


def check(cell: Cell) -> None:
    """Refuse heads that do not fill the width."""
    if cell.op == "attention" and cell.width % cell.n_heads:
        raise ValueError(f"widths {cell.width} is not a multiple of n_heads {cell.n_heads}")


def run(cell: Cell, request: dict[str, Any]) -> dict[str, Any]:
    """Time the operator."""
    from bench.run.ops import time_of
    from ftmamba.threads import set_threads

    set_threads(request["threads"])
    return time_of(cell, request["settings"]["budget_s"])


TASK = Task(words="op", noun="an operator", axes=AXES, run=run, cells=cells, check=check)
