"""The parent: cells in fresh children, every outcome in a record. It never imports torch."""

from __future__ import annotations

import math
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bench.plan import tasks
from bench.plan.cell import Cell
from bench.plan.plan import Plan
from bench.records.record import Record
from bench.records.writer import RunWriter
from bench.run.attempt import execute, failed
from bench.run.forecast import Forecast
from bench.run.memory import free_bytes
from bench.run.provenance import utc_now
from ftmamba import mixers
from ftmamba.cost import Cost
from ftmamba.ops import backends_of

if TYPE_CHECKING:
    from bench.run.session import Conduct

SIZES = ("n_tokens", "batch_size", "n_layers", "d_model", "width")

Listener = Callable[[Record, float], None]  # a new record, and the seconds that it took
Point = tuple[int, Cell]  # a round and a cell


def planned(plan: Plan) -> list[Point]:
    """Every round and cell in the order in which they run: each round is one pass, in a fresh random order if asked."""
    order = []
    for round_ in range(plan.rounds):
        cells = plan.cells()
        if plan.order == "random":
            random.Random(f"{plan.seeds[0]}/{round_}").shuffle(cells)
        elif plan.order == "small":
            cells.sort(key=lambda cell: math.prod(cell.get(size, 1) for size in SIZES))
        order += [(round_, cell) for cell in cells]
    return order


def missing(plan: Plan, records: Sequence[Record], *, retry: bool = False) -> list[Point]:
    """What is planned and has no record; with ``retry`` also what ended in an error."""
    done = {(record.round, record.cell_id) for record in records if not (retry and record.status == "error")}
    return [(round_, cell) for round_, cell in planned(plan) if (round_, cell.id) not in done]


class Runner:
    """Runs points of one plan.

    Args:
        plan: resolved.
        machine: facts from ``bench.run.environment.probe``.
        writer: the open results folder.
        conduct: how to go about it.
        worker: the command that runs a child; None for the usual one.
    """

    def __init__(
        self,
        plan: Plan,
        machine: dict[str, Any],
        writer: RunWriter,
        conduct: Conduct,
        *,
        worker: Sequence[str] | None = None,
    ) -> None:
        self._plan, self._machine, self._writer, self._conduct, self._worker = plan, machine, writer, conduct, worker
        known = {cell.id: dict(cell) for cell in plan.cells()}
        own = [record for record in writer.records if record.cell == known.get(record.cell_id)]
        self._verified = {record.cell_id for record in own if "verify" in record.notes}
        self._forecast = Forecast(plan.timeout_s, skip_ahead=conduct.skip_ahead, records=own)

    def run(self, points: Sequence[Point], on_record: Listener, deadline: float | None = None) -> bool:
        """Run the points; each record is on the disk before the next cell starts.

        Args:
            deadline: on the monotonic clock; no cell is begun after it.

        Returns:
            Whether all of them were run.
        """
        todo = list(points)
        while todo:
            is_due = len(points) - len(todo) >= self._conduct.at_least
            if is_due and deadline is not None and time.monotonic() > deadline:
                return False
            batch, todo = todo[: self._plan.cells_per_process], todo[self._plan.cells_per_process :]
            todo = (
                self._run_batch([point for point in batch if not self._refused(point, on_record)], on_record, deadline)
                + todo
            )
        return True

    def _refused(self, point: Point, on_record: Listener) -> bool:
        """Whether a cell cannot succeed; then a record says so."""
        cell = point[1]
        reply = failed("skipped", reason) if (reason := unusable(cell)) else None
        if reply is None and (refusal := self._forecast.refusal(cell, cost_of(cell), self._free_bytes(cell))):
            reply = failed("skipped", refusal.reason, limit=refusal.limit)
        if reply is not None:
            on_record(self._keep(point, {**reply, "started_at": utc_now()}), 0.0)
        return reply is not None

    def _run_batch(self, batch: list[Point], on_record: Listener, deadline: float | None) -> list[Point]:
        """Run cells in one process; those that it did not come to are returned."""
        waiting = list(batch)
        if batch:
            execute(
                self._request(batch, deadline),
                lambda answer: on_record(self._keep(waiting.pop(0), answer), answer["seconds"]),
            )
        return waiting

    def _request(self, batch: Sequence[Point], deadline: float | None) -> dict[str, Any]:
        first = batch[0][1]
        return {
            "worker": self._worker,
            "cells": [
                {"cell": dict(cell), "verified": not self._conduct.verify or cell.id in self._verified}
                for _, cell in batch
            ],
            "settings": self._plan.to_dict(),
            "timeout_s": self._plan.timeout_s,
            "threads": first.get("threads") or self._machine["threads"]["torch"],
            "cpus": [],
            "folder": str(self._writer.folder.resolve()),
            "data": str(self._conduct.data.resolve()) if self._conduct.data else None,
            "free_bytes": self._free_bytes(first) if first.device == "cuda" else None,
            "seconds": None if deadline is None else deadline - time.monotonic(),
        }

    def _free_bytes(self, cell: Cell) -> int:
        return int(self._machine["gpus"][0]["free_bytes"]) if cell.device == "cuda" else free_bytes()

    def _keep(self, point: Point, reply: dict[str, Any]) -> Record:
        round_, cell = point
        cost = cost_of(cell)
        analytic: dict[str, float | int | None] = {}
        if cost is not None:
            analytic = {"params": cost.params, "flops": cost.flops, "exps": cost.exps, "min_bytes": cost.min_bytes}
        record = Record(
            run=self._writer.name,
            cell_id=cell.id,
            round=round_,
            cell=dict(cell),
            status=reply["status"],
            reason=reply["reason"],
            samples=reply.get("samples", {}),
            values={**analytic, **reply.get("values", {})},
            notes=reply.get("notes", {}),
            started_at=reply["started_at"],
            env=reply.get("env", {}),
        )
        self._writer.append(record)
        self._forecast.learn(record)
        self._verified |= {record.cell_id} if "verify" in record.notes else set()
        return record


def cost_of(cell: Cell) -> Cost | None:
    """Analytic cost of an iteration, where the task has a model of it."""
    cost = tasks.find(cell.task).cost
    return cost(cell) if cost else None


def unusable(cell: Cell) -> str | None:
    """Why a cell's backend cannot run on this machine, or None; on the CPU Triton's interpreter will do for ops."""
    if "backend" not in cell or (
        "op" in cell and cell.backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    ):
        return None
    backend = (backends_of(cell.op) if "op" in cell else mixers.find(cell.mixer).backends)[cell.backend]
    half = cell.dtype in ("bfloat16", "float16") or cell.get("precision") == "autocast"
    if cell.device in backend.half_only and not half:
        return f"{cell.backend} takes half precision alone"
    return backend.refusal(cell.device, cell.dtype == "float64")
