"""The child: cells in, replies out. Run by the runner as ``python -m bench.run.worker DESCRIPTOR``."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from bench.plan import tasks
from bench.plan.cell import Cell
from bench.records.text import printable
from bench.run.affinity import pin
from bench.run.child import guard_child, send_reply
from bench.run.ranks import together

REASON_LENGTH = 500
EXIT_POISONED = 75  # a broken GPU context gives no right number any more; cells that wait get another process
OUT_OF_MEMORY = ("can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "bad_alloc",
                 "status_alloc_failed")  # fmt: skip
POISONED = (
    "CUDA error",
    "Error [CUDA]",
    "STATUS_EXECUTION_FAILED",
    "STATUS_INTERNAL_ERROR",
)  # torch, Triton, libraries


def main() -> None:
    started = time.monotonic()
    request = json.load(sys.stdin)
    guard_child(memory_limit_bytes=request["memory_limit_bytes"])
    pin(request["threads"], request["cpus"])  # before torch starts threads
    for i, item in enumerate(request["cells"]):
        if i and request["seconds"] is not None and time.monotonic() - started > request["seconds"]:
            break
        reply = attempt(Cell(**item["cell"]), {**request, **item})
        send_reply(reply)
        if any(words in reply["reason"] for words in POISONED):
            os._exit(EXIT_POISONED)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # libraries take their time to unload, and what they do then is of no interest


def attempt(cell: Cell, request: dict[str, Any]) -> dict[str, Any]:
    """Measure one cell, whatever happens."""
    started = time.perf_counter()
    try:
        with together(cell, request) as own:
            found = (tasks.find(cell.task).run or _measure)(cell, own)
        reply = {"status": "ok", "reason": "", "measured_s": time.perf_counter() - started, **found}
        json.dumps(reply, allow_nan=False)  # a number that JSON has not is an error of the cell
        return reply
    except Exception as error:
        return failure(error)


def _measure(cell: Cell, request: dict[str, Any]) -> dict[str, Any]:
    started, fresh = time.perf_counter(), "torch" not in sys.modules
    from bench.run.measure import measure

    return measure(cell, {**request, "import_s": time.perf_counter() - started if fresh else None})


def failure(error: Exception) -> dict[str, Any]:
    """What to tell of an exception: out of memory, in whichever words a library says it, or an error.

    Memory that ran out while a CUDA graph was captured comes to light as another error, of the capture's end.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    full = [each for each in chain if _is_of_full_memory(each)]
    told = full[0] if full else error
    text, name = printable(str(told)), type(told).__name__
    reason = f"{name}: {text}" if text else name
    return {"status": "oom" if full else "error", "reason": reason[:REASON_LENGTH]}


def _is_of_full_memory(error: BaseException) -> bool:
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or tells_of_full_memory(printable(str(error)))


def tells_of_full_memory(text: str) -> bool:
    """Whether a message is about memory that could not be had."""
    return any(words in text.lower() for words in OUT_OF_MEMORY)


if __name__ == "__main__":
    main()
