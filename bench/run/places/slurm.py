"""Jobs of Slurm by submitit: each is a worker while the driver lives. They talk by files in the results folder.

A request is ``KEY.NUMBER.request``, its reply ``KEY.NUMBER.reply``; both appear whole. The driver keeps ``alive``
changing: a worker that sees it stand still, or gone, ends, and its cell with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from bench.plan import tasks
from bench.plan.plan import Plan
from bench.run.environment import MachineError
from bench.run.places import Berth, Place
from bench.run.places.remote import call

FOLDER = "slurm"  # beside the records, while a session lasts
POLL_S = 0.1
ALIVE_S = 120.0  # without a sign of the driver
MINUTES = 24 * 60  # that a job asks for; SBATCH_TIMELIMIT says otherwise


class Slurm(Place):
    """Jobs that wait for requests.

    Args:
        where: empty for Slurm, ``local`` for submitit's processes on this machine.
        folder: of the results; workers have to see it.
        plan: says what a job asks for: a whole node where its CPU is timed, a GPU, or its threads.
        workers: jobs.

    Raises:
        MachineError: submitit is not installed, or there is no Slurm.
    """

    def __init__(self, where: str, folder: Path, plan: Plan, workers: int) -> None:
        try:
            import submitit
        except ImportError as error:
            raise MachineError(f"submitit cannot be used ({error}); install it: pip install submitit") from None
        if where not in ("", "local"):
            raise MachineError(f"Slurm has no place {where}; take slurm or slurm:local")
        if not where and shutil.which("sbatch") is None:
            raise MachineError("no Slurm here: sbatch is not found; --on slurm:local runs jobs on this machine alone")
        self._folder = folder / FOLDER
        shutil.rmtree(self._folder, ignore_errors=True)  # workers of a driver that died see it, and end
        self._folder.mkdir(parents=True)
        self._executor = submitit.AutoExecutor(folder=self._folder / "logs", cluster=where or "slurm")
        needs: dict[str, Any] = {"timeout_min": MINUTES, "name": "ftmamba"}
        if plan.device == "cuda":
            needs["gpus_per_node"] = 1
        elif not where and any(tasks.find(task).timed for task in plan.tasks):
            needs["slurm_additional_parameters"] = {"exclusive": True}
        if plan.get("threads"):
            needs["cpus_per_task"] = plan.threads
        self._executor.update_parameters(**needs)
        self._beat = 0
        self._calls: dict[int, str] = {}
        self._n_calls = 0
        self._jobs: dict[str, Any] = {}
        self._live()
        n_gpus = int(plan.device == "cuda")
        self.berths = [self._start(Berth(str(n), os.cpu_count() or 1, n_gpus, 1)) for n in range(workers)]

    def _start(self, berth: Berth) -> Berth:
        self._jobs[berth.key] = self._executor.submit(serve, str(self._folder), berth.key)
        return berth

    def _live(self) -> None:
        self._beat += 1
        with contextlib.suppress(OSError):
            (self._folder / "alive").write_text(str(self._beat))

    def submit(self, berth: Berth, what: str, request: dict[str, Any], n_cpus: int) -> int:
        self._n_calls += 1
        self._calls[self._n_calls] = berth.key
        write(self._folder / f"{berth.key}.{self._n_calls}.request", {"what": what, "request": request})
        return self._n_calls

    def wait(self, timeout_s: float) -> list[tuple[int, dict[str, Any] | str]]:
        deadline = time.monotonic() + timeout_s
        while True:
            self._live()
            ended = [(number, reply) for number in self._calls if (reply := self._reply(number)) is not None]
            if ended or time.monotonic() > deadline:
                for number, _ in ended:
                    del self._calls[number]
                return ended
            time.sleep(POLL_S)

    def _reply(self, number: int) -> dict[str, Any] | str | None:
        key = self._calls[number]
        path, job = self._folder / f"{key}.{number}.reply", self._jobs[key]
        gone = job.done()  # looked at first: a worker may reply and end
        if path.exists():
            reply: dict[str, Any] = json.loads(path.read_bytes())
            path.unlink()
            return reply
        if not gone:
            return None
        (self._folder / f"{key}.{number}.request").unlink(missing_ok=True)
        return f"job {job.job_id} ended ({job.state})"

    def renewed(self, berth: Berth) -> Berth | None:
        return self._start(berth)

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)  # workers see it, and end; jobs that wait in the queue do not
        for job in self._jobs.values() if self._executor.cluster == "slurm" else ():
            job.cancel(check=False)


def serve(name: str, key: str) -> None:
    """A worker: does what it is asked for, one call after the other, as long as the driver lives."""
    folder = Path(name)
    threading.Thread(target=_watch, args=(folder / "alive",), daemon=True).start()
    while True:
        for path in sorted(folder.glob(f"{key}.*.request")):
            asked = json.loads(path.read_bytes())
            write(path.with_suffix(".reply"), call(asked["what"], asked["request"]))
            path.unlink()
        time.sleep(POLL_S)


def _watch(path: Path) -> None:
    """End this process, and so its child, when the driver is gone."""
    seen, at = "", time.monotonic()
    while time.monotonic() - at < ALIVE_S:
        try:
            beat = path.read_text()
        except OSError:
            break
        if beat != seen:
            seen, at = beat, time.monotonic()
        time.sleep(POLL_S)
    os._exit(1)


def write(path: Path, content: dict[str, Any]) -> None:
    """A file that appears whole."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content))
    os.replace(new, path)
