"""Cells that cannot succeed, told from arithmetic and from what has been seen. They cost no time, and are no gap."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from typing import Any, NamedTuple

from bench.plan.cell import Cell
from bench.records.record import Record
from ftmamba.cost import Cost

SIZES = ("n_tokens", "batch_size")  # axes along which a failure speaks for larger cells
TRUSTED_S = 0.1  # a rate is taken from iterations of at least this length, where start-up costs no longer count


START_S = 1.5  # of a process, until it times
RATES = {"cpu": 3.5e10, "cuda": 1e13}  # floating-point operations a second, of a core and of a GPU, where none was seen
FEWEST = 4  # iterations of a cell, its memory's and the warm-up among them
PHASES = 1.5  # of the budget, with warm-up


def expected_s(cell: Cell, cost: Cost | None, budget_s: float, n_cores: int) -> float | None:
    """Roughly how long a timed cell takes on a quiet machine; None where there is no model of it."""
    if cost is None:
        return None
    rate = RATES[cell.device] * (n_cores if cell.device == "cpu" else 1)
    return START_S + (2 if cell.get("paired_with") else 1) * max(PHASES * budget_s, FEWEST * cost.flops / rate)


class Refusal(NamedTuple):
    """Why a cell is not run.

    Attributes:
        reason: for people.
        limit: what it would have run into: ``memory`` or ``time``.
    """

    reason: str
    limit: str


class Forecast:
    """What the records so far say about cells to come.

    Args:
        timeout_s: seconds after which a cell is ended.
        skip_ahead: whether a cell that failed for its size speaks for larger ones.
        records: what is known already.
    """

    def __init__(self, timeout_s: float, *, skip_ahead: bool, records: Iterable[Record] = ()) -> None:
        self._timeout_s = timeout_s
        self._skip_ahead = skip_ahead
        self._failures: list[Record] = []
        self._rates: dict[str, float] = {}
        for record in records:
            self.learn(record)

    def learn(self, record: Record) -> None:
        """Take one more record into account."""
        if record.status in ("oom", "timeout"):
            self._failures.append(record)
        wall_s, flops = record.samples.get("wall_s"), record.values.get("flops")
        if record.status == "ok" and wall_s and flops and statistics.median(wall_s) >= TRUSTED_S:
            kind = _kind(record.cell, *SIZES, "n_layers")
            self._rates[kind] = max(self._rates.get(kind, 0.0), flops / statistics.median(wall_s))

    def refusal(self, cell: Cell, cost: Cost | None, free_bytes: int) -> Refusal | None:
        """Why ``cell`` should not be run, or None.

        Args:
            cell: the candidate.
            cost: its analytic cost, where there is a model of it.
            free_bytes: memory that it could use.
        """
        if cost and cost.peak_bytes > free_bytes:
            return Refusal(
                f"needs at least {_size(cost.peak_bytes)} by arithmetic, and {_size(free_bytes)} are free", "memory"
            )
        fields = dict(cell)
        if self._skip_ahead and (failed := self._failed_at_most_as_large(fields)):
            where = ", ".join(f"{axis} {failed.cell[axis]}" for axis in SIZES if axis in failed.cell)
            limit = "memory" if failed.status == "oom" else "time"
            return Refusal(f"{failed.status} at {where} in round {failed.round}, so not tried here", limit)
        rate = self._rates.get(_kind(fields, *SIZES, "n_layers"))
        if rate and cost and cost.flops / rate > self._timeout_s:
            return Refusal(
                f"one iteration would take about {cost.flops / rate:.0f} s at the best rate seen "
                f"({rate / 1e9:.3g} GFLOP/s), more than the timeout of {self._timeout_s:g} s",
                "time",
            )
        return None

    def _failed_at_most_as_large(self, fields: dict[str, Any]) -> Record | None:
        kind = _kind(fields, *SIZES)
        for failed in self._failures:
            smaller = all(failed.cell.get(axis, 0) <= fields.get(axis, 0) for axis in SIZES)
            if smaller and _kind(failed.cell, *SIZES) == kind:
                return failed
        return None


def _kind(fields: dict[str, Any], *but: str) -> str:
    return json.dumps({name: value for name, value in fields.items() if name not in but}, sort_keys=True)


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.3g} GiB"
