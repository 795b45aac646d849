"""What a task declares of itself. Each lives in one file, ``bench/run/tasks/NAME.py``, as ``TASK``.

Those files import torch only in the functions that run in a cell's own process, so that a plan can be made without it.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.plan.setting import PlanError, shown

if TYPE_CHECKING:
    from bench.plan.cell import Cell
    from bench.plan.plan import Plan
    from ftmamba.cost import Cost

FOLDER = Path(__file__).resolve().parents[1] / "run" / "tasks"


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a cell measures.

    Attributes:
        words: the task in a table, such as ``train step``.
        noun: the task as a thing that has a cost, such as ``a training step``.
        axes: fields of its cells.
        run: measures a cell, in the cell's own process, from the cell and the runner's request, and returns the reply:
            status, reason, samples, values, notes. None where the file has ``prepare(tower, batch)`` for a timed step.
        training: whether it runs a backward pass.
        timed: whether its readings are times, which a neighbour on the same machine would spoil.
        cells: expands a plan; the product of its axes where None.
        check: refuses a cell that cannot be, by a ValueError.
        cost: analytic cost of an iteration; None where there is no model of it.
    """

    words: str
    noun: str
    axes: tuple[str, ...]
    run: Callable[[Cell, dict[str, Any]], dict[str, Any]] | None = None
    training: bool = False
    timed: bool = True
    cells: Callable[[Plan], Iterable[Cell]] | None = None
    check: Callable[[Cell], object] | None = None
    cost: Callable[[Cell], Cost | None] | None = None


@functools.cache
def names() -> tuple[str, ...]:
    """All tasks."""
    return tuple(module.name for module in pkgutil.iter_modules([str(FOLDER)]))


def find(name: str) -> Task:
    """The task of that name.

    Raises:
        PlanError: there is none.
    """
    if name not in names():
        raise PlanError(f"unknown task {shown(name)}; choose from {', '.join(names())}")
    return importlib.import_module(f"bench.run.tasks.{name}").TASK  # type: ignore[no-any-return]
