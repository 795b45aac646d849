"""The parent: every cell of every round in a fresh child, every outcome in a record. It never imports torch."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import psutil  # type: ignore[import-untyped]

from bench.plan.cell import Cell
from bench.plan.sweep import Sweep
from bench.plan.tower import cell_cost
from bench.records.record import Record, Status
from bench.records.text import printable
from bench.records.writer import RunWriter
from bench.run.child import Outcome, run_child
from bench.run.forecast import Forecast, Refusal
from bench.run.memory import free_bytes, oom_kills
from bench.run.provenance import utc_now
from bench.run.worker import tells_of_full_memory
from ftmamba.cost import Cost

WORKER = (sys.executable, "-X", "faulthandler", "-m", "bench.run.worker")
TAIL_LENGTH = 300  # of a dead child's last words, in its record's reason
FULL_SHARE = 0.9  # of the memory that was free: a process killed above this died for want of memory

Listener = Callable[[Record, float], None]  # a new record, and the seconds that it took


def plan(sweep: Sweep) -> list[tuple[int, Cell]]:
    """Every round and cell in the order in which they run: each round is one pass in a fresh random order."""
    order = []
    for round_ in range(sweep.rounds):
        cells = sweep.cells()
        random.Random(f"{sweep.seed}/{round_}").shuffle(cells)
        order += [(round_, cell) for cell in cells]
    return order


def missing(sweep: Sweep, records: Sequence[Record]) -> list[tuple[int, Cell]]:
    """What ``plan`` has and ``records`` have not."""
    done = {(record.round, record.cell_id) for record in records}
    return [(round_, cell) for round_, cell in plan(sweep) if (round_, cell.id) not in done]


class Runner:
    """Runs the cells of one sweep.

    Args:
        sweep: resolved.
        machine: facts from ``bench.run.environment.probe``.
        writer: the open results folder.
        skip_ahead: whether a cell that failed for its size speaks for larger ones.
        verify: whether each cell's results are compared with the reference, until that went well once.
        worker: the command that runs a child.
    """

    def __init__(
        self,
        sweep: Sweep,
        machine: dict[str, Any],
        writer: RunWriter,
        *,
        skip_ahead: bool = True,
        verify: bool = True,
        worker: Sequence[str] = WORKER,
    ) -> None:
        self._sweep = sweep
        self._machine = machine
        self._writer = writer
        self._verify = verify
        self._worker = worker
        planned = {cell.id: asdict(cell) for cell in sweep.cells()}
        known = [record for record in writer.records if record.cell == planned.get(record.cell_id)]
        self._verified = {record.cell_id for record in known if "verify" in record.notes}
        self._forecast = Forecast(sweep.timeout_s, skip_ahead=skip_ahead, records=known)

    def run(self, on_record: Listener) -> None:
        """Run what the results folder does not hold yet; each record is on the disk before the next cell starts."""
        for round_, cell in missing(self._sweep, self._writer.records):
            record, seconds = self._attempt(cell, round_)
            self._writer.append(record)
            self._forecast.learn(record)
            self._verified |= {record.cell_id} if "verify" in record.notes else set()
            on_record(record, seconds)

    def _attempt(self, cell: Cell, round_: int) -> tuple[Record, float]:
        cost, free = cell_cost(cell), self._free_bytes(cell)
        started_at, load = utc_now(), os.getloadavg()[0]
        refusal = self._forecast.refusal(cell, cost, free)
        if refusal is not None:
            return self._record(cell, round_, cost, started_at, _skipped(refusal)), 0.0
        request = {
            "cell": asdict(cell),
            "budget_s": self._sweep.budget_s,
            "threads": self._sweep.threads,
            "paired_with": asdict(pair) if (pair := self._sweep.pair_of(cell)) else None,
            "heap": self._sweep.heap,
            "verified": not self._verify or cell.id in self._verified,
            "memory_limit_bytes": free if cell.device == "cpu" else None,
        }
        kills, busy = oom_kills(), _busy_cpu_s()
        try:
            outcome = run_child(self._worker, request, timeout_s=self._sweep.timeout_s)
        except OSError as error:
            failed = _failed("error", f"no process could be started: {error.strerror}", "")
            return self._record(cell, round_, cost, started_at, failed), 0.0
        others_s = max(0.0, _busy_cpu_s() - busy - outcome.cpu_s)
        reply = verdict(outcome, self._sweep.timeout_s, starved=oom_kills() > kills, free_bytes=free)
        reply["env"] = {
            **reply.get("env", {}),
            "load_average": round(load, 2),
            "other_busy_cores": round(others_s / outcome.wall_s, 3),
            "process_s": round(outcome.wall_s, 3),
            "overhead_s": round(outcome.wall_s - reply.pop("measured_s", 0.0), 3),
            "peak_rss_bytes": outcome.peak_rss_bytes,
        }
        return self._record(cell, round_, cost, started_at, reply), outcome.wall_s

    def _free_bytes(self, cell: Cell) -> int:
        if cell.device == "cuda":
            return int(self._machine["gpus"][0]["free_bytes"])
        return free_bytes()

    def _record(self, cell: Cell, round_: int, cost: Cost, started_at: str, reply: dict[str, Any]) -> Record:
        analytic = {"params": cost.params, "flops": cost.flops, "exps": cost.exps, "min_bytes": cost.min_bytes}
        return Record(
            run=self._writer.name,
            cell_id=cell.id,
            round=round_,
            cell=asdict(cell),
            status=reply["status"],
            reason=reply["reason"],
            samples=reply.get("samples", {}),
            values={**analytic, **reply.get("values", {})},
            notes=reply.get("notes", {}),
            started_at=started_at,
            env=reply.get("env", {}),
        )


def verdict(outcome: Outcome, timeout_s: float, *, starved: bool, free_bytes: int) -> dict[str, Any]:
    """A record's status, reason and readings, from how its child ended.

    Args:
        outcome: of the child.
        timeout_s: what it was given.
        starved: whether the kernel killed some process for want of memory meanwhile.
        free_bytes: memory that was free before.
    """
    if outcome.reply is not None:
        if outcome.reply["status"] == "oom":
            outcome.reply.setdefault("notes", {})["censored_by"] = "memory"
        return outcome.reply
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


def _skipped(refusal: Refusal) -> dict[str, Any]:
    return {"status": "skipped", "reason": refusal.reason, "notes": {"censored_by": refusal.limit}}


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


def _busy_cpu_s() -> float:
    """Processor seconds that the whole machine has spent working, other guests' included where it is one of them."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))
