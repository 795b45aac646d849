"""Two versions of a step, timed in turns: each is ready in a child of its own, which runs a few iterations when told.

Whatever slows the machine for longer than a turn slows both, so that their ratio is known better than either time. A
turn goes A B B A, in which a drift falls out. Two processes with the same code differ by a per cent or so, by where
their memory lies; so fresh pairs of processes take over, and the spread between them is the error of the ratio.

Run as ``python -m bench.run.turns DESCRIPTOR`` this is the child.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import math
import os
import random
import select
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.plan.cell import Cell
from bench.records.record import Record, Status
from bench.records.store import RunError
from bench.records.text import printable
from bench.run.affinity import pin
from bench.run.child import guard_child, kill_group, send_reply
from bench.run.provenance import ROOT, utc_now
from bench.run.runner import busy_cpu_s, censored
from bench.run.worker import failure

FEWEST_ROUNDS = 4  # before a verdict: from fewer the spread of processes is not known
FEWEST_TURNS = 3  # a round
BLOCK_S = 0.03  # iterations in a row; the first finds the other's data in the caches, and is not counted
LOOK_S = 0.3  # at what else the machine does, before a round

Job = dict[str, Any]  # what a child is told to make ready


@dataclass(frozen=True)
class Version:
    """What one side runs.

    Attributes:
        name: for people.
        folder: holds the ``ftmamba`` that is measured; the benchmark's own code is this tree's on both sides.
        worker: the module that its child runs.
    """

    name: str
    folder: Path = ROOT
    worker: str = "bench.run.turns"


class SideError(Exception):
    """A side gave no number; the message is one line for people, and ``status`` a record's."""

    def __init__(self, message: str, status: Status = "error") -> None:
        super().__init__(message)
        self.status = status


class Side:
    """A child that keeps a step ready. Use as a context manager.

    Args:
        version: that it runs.
        threads: of the child.
        timeout_s: for each answer.
        passive: whether threads that wait leave their processor to others, who need it.
    """

    def __init__(self, version: Version, threads: int, timeout_s: float, *, passive: bool) -> None:
        self.name, self._timeout_s, self._output = version.name, timeout_s, tempfile.TemporaryFile()  # noqa: SIM115
        reading, writing = os.pipe()
        self._replies = os.fdopen(reading)
        path = os.pathsep.join(filter(None, [str(version.folder), str(ROOT), os.getcwd(), os.environ.get("PYTHONPATH")]))
        waiting = {"OMP_WAIT_POLICY": "passive"} if passive else {}
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", version.worker, str(writing)], stdin=subprocess.PIPE,
            stdout=self._output, stderr=subprocess.STDOUT, pass_fds=(writing,), start_new_session=True,
            cwd=version.folder, env={**os.environ, "PYTHONPATH": path, **waiting},
        )  # fmt: skip
        os.close(writing)
        self.tell({"threads": threads})

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *error: object) -> None:
        kill_group(self._process.pid)
        self._process.communicate()
        self._replies.close()
        self._output.close()

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message; where the child has died, the missing answer tells."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The reply to a message.

        Raises:
            SideError: it failed, died, or took longer than its timeout.
        """
        if not select.select([self._replies], [], [], self._timeout_s)[0]:
            raise SideError(f"{self.name}: gave no answer within {self._timeout_s:g} s", "timeout")
        if not (line := self._replies.readline()):
            self._output.seek(0)
            said = printable(" | ".join(self._output.read().decode(errors="replace").splitlines()[-3:]))[-300:]
            raise SideError(f"{self.name}: ended without an answer; last output: {said}")
        reply: dict[str, Any] = json.loads(line)
        if "status" in reply:
            raise SideError(f"{self.name}: {reply['reason']}", reply["status"])
        return reply


def in_turns(sides: Sequence[Side], typical_s: Sequence[float], budget_s: float, first: int) -> dict[str, list[float]]:
    """Seconds of each iteration of both sides, and the ratio in each A B B A.

    Args:
        typical_s: seconds of an iteration of each.
        budget_s: seconds of timed iterations of both together.
        first: the side that begins; the next A B B A begins with the other.
    """
    n = [max(1, round(BLOCK_S / seconds)) for seconds in typical_s]
    readings: tuple[list[float], list[float]] = ([], [])
    ratios: list[float] = []
    while sum(map(sum, readings)) < budget_s or len(ratios) < FEWEST_TURNS:
        logs = [0.0, 0.0]
        for side in (first, 1 - first, 1 - first, first):
            sides[side].tell({"n": n[side]})
            seconds = sides[side].answer()["seconds"]
            readings[side].extend(seconds)
            logs[side] += math.log(statistics.median(seconds)) / 2
        ratios.append(math.exp(logs[0] - logs[1]))
        first = 1 - first
    return {"wall_s": readings[0], "paired_wall_s": readings[1], "paired_ratio": ratios}


def serve(ready: Callable[[Job], tuple[Callable[[], object], str, dict[str, str]]]) -> None:
    """The child: a first line with ``threads``, then messages, each of which gets an answer, until there are no more.

    Args:
        ready: makes what a job asks for: a step, its device, and notes.
    """
    guard_child()
    pin(json.loads(sys.stdin.readline())["threads"])  # before torch starts threads
    from bench.run import stopping
    from bench.run.probes import wall

    step: Callable[[], object] | None = None
    clock: wall.Clock = wall.CpuClock()
    for line in sys.stdin:
        message = json.loads(line)
        try:
            if "n" in message:
                assert step is not None
                n = message["n"]
                reply: dict[str, Any] = {"seconds": clock.read(step, n + 1)[1:] if n > 1 else clock.read(step, 1)}
            else:
                step = None  # its memory is free before the next one's is needed
                gc.enable()
                step, device, notes = ready(message)
                clock = wall.clock_for(device)
                gc.collect()
                gc.disable()
                first_s = clock.read(step, 2)[1]
                reply = {"seconds": stopping.warm_up(clock, step, 10 * BLOCK_S, first_s), "notes": notes}
        except Exception as error:
            reply = failure(error)
        send_reply(reply)


def ready_cell(job: Job) -> tuple[Callable[[], object], str, dict[str, str]]:
    """The step of ``job["cell"]``, whose results are compared with the reference if ``verify`` says so."""
    from bench.run.measure import build
    from bench.run.probes import memory
    from bench.run.verify import verify
    from ftmamba.threads import set_threads

    cell = Cell(**job["cell"])
    set_threads(job["threads"])
    notes = {"verify": verify(cell)} if job["verify"] else {}
    step = build(cell)
    if cell.heap == "kept":
        memory.keep_heap()
    return step, cell.device, notes


if __name__ == "__main__":
    serve(ready_cell)
