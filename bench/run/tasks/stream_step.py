"""What one more event of a user costs a live system, until the user's vector is fresh: update and refresh.

L counts the tokens that a refreshed vector has read: the events, the new one last, and [CLS].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench.plan.axes import DTYPE_BYTES
from bench.plan.cell import Cell
from bench.plan.policy import Policy, tower_of
from bench.plan.setting import PlanError, shown
from bench.plan.tasks import Task
from bench.plan.tower import TOWER_AXES

if TYPE_CHECKING:
    from bench.plan.plan import Plan
    from ftmamba.cost import Cost

NAME = "stream_step"
N_ITEMS = 10_000  # of the synthetic events


def cells(plan: Plan, task: str = NAME) -> Iterator[Cell]:
    """Every mixer with those of the policies that it can do, one at least."""
    policies = {text: Policy.of(text) for text in plan.policies}
    left = dict.fromkeys(policies)
    for variant in plan.variants():
        refusals = []
        for text, policy in policies.items():
            found = list(plan.product(task, **variant, policy=text))
            refused = policy.refusal(found[0]) if found else None
            refusals += [refused] if refused else []
            if not refused:
                left.pop(text, None)
                yield from found
        if len(refusals) == len(policies):
            raise PlanError(refusals[0])
    if left:
        raise PlanError(f"policy {shown(next(iter(left)))} says nothing to any mixer of the plan; leave it out")


def check(cell: Cell) -> None:
    """Refuse a tower that cannot be, and users who have no event before the one that comes."""
    if cell.n_tokens < 3:
        raise ValueError(f"a user has an event before the next one, and [CLS]: lengths from 3; got {cell.n_tokens}")
    if cell.resident_users < cell.batch_size:
        raise ValueError(f"batch_sizes {cell.batch_size} need as many resident_users; got {cell.resident_users}")
    tower_of(cell)


def seen(cell: Cell) -> int:
    """Events that a refresh reads again, the new one among them."""
    policy = Policy.of(cell.policy)
    n_events: int = cell.n_tokens - 1
    return n_events if policy.keeps else min(n_events, policy.window or n_events)


def state_bytes(cell: Cell) -> int | None:
    """What must be kept of a user, by arithmetic; of a history its items and times."""
    if not Policy.of(cell.policy).keeps:
        return 16 * seen(cell) + 8
    return tower_of(cell).state_bytes(cell.n_tokens, DTYPE_BYTES[cell.dtype])


def cost(cell: Cell) -> Cost | None:
    """Analytic cost of an update and a refresh: two tokens, and all keys and values twice; or the tower over all."""
    from ftmamba.cost import history_cost
    from ftmamba.spec import EventSpec

    spec, itemsize, policy = tower_of(cell), DTYPE_BYTES[cell.dtype], Policy.of(cell.policy)
    n_events = 1 if policy.keeps else seen(cell)
    whole, found = (
        history_cost(spec, EventSpec(n), n_events, cell.batch_size, "forward", dtype_bytes=itemsize)
        for n in (N_ITEMS, 1)  # of the table of items few rows are read
    )
    kept = state_bytes(cell)
    if whole is None or found is None or kept is None:
        return None
    memory = kept * cell.resident_users
    if not policy.keeps:
        return replace(whole, min_bytes=found.min_bytes, peak_bytes=whole.peak_bytes + memory)
    one = spec.state_bytes(1, itemsize) or 0
    grown = kept - one  # keys and values of the earlier events; each number is one factor of a product
    return replace(
        whole, flops=found.flops + cell.batch_size * 2 * 2 * grown // itemsize,
        min_bytes=found.min_bytes + cell.batch_size * (kept + one), peak_bytes=whole.params * itemsize + memory,
    )  # fmt: skip


def run(cell: Cell, request: dict[str, Any]) -> dict[str, Any]:
    """Time requests."""
    from bench.run.stream_step import measure

    return measure(cell, request)


TASK = Task(
    words="request", noun="an update and a refresh of a user",
    axes=(
        *(axis for axis in TOWER_AXES if axis not in ("execution", "cache", "paired_with")),
        "policy", "resident_users", "cold_share",
    ),
    run=run, cells=cells, check=check, cost=cost,
)  # fmt: skip
