"""The child that measures planted workloads, each reading in a fresh process forked from it.

Run as ``python -m bench.truth.worker DESCRIPTOR``. It loads torch once and forks, where the sweep's children load it
each: thousands of readings would else be mostly loading. What is measured, and by what code, is the same.
"""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import torch

from bench.run import stopping
from bench.run.child import guard_child, send_reply
from bench.run.probes import memory, wall
from bench.run.worker import failure
from bench.truth.work import step_of

STATUS = Path("/proc/self/status")


def main() -> None:
    request = json.load(sys.stdin)
    guard_child()
    torch.set_num_threads(1)
    gc.freeze()  # else each child would look through all that torch brought along
    send_reply({"replies": [in_fresh_process(item) for item in request["items"]]})


def in_fresh_process(item: dict[str, Any]) -> dict[str, Any]:
    """What ``answer`` says of the item, from a child of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        reply: dict[str, Any]
        try:
            guard_child(memory_limit_bytes=_limit(item["spare_bytes"]))
            reply = answer(item)
        except Exception as error:
            reply = failure(error)
        with os.fdopen(writing, "w") as pipe:
            json.dump(reply, pipe)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(pid, 0)
    if not text:
        return {"status": "error", "reason": f"ended with status {status} and no result"}
    told: dict[str, Any] = json.loads(text)
    return told


def answer(item: dict[str, Any]) -> dict[str, Any]:
    """Time the item's work, or, where it has no budget of seconds, find the peak memory of one iteration."""
    step = step_of(item["work"])
    if not item["budget_s"]:
        _, reading = memory.peak_of(step, "cpu")
        return {"status": "ok", "reason": "", "values": reading.values, "notes": reading.notes}
    gc.disable()
    started = time.perf_counter()
    step()
    first_s = time.perf_counter() - started
    started, cpu_started = time.perf_counter(), time.process_time()
    samples, ended_by = stopping.collect(wall.clock_for("cpu"), step, item["budget_s"], first_s=first_s)
    cpu_share = (time.process_time() - cpu_started) / (time.perf_counter() - started)
    return {
        "status": "ok",
        "reason": "",
        "samples": {"wall_s": samples},
        "notes": {"wall_s": ended_by},
        "env": {"cpu_share": cpu_share},
    }


def _limit(spare_bytes: int | None) -> int | None:
    """The limit on data that leaves ``spare_bytes`` beyond what this process has already."""
    if spare_bytes is None:
        return None
    found = re.search(r"^VmData:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    return int(found[1]) * 1024 + spare_bytes if found else None


if __name__ == "__main__":
    main()
