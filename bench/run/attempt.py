"""Where a cell runs, here or on another machine: one child for a request, and what became of it, in plain data."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil  # type: ignore[import-untyped]

from bench.records.record import Status
from bench.records.text import printable
from bench.run.child import Outcome, run_child
from bench.run.memory import free_bytes, oom_kills
from bench.run.provenance import machine_name, utc_now
from bench.run.worker import EXIT_POISONED, tells_of_full_memory

WORKER = (sys.executable, "-X", "faulthandler", "-m", "bench.run.worker")
TAIL_LENGTH = 300  # of a dead child's last words, in its record's reason
FULL_SHARE = 0.9  # of the memory that was free: a process killed above this died for want of memory

Answer = dict[str, Any]  # a record's status, reason, samples, values, notes, env, started_at; and the seconds it took


def execute(request: dict[str, Any], on_answer: Callable[[Answer], None]) -> None:
    """Run cells in one process and tell each answer as it comes; the last of them may not be come to.

    Args:
        request: ``cells`` and what the worker is told beside them; ``worker``, the command that runs a child, None for
            the usual one; ``timeout_s``; ``free_bytes`` of the device's memory, None where that is this machine's.
        on_answer: told of each, in the order of the cells.
    """
    n_cells, n_answers = len(request["cells"]), 0
    free = free_bytes() if request["free_bytes"] is None else request["free_bytes"]
    kills, busy, load, began = oom_kills(), busy_cpu_s(), os.getloadavg()[0], time.monotonic()
    started_at, last = utc_now(), began

    def take(reply: dict[str, Any], env: dict[str, Any]) -> None:
        nonlocal started_at, last, n_answers
        seconds = time.monotonic() - last
        env = {
            **reply.get("env", {}), "machine": machine_name(), "load_average": round(load, 2),
            "process_s": round(seconds, 3), "overhead_s": round(seconds - reply.pop("measured_s", 0.0), 3), **env,
        }  # fmt: skip
        n_answers += 1
        on_answer({**reply, "env": env, "started_at": started_at, "seconds": seconds})
        started_at, last = utc_now(), time.monotonic()

    shared = n_cells > 1
    told = {**request, "memory_limit_bytes": free if request["free_bytes"] is None else None}
    try:
        outcome = run_child(
            request["worker"] or WORKER, told, timeout_s=request["timeout_s"],
            on_reply=(lambda reply: take(censored(reply), {"shared_process": True})) if shared else None,
        )  # fmt: skip
    except OSError as error:
        take(failed("error", f"no process could be started: {error.strerror}"), {})
        return
    seconds = request["seconds"]
    up = outcome.exit_code == 0 and seconds is not None and time.monotonic() - began > seconds
    stopped = shared and n_answers and (up or outcome.exit_code == EXIT_POISONED)
    if n_answers < n_cells and not stopped:
        reply = verdict(outcome, request["timeout_s"], starved=oom_kills() > kills, free_bytes=free)
        others_s = max(0.0, busy_cpu_s() - busy - outcome.cpu_s)
        disturbance = {} if shared else {"other_busy_cores": round(others_s / outcome.wall_s, 3)}
        take(reply, {**disturbance, "peak_rss_bytes": outcome.peak_rss_bytes})


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
        return failed("timeout", f"did not end within {timeout_s:g} s", said, limit="time")
    if outcome.exit_code == -signal.SIGKILL and (starved or outcome.peak_rss_bytes > FULL_SHARE * free_bytes):
        return failed("oom", "killed by the kernel for want of memory", said, limit="memory")
    if outcome.exit_code != 0 and tells_of_full_memory(said):
        return failed("oom", "died for want of memory", said, limit="memory")
    if outcome.exit_code is not None and outcome.exit_code < 0:
        return failed("error", f"ended by signal {_signal_name(-outcome.exit_code)}", said)
    return failed("error", f"exited with code {outcome.exit_code} and no result", said)


def failed(status: Status, reason: str, said: str = "", limit: str = "") -> dict[str, Any]:
    """What a record says of a cell without a number.

    Args:
        said: the child's last words.
        limit: what it ran into: ``memory`` or ``time``.
    """
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
