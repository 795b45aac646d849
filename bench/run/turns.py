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
import os
import random
import select
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.plan.cell import Cell
from bench.records.record import Record, Status
from bench.records.store import RunError
from bench.records.text import printable
from bench.run.affinity import pin
from bench.run.attempt import busy_cpu_s, censored
from bench.run.child import guard_child, kill_group, send_reply
from bench.run.provenance import ROOT, utc_now
from bench.run.worker import failure

FEWEST_TURNS = 3  # a round
BLOCK_S = 0.015  # iterations in a row; the first finds the other's data in the caches, and is not counted
WARM_UP_S = 0.3  # at most
LOOK_S = 0.3  # at what else the machine does, before a round
CROWDED = 0.5  # processors taken by others in that look, above which threads that wait had better leave theirs

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
        passive: whether threads that wait leave their processor to others, who need it, instead of spinning.
    """

    def __init__(self, version: Version, threads: int, timeout_s: float, *, passive: bool) -> None:
        self.name, self._timeout_s, self._passive = version.name, timeout_s, passive
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        reading, writing = os.pipe()
        self._answers = os.fdopen(reading)
        path = [str(version.folder), str(ROOT), os.getcwd(), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", version.worker, str(writing)], stdin=subprocess.PIPE,
            stdout=self._output, stderr=subprocess.STDOUT, pass_fds=(writing,), start_new_session=True,
            cwd=version.folder, env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
            | ({"OMP_WAIT_POLICY": "passive"} if passive else {}),
        )  # fmt: skip
        os.close(writing)
        self.tell({"threads": threads})

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *error: object) -> None:
        kill_group(self._process.pid)
        self._process.communicate()
        self._answers.close()
        self._output.close()

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message; where the child has died, the missing answer tells."""
        self._signal(signal.SIGCONT)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The answer to a message. Then the child stands still: its threads would spin on into the other's turn.

        Raises:
            SideError: it failed, died, or took longer than its timeout.
        """
        if not select.select([self._answers], [], [], self._timeout_s)[0]:
            raise SideError(f"{self.name}: gave no answer within {self._timeout_s:g} s", "timeout")
        if not (line := self._answers.readline()):
            self._output.seek(0)
            said = printable(" | ".join(self._output.read().decode(errors="replace").splitlines()[-3:]))[-300:]
            raise SideError(f"{self.name}: ended without an answer; last output: {said}")
        if not self._passive:
            self._signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(line)
        if "status" in answer:
            raise SideError(f"{self.name}: {answer['reason']}", answer["status"])
        return answer

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


@contextlib.contextmanager
def commit(ref: str) -> Iterator[Version]:
    """The ``ftmamba`` of a commit of this repository, for as long as it is needed.

    Raises:
        RunError: there is none.
    """
    git = ["git", "-C", str(ROOT)]
    try:
        found = subprocess.run(
            [*git, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        files = subprocess.run([*git, "archive", found, "ftmamba"], check=True, capture_output=True).stdout
    except (OSError, ValueError, subprocess.CalledProcessError):
        raise RunError(f"{ascii(ref)[:80]} is no commit of {ROOT} with a folder ftmamba") from None
    with tempfile.TemporaryDirectory(prefix="ftmamba-base-") as folder:
        with tarfile.open(fileobj=io.BytesIO(files)) as archive:
            archive.extractall(folder, filter="data")
        yield Version(f"commit {found[:10]}", Path(folder))


def rounds_of(
    jobs: Sequence[tuple[Cell, Job, Job]], versions: tuple[Version, Version], plan: Mapping[str, Any], threads: int,
    run: str, undecided: Callable[[Sequence[Record]], Collection[str]],
) -> Iterator[Record]:  # fmt: skip
    """Records of a round over all jobs, then of another, until nothing is undecided.

    Args:
        jobs: a cell, and what each version is told to make ready.
        versions: the one whose times are ``wall_s``, and the one whose are ``paired_wall_s``.
        plan: ``rounds`` at most; ``budget_s``, seconds of timed iterations of each side in a round; ``timeout_s`` for
            an answer.
        threads: of each child.
        run: name of the run.
        undecided: ids of cells that need another round.
    """
    records: list[Record] = []
    todo = list(jobs)
    for round_ in range(plan["rounds"]):
        waiting = random.Random(round_).sample(todo, len(todo))
        while waiting:  # a pair of processes ends with the first failure in it
            busy = busy_cpu_s()
            time.sleep(LOOK_S)
            cores = (busy_cpu_s() - busy) / LOOK_S
            sides = [Side(version, threads, plan["timeout_s"], passive=cores > CROWDED) for version in versions]
            with sides[0], sides[1]:
                while waiting:
                    cell, *told = waiting.pop(0)
                    found = _turns(sides, told, plan["budget_s"], round_)
                    env = {"threads": threads, "other_busy_cores": round(cores, 3)}
                    records.append(Record(run=run, cell_id=cell.id, round=round_, cell=dict(cell), env=env, **found))
                    yield records[-1]
                    if records[-1].status != "ok":
                        break
        left = undecided(records)
        todo = [job for job in todo if job[0].id in left]


def _turns(sides: Sequence[Side], jobs: Sequence[Job], budget_s: float, round_: int) -> dict[str, Any]:
    """What a record holds of one cell in one round."""
    started_at, notes = utc_now(), {"paired_with": sides[1].name}
    failed: dict[str, SideError] = {}
    for side, job in zip(sides, jobs, strict=True):  # both get ready at once
        side.tell({**job, "verify": round_ == 0})
    for side in sides:
        try:
            notes |= side.answer()["notes"]
        except SideError as error:
            failed[side.name] = error
    samples: dict[str, list[float]] = {}
    if not failed:
        try:
            samples = in_turns(sides, budget_s, first=round_ % 2)
        except SideError as error:
            failed[str(error).partition(":")[0]] = error
    told: dict[str, Any] = {"status": "ok"}
    if failed:
        told = {"status": next(iter(failed.values())).status, "reason": "; ".join(map(str, failed.values()))}
        notes["failed"] = ", ".join(failed)
    return censored({**told, "samples": samples, "notes": notes, "started_at": started_at})


def in_turns(sides: Sequence[Side], budget_s: float, *, first: int) -> dict[str, list[float]]:
    """Seconds of each iteration of both sides.

    Args:
        budget_s: seconds of timed iterations of each.
        first: the side that begins; the next A B B A begins with the other.
    """
    readings: tuple[list[float], list[float]] = ([], [])
    turns = 0
    while turns < FEWEST_TURNS or sum(map(sum, readings)) < 2 * budget_s:
        for side in (first, 1 - first, 1 - first, first):
            # The least time so far: a typical one beside other work would make blocks of a single iteration.
            n = max(1, round(BLOCK_S / min(readings[side]))) if readings[side] else 1
            sides[side].tell({"n": n})
            readings[side].extend(sides[side].answer()["seconds"])
        first, turns = 1 - first, turns + 1
    return {"wall_s": readings[0], "paired_wall_s": readings[1]}


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
                stopping.warm_up(clock, step, WARM_UP_S, clock.read(step, 1)[0])
                reply = {"notes": notes}
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
