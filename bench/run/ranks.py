"""The processes of a cell that trains on several: its own is rank 0, starts the others, and alone replies.

They are its children, in its process group: they end with it. Run as ``python -m bench.run.ranks`` this is one of them.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.plan.cell import Cell
from bench.run.child import guard_child

ALONE_STEPS = 5  # that one process is timed for, after one that is not


def check_processes(cell: Cell) -> None:
    """Refuse a cell that cannot be divided.

    Raises:
        ValueError: why.
    """
    n = cell.processes
    if n > 1 and cell.batch_size % n:
        raise ValueError(f"processes {n} do not divide batch_sizes {cell.batch_size}; every rank takes as many rows")
    if n > 1 and 0 < cell.threads < n:
        raise ValueError(f"threads {cell.threads} are shared by processes {n}; give at least one to each")
    if n > 1 and (cell.get("execution", "eager"), cell.get("cache", "warm"), cell.get("paired_with")) not in (
        ("eager", "warm", ""), ("eager", "warm", None),
    ):  # fmt: skip
        raise ValueError("processes above 1 need execution eager and cache warm, and pair with nothing")


@contextlib.contextmanager
def together(cell: Cell, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Start the other ranks of a cell and join them; gives the request with this rank's share of the threads."""
    n = cell.get("processes", 1)
    if n == 1:
        yield request
        return
    cpus = sorted(os.sched_getaffinity(0))
    threads = max(1, request["threads"] // n)
    with tempfile.TemporaryDirectory(prefix="ftmamba-ranks-") as folder:
        own = {**request, "cell": dict(cell), "threads": threads, "meeting": str(Path(folder) / "meeting")}
        for rank in range(1, n):
            other = subprocess.Popen([sys.executable, "-m", "bench.run.ranks"], stdin=subprocess.PIPE)
            assert other.stdin is not None
            told = {**own, "rank": rank, "cpus": cpus[rank * threads : (rank + 1) * threads]}
            other.stdin.write(json.dumps(told).encode())
            other.stdin.close()
        os.sched_setaffinity(0, cpus[:threads])
        _join(cell, own, 0)
        yield own


def alone_s(device: str, make: Callable[[], Callable[[], object]]) -> float | None:
    """Seconds of a step of the whole batch by this process alone, while the others wait; None on any but the first."""
    from bench.run.probes import wall
    from bench.training import ranks

    if ranks.n_ranks() == 1 or ranks.rank():
        return None
    with ranks.alone():
        step = make()
        clock = wall.clock_for(device)
        clock.read(step, 1)
        return statistics.median(clock.read(step, ALONE_STEPS))


def efficiency(alone: float | None, together: float) -> dict[str, float | int | None]:
    """What a record says of it: 1 where n processes are n times as fast as one."""
    from bench.training import ranks

    if alone is None:
        return {}
    return {"one_process_step_s": alone, "scaling_efficiency": alone / (ranks.n_ranks() * together)}


def _join(cell: Cell, request: dict[str, Any], rank: int) -> None:
    from bench.training import ranks

    ranks.join(rank, cell.processes, cell.device, request["meeting"])


def main() -> None:
    guard_child()
    request = json.load(sys.stdin)
    cell = Cell(**request["cell"])
    if request["cpus"]:
        os.sched_setaffinity(0, request["cpus"])
    _join(cell, request, request["rank"])
    importlib.import_module(f"bench.run.tasks.{cell.task}").follow(cell, request)
    os._exit(0)


if __name__ == "__main__":
    main()
