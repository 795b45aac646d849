"""A worker that speaks the real protocol, but acts out what its cell's length stands for instead of measuring."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from bench.plan import tasks
from bench.plan.cell import Cell
from bench.run import worker


def measured(request: dict[str, Any]) -> dict[str, Any]:
    seconds = request["cell"].get("n_tokens", 1000) / 1e6
    return {"samples": {"wall_s": [seconds] * 3}, "values": {"peak_memory_bytes": 1},
            "notes": {"wall_s": "acted"}, "measured_s": 0.0,
            "env": {"threads": request["threads"], "affinity": sorted(os.sched_getaffinity(0))}}  # fmt: skip


def raise_error(request: dict[str, Any]) -> None:
    raise RuntimeError("first line\nsecond line")


def raise_memory_error(request: dict[str, Any]) -> None:
    raise MemoryError


def raise_torch_out_of_memory(request: dict[str, Any]) -> None:
    raise RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory")


def raise_words(request: dict[str, Any]) -> None:
    raise RuntimeError(os.environ["ACTING_WORDS"])


def run_into_the_memory_limit(request: dict[str, Any]) -> None:
    bytearray(request["memory_limit_bytes"] + 1)


def kill_itself(request: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fault(request: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def flood(request: dict[str, Any]) -> dict[str, Any]:
    block = b"flood " * 10_000
    for _ in range(500):  # 30 MB
        os.write(1, block)
        os.write(2, block)
    return measured(request)


def flood_and_die(request: dict[str, Any]) -> None:
    os.write(1, b"\x1b[31mflood\x00\n" * 100_000)
    os._exit(7)


def answer_half(request: dict[str, Any]) -> None:
    os.write(int(sys.argv[-1]), b'{"status": "ok", "samp')
    os._exit(0)


def not_a_number(request: dict[str, Any]) -> dict[str, Any]:
    return {**measured(request), "samples": {"wall_s": [float("nan")]}}


ACTS: tuple[Callable[[dict[str, Any]], Any], ...] = (
    raise_error,
    raise_memory_error,
    raise_torch_out_of_memory,
    run_into_the_memory_limit,
    kill_itself,
    fault,
    flood,
    flood_and_die,
    answer_half,
    not_a_number,
    raise_words,
)
LENGTH_OF = {act.__name__: length for length, act in enumerate(ACTS, start=2)}


def measure(cell: Cell, request: dict[str, Any]) -> Any:
    length = cell.get("n_tokens", 1000)
    act = ACTS[length - 2] if length < len(ACTS) + 2 else measured
    return act(request)


if __name__ == "__main__":
    find = tasks.find
    tasks.find = lambda name: replace(find(name), run=None)  # every task acts
    sys.modules["bench.run.measure"] = SimpleNamespace(measure=measure)  # type: ignore[assignment]
    worker.main()
