"""The parent: cells in fresh children, every outcome in a record. It never imports torch."""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import psutil  # type: ignore[import-untyped]

from bench.plan import tasks
from bench.plan.cell import Cell
from bench.plan.plan import Plan
from bench.records.record import Record, Status
from bench.records.text import printable
from bench.records.writer import RunWriter
from bench.run.child import Outcome, run_child
from bench.run.forecast import Forecast
from bench.run.memory import free_bytes, oom_kills
from bench.run.provenance import utc_now
from bench.run.worker import EXIT_POISONED, tells_of_full_memory
from ftmamba import mixers
from ftmamba.cost import Cost
from ftmamba.ops import backends_of

if TYPE_CHECKING:
    from bench.run.session import Conduct

WORKER = (sys.executable, "-X", "faulthandler", "-m", "bench.run.worker")
SIZES = ("n_tokens", "batch_size", "n_layers", "d_model", "width")
TAIL_LENGTH = 300  # of a dead child's last words, in its record's reason
FULL_SHARE = 0.9  # of the memory that was free: a process killed above this died for want of memory

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
        worker: the command that runs a child.
    """

    def __init__(
        self,
        plan: Plan,
        machine: dict[str, Any],
        writer: RunWriter,
        conduct: Conduct,
        *,
        worker: Sequence[str] = WORKER,
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
        reply = _failed("skipped", reason, "") if (reason := unusable(cell)) else None
        if reply is None and (refusal := self._forecast.refusal(cell, cost_of(cell), self._free_bytes(cell))):
            reply = _failed("skipped", refusal.reason, "", limit=refusal.limit)
        if reply is not None:
            on_record(self._keep(point, utc_now(), reply), 0.0)
        return reply is not None

    def _run_batch(self, batch: list[Point], on_record: Listener, deadline: float | None) -> list[Point]:
        """Run cells in one process; those that it did not come to are returned."""
        if not batch:
            return []
        waiting = list(batch)
        free, kills, busy, load = self._free_bytes(batch[0][1]), oom_kills(), busy_cpu_s(), os.getloadavg()[0]
        started_at, last = utc_now(), time.monotonic()

        def take(reply: dict[str, Any], env: dict[str, Any]) -> None:
            nonlocal started_at, last
            seconds = time.monotonic() - last
            reply["env"] = {
                **reply.get("env", {}), "load_average": round(load, 2), "process_s": round(seconds, 3),
                "overhead_s": round(seconds - reply.pop("measured_s", 0.0), 3), **env,
            }  # fmt: skip
            on_record(self._keep(waiting.pop(0), started_at, reply), seconds)
            started_at, last = utc_now(), time.monotonic()

        shared = len(batch) > 1
        try:
            outcome = run_child(
                self._worker, self._request(batch, free, deadline), timeout_s=self._plan.timeout_s,
                on_reply=(lambda reply: take(censored(reply), {"shared_process": True})) if shared else None,
            )  # fmt: skip
        except OSError as error:
            take(_failed("error", f"no process could be started: {error.strerror}", ""), {})
            return waiting
        up = outcome.exit_code == 0 and deadline is not None and time.monotonic() > deadline
        stopped = shared and len(waiting) < len(batch) and (up or outcome.exit_code == EXIT_POISONED)
        if waiting and not stopped:
            reply = verdict(outcome, self._plan.timeout_s, starved=oom_kills() > kills, free_bytes=free)
            others_s = max(0.0, busy_cpu_s() - busy - outcome.cpu_s)
            disturbance = {} if shared else {"other_busy_cores": round(others_s / outcome.wall_s, 3)}
            take(reply, {**disturbance, "peak_rss_bytes": outcome.peak_rss_bytes})
        return waiting

    def _request(self, batch: Sequence[Point], free: int, deadline: float | None) -> dict[str, Any]:
        first = batch[0][1]
        return {
            "cells": [
                {"cell": dict(cell), "verified": not self._conduct.verify or cell.id in self._verified}
                for _, cell in batch
            ],
            "settings": self._plan.to_dict(),
            "threads": first.get("threads") or self._machine["threads"]["torch"],
            "folder": str(self._writer.folder.resolve()),
            "data": str(self._conduct.data.resolve()) if self._conduct.data else None,
            "memory_limit_bytes": free if first.device == "cpu" else None,
            "seconds": None if deadline is None else deadline - time.monotonic(),
        }

    def _free_bytes(self, cell: Cell) -> int:
        return int(self._machine["gpus"][0]["free_bytes"]) if cell.device == "cuda" else free_bytes()

    def _keep(self, point: Point, started_at: str, reply: dict[str, Any]) -> Record:
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
            started_at=started_at,
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


def censored(reply: dict[str, Any]) -> dict[str, Any]:
    """A child's reply, with what stopped it."""
    if reply["status"] == "oom":
        reply.setdefault("notes", {})["censored_by"] = "memory"
    return reply


def verdict(outcome: Outcome, timeout_s: float, *, starved: bool, free_bytes: int) -> dict[str, Any]:
    """A record's status, reason and readings, from how its child ended.

    Args:
        outcome: of the child.
        timeout_s: what it was given.
        starved: whether the kernel killed some process for want of memory meanwhile.
        free_bytes: memory that was free before.
    """
    if outcome.reply is not None:
        return censored(outcome.reply)
    said = _printable(outcome.tail)
    if outcome.timed_out:
        return _failed("timeout", f"did not end within {timeout_s:g} s", said, limit="time")
    if outcome.exit_code == -signal.SIGKILL and (starved or outcome.peak_rss_bytes > FULL_SHARE * free_bytes):
        return _failed("oom", "killed by the kernel for want of memory", said, limit="memory")
    if outcome.exit_code != 0 and tells_of_full_memory(said):
        return _failed("oom", "died for want of memory", said, limit="memory")
    if outcome.exit_code is not None and outcome.exit_code < 0:
        return _failed("error", f"ended by signal {_signal_name(-outcome.exit_code)}", said)
    return _failed("error", f"exited with code {outcome.exit_code} and no result", said)


def _failed(status: Status, reason: str, said: str, limit: str = "") -> dict[str, Any]:
    notes = {"censored_by": limit} if limit else {}
    return {"status": status, "reason": f"{reason}; last output: {said}" if said else reason, "notes": notes}


def _printable(tail: str) -> str:
    """The end of a child's output on one line, without what could steer a terminal."""
    return printable(" | ".join(line.strip() for line in tail.splitlines() if line.strip()))[-TAIL_LENGTH:]


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def busy_cpu_s() -> float:
    """Processor seconds that the whole machine has spent working, other guests' included where it is one of them."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))
